package fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/fs"
)

// TestStandard has the standard library judge a snapshot.
func TestStandard(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	must(t, f.MkdirAll(ctx, "/a/b/c", 0o755))
	must(t, f.MkdirAll(ctx, "empty", 0o700))
	put(t, f, "/top", nil)
	put(t, f, "/a/small", []byte("hello"))
	put(t, f, "/a/b/big", noise(1, 5*fs.MinChunk+17))
	must(t, f.Symlink(ctx, "b/big", "/a/link"))
	must(t, f.Symlink(ctx, "/a/b", "/a/dirlink"))
	s, err := f.Snapshot(ctx)
	must(t, err)
	must(t, f.RemoveAll(ctx, "/a")) // the snapshot does not notice
	must(t, fstest.TestFS(s, "top", "a/small", "a/b/big", "a/link", "a/b/c", "empty"))
	sub, err := iofs.Sub(s, "a")
	must(t, err)
	must(t, fstest.TestFS(sub, "small", "b/big"))
}

// TestSizes writes and reads files around every bound, through every way in.
func TestSizes(t *testing.T) {
	w := newWorld(t)
	const chunk = 2 * fs.MinChunk
	f, ctx := w.volume(chunk), t.Context()
	for _, n := range []int{0, 1, fs.MaxInline - 1, fs.MaxInline, fs.MaxInline + 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 10*chunk + 5} {
		b := noise(uint64(n), n)
		put(t, f, "put", b)
		want(t, f, "put", b)
		h, err := f.Create(ctx, "written")
		must(t, err)
		for part := b; len(part) > 0; part = part[min(1000, len(part)):] {
			_, err := h.Write(part[:min(1000, len(part))])
			must(t, err)
		}
		must(t, h.Close())
		want(t, f, "written", b)
		i, err := f.Stat(ctx, "written")
		must(t, err)
		if i.Size() != int64(n) {
			t.Errorf("%d bytes: size %d", n, i.Size())
		}
		if f1, f2 := w.keys("blob/"), w.keys("use/"); f1 != f2 {
			t.Errorf("%d blobs, %d uses", f1, f2)
		}
	}
	if n := w.keys("pin/"); n != 0 {
		t.Errorf("%d pins are left after everything was committed", n)
	}
}

