package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
	worldfs "github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/fs/fusefs"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// need skips where FUSE cannot be had, and says what is missing.
func need(t *testing.T) {
	t.Helper()
	testring.Need(t, 2)
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("SKIP: FUSE cannot be used here: %v", err)
	}
	_ = f.Close()
}

func store(t *testing.T) *worldfs.Store {
	t.Helper()
	kv := kvstore.New(mem.New(), kvstore.Config{})
	t.Cleanup(func() { _ = kv.Close() })
	st, err := worldfs.New(worldfs.Deps{KV: kv, Prefix: "/t/"})
	must(t, err)
	return st
}

// TestMount reads a mounted volume as any program does.
func TestMount(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	ctx, st, dir := t.Context(), store(t), t.TempDir()
	f, err := st.Create(ctx, "v", worldfs.VolumeOptions{})
	must(t, err)
	big := make([]byte, 3<<20+17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(big)
	put := func(p string, b []byte) {
		t.Helper()
		_, err := f.Replace(ctx, p, bytes.NewReader(b), worldfs.ReplaceOptions{Perm: 0o640})
		must(t, err)
	}
	must(t, f.MkdirAll(ctx, "/a/b", 0o755))
	put("/a/b/big", big[:9000])
	put("/small", []byte("hello"))
	must(t, f.Symlink(ctx, "a/b/big", "/link"))
	must(t, f.Chown(ctx, "/small", 1000, 1001, true))
	must(t, f.Chtimes(ctx, "/small", time.Unix(12345, 0)))
	for i := range 300 {
		put(fmt.Sprintf("/a/%03d", i), nil)
	}
	m, err := fusefs.New(fusefs.Deps{Store: st, Source: "shoal-test"})
	must(t, err)
	defer func() { must(t, m.Close()) }()
	must(t, m.Mount(ctx, "v", dir))
	must(t, fstest.TestFS(os.DirFS(dir), "a/b/big", "small", "link", "a/000", "a/299"))
	put("/big", big)
	if b, err := os.ReadFile(dir + "/big"); err != nil || !bytes.Equal(b, big) {
		t.Errorf("read a big file: %d bytes, %v", len(b), err)
	}
	if b, err := os.ReadFile(dir + "/link"); err != nil || !bytes.Equal(b, big[:9000]) {
		t.Errorf("read through a link: %d bytes, %v", len(b), err)
	}
	var s unix.Stat_t
	must(t, unix.Stat(dir+"/small", &s))
	if s.Mode != unix.S_IFREG|0o640 || s.Uid != 1000 || s.Gid != 1001 || s.Mtim.Sec != 12345 || s.Size != 5 {
		t.Errorf("stat %+v", s)
	}
	for what, err := range map[string]error{
		"write": os.WriteFile(dir+"/small", nil, 0o644), "remove": os.Remove(dir + "/small"), "mkdir": os.Mkdir(dir+"/x", 0o755),
		"rename": os.Rename(dir+"/small", dir+"/x"), "chmod": os.Chmod(dir+"/small", 0o777),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want a read-only file system", what, err)
		}
	}
	changes(t, f, dir, put)
	refusals(t, m, dir)
}

// changes: a file that is open is read on as it was, a new one is seen.
func changes(t *testing.T, f *worldfs.FS, dir string, put func(string, []byte)) {
	h, err := os.Open(dir + "/small")
	must(t, err)
	put("/small", []byte("HELLO, WORLD"))
	b := make([]byte, 100)
	if n, _ := h.Read(b); string(b[:n]) != "hello" {
		t.Errorf("an open file reads %q", b[:n])
	}
	must(t, h.Close())
	must(t, f.Remove(t.Context(), "/a/000"))
	wait(t, "the change", func() bool {
		b, err := os.ReadFile(dir + "/small")
		_, gone := os.Stat(dir + "/a/000")
		return err == nil && string(b) == "HELLO, WORLD" && errors.Is(gone, fs.ErrNotExist)
	})
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func refusals(t *testing.T, m *fusefs.Mounts, dir string) {
	ctx, full := context.Background(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o644))
	for what, tt := range map[string]struct {
		err  error
		want errs.Class
	}{
		"missing volume": {m.Mount(ctx, "none", t.TempDir()), errs.NotFoundClass},
		"relative":       {m.Mount(ctx, "v", "x"), errs.InvalidInput},
		"missing path":   {m.Mount(ctx, "v", full+"/none"), errs.InvalidInput},
		"full":           {m.Mount(ctx, "v", full), errs.InvalidInput},
		"twice":          {m.Mount(ctx, "v", dir), errs.InvalidInput},
		"unmount":        {m.Unmount(full), errs.NotFoundClass},
	} {
		if errs.ClassOf(tt.err) != tt.want {
			t.Errorf("%s: %v", what, tt.err)
		}
	}
	h, err := os.Open(dir + "/small")
	must(t, err)
	if err := m.Unmount(dir); !errs.Is(err, errs.BusyClass) {
		t.Errorf("unmount what is in use: %v", err)
	}
	must(t, h.Close())
	wait(t, "the end of the handle", func() bool { return m.Unmount(dir) == nil })
	if len(m.List()) != 0 {
		t.Errorf("%v is mounted", m.List())
	}
	other := filepath.Join(t.TempDir(), "with blank")
	must(t, os.Mkdir(other, 0o755))
	must(t, m.Mount(ctx, "v", other))
	must(t, unix.Unmount(other, 0)) // by somebody else
	wait(t, "the notice", func() bool { return len(m.List()) == 0 })
	must(t, m.Mount(ctx, "v", other)) // is left to Close
}

// TestLeftOver has a process die that serves a mount: the next one clears it away, and no other.
func TestLeftOver(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/a b", 0o755))
	must(t, os.Mkdir(dir+"/foreign", 0o755))
	for path, source := range map[string]string{dir + "/a b": "shoal-test", dir + "/foreign": "shoal-other"} {
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Mount(source, path, "fuse.shoalfs", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
		must(t, unix.Close(fd)) // as the kernel does when a process dies
	}
	m, err := fusefs.New(fusefs.Deps{Store: store(t), Source: "shoal-test"})
	must(t, err)
	must(t, m.Close())
	info, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	must(t, unix.Unmount(dir+"/foreign", unix.MNT_DETACH))
	if strings.Contains(string(info), `a\040b`) || !strings.Contains(string(info), dir+"/foreign") {
		t.Errorf("mounted is\n%s", info)
	}
}