// TestErrors says for each mistake what a kernel would say, and that nothing is changed.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(0), t.Context()
	must(t, f.MkdirAll(ctx, "/d/sub", 0o755))
	put(t, f, "/file", []byte("x"))
	must(t, f.Symlink(ctx, "loop2", "/loop1"))
	must(t, f.Symlink(ctx, "loop1", "/loop2"))
	must(t, f.Symlink(ctx, "nowhere", "/dangling"))
	must(t, f.Symlink(ctx, "d", "/dlink"))
	long := strings.Repeat("n", fs.MaxName+1)
	open := func(p string, flag int) error { _, err := f.OpenFile(ctx, p, flag, 0o644); return err }
	stat := func(p string) error { _, err := f.Stat(ctx, p); return err }
	before := w.keys("")
	for _, tt := range []struct {
		name string
		err  error
		want syscall.Errno
	}{
		{"open missing", open("/none", os.O_RDONLY), syscall.ENOENT},
		{"open below missing", open("/none/x", os.O_RDWR|os.O_CREATE), syscall.ENOENT},
		{"open below file", open("/file/x", os.O_RDWR|os.O_CREATE), syscall.ENOTDIR},
		{"write directory", open("/d", os.O_RDWR), syscall.EISDIR},
		{"create exclusively what is", open("/file", os.O_RDWR|os.O_CREATE|os.O_EXCL), syscall.EEXIST},
		{"create exclusively a dangling link", open("/dangling", os.O_RDWR|os.O_CREATE|os.O_EXCL), syscall.EEXIST},
		{"dangling", stat("/dangling"), syscall.ENOENT},
		{"loop", stat("/loop1"), syscall.ELOOP},
		{"loop on the way", stat("/loop1/x"), syscall.ELOOP},
		{"name with NUL", open("/a\x00b", os.O_CREATE|os.O_RDWR), syscall.EINVAL},
		{"name not UTF-8", open("/\xff", os.O_CREATE|os.O_RDWR), syscall.EINVAL},
		{"long name", open("/"+long, os.O_CREATE|os.O_RDWR), syscall.ENAMETOOLONG},
		{"long path", stat(strings.Repeat("/d", fs.MaxPath)), syscall.ENAMETOOLONG},
		{"mkdir on what is", f.Mkdir(ctx, "/d", 0o755), syscall.EEXIST},
		{"mkdir root", f.Mkdir(ctx, "/", 0o755), syscall.EEXIST},
		{"mkdirall over file", f.MkdirAll(ctx, "/file/x/y", 0o755), syscall.ENOTDIR},
		{"remove missing", f.Remove(ctx, "/none"), syscall.ENOENT},
		{"remove full directory", f.Remove(ctx, "/d"), syscall.ENOTEMPTY},
		{"remove root", f.Remove(ctx, "/"), syscall.EBUSY},
		{"rename missing", f.Rename(ctx, "/none", "/x"), syscall.ENOENT},
		{"rename root", f.Rename(ctx, "/", "/x"), syscall.EBUSY},
		{"rename into own child", f.Rename(ctx, "/d", "/d/sub/x"), syscall.EINVAL},
		{"rename into own child by a link", f.Rename(ctx, "/d", "/dlink/sub/x"), syscall.EINVAL},
		{"rename file over directory", f.Rename(ctx, "/file", "/d"), syscall.EISDIR},
		{"rename directory over file", f.Rename(ctx, "/d", "/file"), syscall.ENOTDIR},
		{"rename over full directory", f.Rename(ctx, "/d/sub", "/d"), syscall.ENOTEMPTY},
		{"readlink of a file", func() error { _, err := f.Readlink(ctx, "/file"); return err }(), syscall.EINVAL},
		{"empty link", f.Symlink(ctx, "", "/l"), syscall.ENOENT},
		{"chown", f.Chown(ctx, "/file", -2, 0, true), syscall.EINVAL},
		{"truncate negative", f.Truncate(ctx, "/file", -1), syscall.EINVAL},
		{"truncate too far", f.Truncate(ctx, "/file", 1<<50), syscall.EFBIG},
		{"chmod missing", f.Chmod(ctx, "/none", 0), syscall.ENOENT},
	} {
		if got := fs.Errno(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
		if errs.ClassOf(fs.Classify(tt.err)) == errs.Internal {
			t.Errorf("%s: %v has no class", tt.name, tt.err)
		}
	}
	if after := w.keys(""); after != before {
		t.Errorf("%d keys, %d before the mistakes", after, before)
	}
	if !os.IsNotExist(stat("/none")) || !os.IsExist(f.Mkdir(ctx, "/d", 0)) {
		t.Error("package os does not recognise the errors")
	}
}

func TestVolumes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if _, err := w.st.Open(ctx, "v"); !errors.Is(err, iofs.ErrNotExist) || !errs.IsNotFound(err) {
		t.Fatalf("open a missing volume: %v", err)
	}
	if n := w.keys(""); n != 0 {
		t.Fatalf("%d keys after looking", n)
	}
	f := w.volume(0)
	put(t, f, "/x", noise(1, 100_000))
	if _, err := w.st.Create(ctx, "v", fs.VolumeOptions{}); !errs.IsExists(err) {
		t.Errorf("create twice: %v", err)
	}
	for _, bad := range []string{"", "a/b", "..", "A", strings.Repeat("a", 64)} {
		if _, err := w.st.Create(ctx, bad, fs.VolumeOptions{}); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("volume %q: %v", bad, err)
		}
	}
	must(t, w.st.Delete(ctx, "v"))
	if err := f.Mkdir(ctx, "/late", 0o755); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("write into a deleted volume: %v", err)
	}
	f = w.volume(0)
	if es, err := f.ReadDir(ctx, "/"); err != nil || len(es) != 0 {
		t.Errorf("the new volume has %v, %v", es, err)
	}
	if c := w.gc(); c.Swept != 2 || w.keys("blob/") != 0 {
		t.Errorf("collected %+v", c)
	}
}

// TestWritersAndReaders: of two writers one wins and the other is told, a reader sees one content throughout.
func TestWritersAndReaders(t *testing.T) {
	for _, size := range []int{100, 50_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			f, ctx := w.volume(fs.MinChunk), t.Context()
			g, err := w.node().Open(ctx, "v")
			must(t, err)
			old, a, b := noise(1, size), noise(2, size), noise(3, size)
			put(t, f, "/x", old)
			r, err := f.Open(ctx, "/x")
			must(t, err)
			h1, err := f.OpenFile(ctx, "/x", os.O_RDWR, 0)
			must(t, err)
			h2, err := g.OpenFile(ctx, "/x", os.O_RDWR|os.O_TRUNC, 0)
			must(t, err)
			_, err = h1.Write(a)
			must(t, err)
			_, err = h2.Write(b)
			must(t, err)
			want(t, f, "/x", old)
			must(t, f.Chmod(ctx, "/x", 0o600)) // no conflict
			must(t, h2.Close())
			if err := h1.Close(); !errors.Is(err, fs.ErrConflict) || !errs.IsConflict(err) {
				t.Errorf("the second writer: %v", err)
			}
			want(t, g, "/x", b)
			if i, err := f.Stat(ctx, "/x"); err != nil || i.Mode() != 0o600 {
				t.Errorf("mode %v, %v", i.Mode(), err)
			}
			w.gc()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, old) {
				t.Errorf("the reader got %d bytes, %v", len(got), err)
			}
			must(t, r.Close())
		})
	}
}

// TestPast: when the database has forgotten what a reader reads it gets an error, not other bytes.
func TestPast(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	put(t, f, "/x", noise(1, 50_000))
	kept := noise(2, 50_000)
	put(t, f, "/kept", kept)
	r, err := f.Open(ctx, "/x")
	must(t, err)
	k, err := f.Open(ctx, "/kept")
	must(t, err)
	s, err := f.Snapshot(ctx)
	must(t, err)
	put(t, f, "/x", noise(3, 50_000))
	w.gc()
	h, err := w.kv.Head(ctx)
	must(t, err)
	must(t, w.kv.Compact(ctx, h.Revision))
	if _, err := io.ReadAll(r); !errors.Is(err, fs.ErrPast) {
		t.Errorf("read what has been collected and forgotten: %v", err)
	}
	if _, err := s.ReadFile("x"); !errors.Is(err, fs.ErrPast) {
		t.Errorf("read a forgotten snapshot: %v", err)
	}
	if got, err := io.ReadAll(k); err != nil || !bytes.Equal(got, kept) {
		t.Errorf("read what is still there: %v", err)
	}
}

func TestRemovedWhileOpen(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	b := noise(1, 30_000)
	put(t, f, "/x", b)
	h, err := f.OpenFile(ctx, "/x", os.O_RDWR, 0)
	must(t, err)
	must(t, f.Remove(ctx, "/x"))
	if got, err := io.ReadAll(h); err != nil || !bytes.Equal(got, b) {
		t.Errorf("read after removal: %v", err)
	}
	_, err = h.WriteAt([]byte("y"), 0)
	must(t, err)
	if err := h.Close(); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("close after removal: %v", err)
	}
}

// TestRenamedWhileOpen: a handle is on the file, not on its name.
func TestRenamedWhileOpen(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(0), t.Context()
	must(t, f.Mkdir(ctx, "/d", 0o755))
	h, err := f.Create(ctx, "/d/x")
	must(t, err)
	must(t, f.Rename(ctx, "/d", "/e"))
	_, err = h.WriteString("here")
	must(t, err)
	must(t, h.Close())
	want(t, f, "/e/x", []byte("here"))
}

func TestDedup(t *testing.T) {
	w := newWorld(t)
	f := w.volume(fs.MinChunk)
	g, err := w.st.Create(t.Context(), "other", fs.VolumeOptions{Chunk: fs.MinChunk})
	must(t, err)
	b := noise(1, 10*fs.MinChunk)
	put(t, f, "/a", b)
	n := w.keys("blob/")
	put(t, f, "/b", b)
	put(t, g, "/c", b)
	if m := w.keys("blob/"); n != 11 || m != n {
		t.Errorf("%d blobs, then %d; want 10 chunks and a manifest", n, m)
	}
	h, err := f.OpenFile(t.Context(), "/b", os.O_WRONLY, 0)
	must(t, err)
	_, err = h.WriteAt([]byte("changed"), 5*fs.MinChunk+3)
	must(t, err)
	must(t, h.Close())
	if m := w.keys("blob/"); m != n+2 {
		t.Errorf("%d blobs after a change in one chunk, want 2 more than %d", m, n)
	}
	want(t, f, "/a", b)
	copy(b[5*fs.MinChunk+3:], "changed")
	want(t, f, "/b", b)
}

func TestSparse(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	h, err := f.Create(ctx, "/x")
	must(t, err)
	must(t, h.Truncate(1<<20))
	_, err = h.WriteAt([]byte("end"), 1<<20-3)
	must(t, err)
	must(t, h.Close())
	b := make([]byte, 1<<20)
	copy(b[1<<20-3:], "end")
	want(t, f, "/x", b)
	if n := w.keys("blob/"); n != 2 {
		t.Errorf("%d blobs for one chunk that is not zeros", n)
	}
}

func TestTimes(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(0), t.Context()
	must(t, f.Mkdir(ctx, "/d", 0o755))
	old := time.Unix(1000, 5)
	must(t, f.Chtimes(ctx, "/d", old))
	i, err := f.Stat(ctx, "/d")
	must(t, err)
	if !i.ModTime().Equal(old) {
		t.Errorf("directory of %v", i.ModTime())
	}
	put(t, f, "/d/x", nil)
	if i, err = f.Stat(ctx, "/d"); err != nil || !i.ModTime().After(old) {
		t.Errorf("a new entry left the directory at %v, %v", i.ModTime(), err)
	}
	must(t, f.Chtimes(ctx, "/d/x", old))
	must(t, f.Chown(ctx, "/d/x", 7, -1, true))
	i, err = f.Stat(ctx, "/d/x")
	must(t, err)
	if uid, gid := i.Owner(); !i.ModTime().Equal(old) || uid != 7 || gid != 0 {
		t.Errorf("file of %v, owner %d:%d", i.ModTime(), uid, gid)
	}
}

func TestReplace(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	i := put(t, f, "/x", []byte("one"))
	re := func(o fs.ReplaceOptions, s string) (*fs.Info, error) {
		return f.Replace(ctx, "/x", strings.NewReader(s), o)
	}
	if _, err := re(fs.ReplaceOptions{New: true}, "two"); !errors.Is(err, iofs.ErrExist) {
		t.Errorf("new: %v", err)
	}
	j, err := re(fs.ReplaceOptions{Match: i.ETag()}, "three")
	must(t, err)
	if _, err := re(fs.ReplaceOptions{Match: i.ETag()}, "four"); !errs.Is(err, errs.Precondition) {
		t.Errorf("an ETag of the past: %v", err)
	}
	s, err := f.Stat(ctx, "/x")
	must(t, err)
	if s.ETag() != j.ETag() || s.Size() != 5 {
		t.Errorf("%s of %d bytes, want %s", s.ETag(), s.Size(), j.ETag())
	}
	broken := io.MultiReader(bytes.NewReader(noise(1, 100_000)), iotestErr{})
	if _, err := f.Replace(ctx, "/x", broken, fs.ReplaceOptions{}); !errors.Is(err, errBroken) {
		t.Errorf("a broken source: %v", err)
	}
	want(t, f, "/x", []byte("three"))
	if w.gc(); w.keys("blob/") != 0 || w.keys("pin/") != 0 {
		t.Error("the broken upload left something")
	}
}

var errBroken = errors.New("broken")

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errBroken }
