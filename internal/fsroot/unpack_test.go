package fsroot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var stamp = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

func entry(typ byte, name, link string) tar.Header {
	return tar.Header{Typeflag: typ, Name: name, Linkname: link, Mode: 0o755, ModTime: stamp}
}

func file(name, content string) tar.Header {
	h := entry(tar.TypeReg, name, "")
	h.Size = int64(len(content))
	h.PAXRecords = map[string]string{"SHOAL.content": content}
	return h
}

func dir(name string) tar.Header { return entry(tar.TypeDir, name, "") }

// archive writes headers as they are; content travels in a PAX record for brevity.
func archive(t interface{ Fatal(...any) }, headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["SHOAL.content"]
		delete(h.PAXRecords, "SHOAL.content")
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// canary is a directory with a target directory in it, and things beside the target that no archive may touch.
type canary struct {
	root   *fsroot.Root
	path   string
	before string
}

func newCanary(t interface {
	Fatal(...any)
	Cleanup(func())
	TempDir() string
}) *canary {
	outer := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	inner := filepath.Join(outer, "store")
	must(os.Mkdir(inner, 0o700))
	for _, d := range []string{outer, inner} {
		must(os.WriteFile(filepath.Join(d, "victim"), []byte("unchanged"), 0o640))
		must(os.Mkdir(filepath.Join(d, "victimdir"), 0o750))
		must(os.Symlink("victim", filepath.Join(d, "victimlink")))
	}
	r, err := fsroot.Open(inner)
	must(err)
	t.Cleanup(func() { r.Close() })
	c := &canary{root: r, path: outer}
	c.before = c.list(t)
	return c
}

// list describes everything outside the target: names, modes, owners, times, content.
func (c *canary) list(t interface{ Fatal(...any) }) string {
	var b strings.Builder
	err := filepath.WalkDir(c.path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(c.path, p)
		if rel == "store/target" {
			return filepath.SkipDir
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		when := st.ModTime()
		if rel == "store" {
			when = time.Time{} // making the target changes it
		}
		content := ""
		if st.Mode().IsRegular() {
			raw, _ := os.ReadFile(p)
			content = string(raw)
		}
		fmt.Fprintln(&b, rel, st.Mode(), sys.Uid, sys.Gid, sys.Nlink, when, content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (c *canary) check(t interface {
	Fatal(...any)
	Errorf(string, ...any)
}, unpacked bool) {
	if unpacked {
		if err := c.root.RemoveTree("target"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(c.path, "store", "target")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left of the target: %v", err)
	}
	if after := c.list(t); after != c.before {
		t.Errorf("changed outside the target:\nbefore:\n%s\nafter:\n%s", c.before, after)
	}
}

func TestUnpackRefusesHostileArchives(t *testing.T) {
	long := strings.Repeat("a", 256)
	for _, tt := range []struct {
		name    string
		headers []tar.Header
		class   errs.Class
		want    string
	}{
		{"dot dot", []tar.Header{file("../x", "x")}, errs.InvalidInput, `entry "../x"`},
		{"dot dot inside", []tar.Header{file("a/../../x", "x")}, errs.InvalidInput, `entry "a/../../x"`},
		{"dot dot that stays inside", []tar.Header{file("a/../x", "x")}, errs.InvalidInput, `".."`},
		{"absolute", []tar.Header{file("/victim", "x")}, errs.InvalidInput, "absolute"},
		{"4097 bytes", []tar.Header{file(strings.Repeat("abcdefg/", 512)+"x", "x")}, errs.InvalidInput, "4095"},
		{"part of 256 bytes", []tar.Header{file(long, "x")}, errs.InvalidInput, "255"},
		{"too deep", []tar.Header{file(strings.Repeat("d/", 300)+"x", "x")}, errs.TooLargeClass, "deep"},
		{"file through a link", []tar.Header{entry(tar.TypeSymlink, "l", ".."), file("l/victim", "x")}, errs.InvalidInput, `entry "l/victim"`},
		{"directory through a link", []tar.Header{entry(tar.TypeSymlink, "l", "../victimdir"), dir("l/new")}, errs.InvalidInput, `entry "l/new"`},
		{"directory onto a link", []tar.Header{entry(tar.TypeSymlink, "l", "../victimdir"), dir("l")}, errs.InvalidInput, "no directory"},
		{"directory becomes a link", []tar.Header{dir("rootfs"), entry(tar.TypeSymlink, "rootfs", "/"), file("rootfs/x", "x")}, errs.InvalidInput, "is a directory"},
		{"full directory becomes a file", []tar.Header{file("rootfs/a", "a"), file("rootfs", "x")}, errs.InvalidInput, "is a directory"},
		{"file becomes a directory", []tar.Header{file("a", "a"), dir("a")}, errs.InvalidInput, "no directory"},
		{"file as parent", []tar.Header{file("a", "a"), file("a/b", "b")}, errs.InvalidInput, `entry "a/b"`},
		{"hard link outside", []tar.Header{entry(tar.TypeLink, "h", "../victim")}, errs.InvalidInput, `hard link to "../victim"`},
		{"absolute hard link", []tar.Header{entry(tar.TypeLink, "h", "/etc/passwd")}, errs.InvalidInput, "absolute"},
		{"hard link through a link", []tar.Header{entry(tar.TypeSymlink, "l", ".."), entry(tar.TypeLink, "h", "l/victim")}, errs.InvalidInput, "no such earlier entry"},
		{"hard link to nothing", []tar.Header{entry(tar.TypeLink, "h", "nothing")}, errs.InvalidInput, "no such earlier entry"},
		{"hard link to a directory", []tar.Header{dir("d"), entry(tar.TypeLink, "h", "d")}, errs.InvalidInput, "directory"},
		{"device", []tar.Header{entry(tar.TypeBlock, "sda", "")}, errs.InvalidInput, "devices are not allowed"},
		{"FIFO", []tar.Header{entry(tar.TypeFifo, "f", "")}, errs.InvalidInput, "FIFOs"},
		{"unknown type", []tar.Header{entry('Z', "z", "")}, errs.InvalidInput, `type 'Z'`},
		{"tree is a file", []tar.Header{file("./.", "x")}, errs.InvalidInput, "must be a directory"},
		{"too much content", []tar.Header{file("a", strings.Repeat("x", 600)), file("b", strings.Repeat("x", 600))}, errs.TooLargeClass, `entry "b"`},
		{"too many entries", []tar.Header{dir("a"), dir("a"), dir("a"), dir("a"), dir("a"), dir("a"), dir("a"), dir("a"), dir("a")}, errs.TooLargeClass, "8 entries"},
		{"too many implied directories", []tar.Header{file("a/b/c/d/e/f/g/h/i/j", "x")}, errs.TooLargeClass, "8 entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCanary(t)
			_, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(t, tt.headers...)),
				fsroot.UnpackOptions{Limits: fsroot.Limits{Entries: 8, Bytes: 1000}})
			if err == nil || errs.ClassOf(err) != tt.class || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v (%v), want %v with %q", err, errs.ClassOf(err), tt.class, tt.want)
			}
			c.check(t, false)
		})
	}
}

func TestUnpackRefusesHostileSystemArchives(t *testing.T) {
	needRoot(t)
	owner := file("f", "x")
	owner.Uid = 1 << 32
	attr := file("f", "x")
	attr.PAXRecords["SCHILY.xattr.security.capability"] = "nonsense"
	for _, tt := range []struct {
		name    string
		headers []tar.Header
		want    string
	}{
		{"whiteout device", []tar.Header{entry(tar.TypeChar, "etc/passwd", "")}, "0:0"},
		{"owner", []tar.Header{owner}, "bad owner"},
		{"capability", []tar.Header{attr}, "bad attribute security.capability"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCanary(t)
			_, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(t, tt.headers...)), fsroot.UnpackOptions{System: true, Devices: true})
			if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			c.check(t, false)
		})
	}
}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("RING 1: needs root to keep owners and devices")
	}
}

func TestUnpackSystemImage(t *testing.T) {
	needRoot(t)
	su := file("usr/bin/su", "#!")
	su.Mode, su.Uid, su.Gid = 0o4755, 0, 42
	su.PAXRecords["SCHILY.xattr.user.note"] = "kept"
	su.PAXRecords["SCHILY.xattr.user.overlay.whiteout"] = "y"
	su.PAXRecords["SCHILY.xattr.trusted.overlay.opaque"] = "y"
	ping := file("usr/bin/ping", "!!")
	ping.PAXRecords["SCHILY.xattr.security.capability"] = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	null := entry(tar.TypeChar, "dev/null", "")
	null.Devmajor, null.Devminor, null.Mode = 1, 3, 0o666
	tmp := dir("tmp")
	tmp.Mode = 0o1777
	link := entry(tar.TypeSymlink, "bin", "usr/bin")
	link.Uid = 7
	closed := dir("closed")
	closed.Mode, closed.Uid = 0o500, 1000
	c := newCanary(t)
	res, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(t,
		dir("./"), closed, file("./closed/f", "in"), su, ping, entry(tar.TypeLink, "usr/bin/su2", "./usr/bin/su"), link, null,
		entry(tar.TypeFifo, "run/initctl", ""), tmp, file("twice", "old"), file("twice", "new"), file("odd\xff\n name", "x"),
	)), fsroot.UnpackOptions{System: true, Devices: true, Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	// 13 entries and the directories usr, usr/bin, dev, run that nobody named
	if res.Entries != 17 || res.SkippedXattrs != 2 {
		t.Errorf("result %+v", res)
	}
	at := func(name string) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(c.path, "store/target", name), &st); err != nil {
			t.Fatal(name, err)
		}
		return st
	}
	if st := at("usr/bin/su"); st.Mode != unix.S_IFREG|0o4755 || st.Gid != 42 || st.Nlink != 2 || st.Mtim.Sec != stamp.Unix() {
		t.Errorf("su: %o %+v", st.Mode, st)
	}
	if st := at("bin"); st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Uid != 7 || st.Mtim.Sec != stamp.Unix() {
		t.Errorf("link: %+v", st)
	}
	if st := at("dev/null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null: %+v", st)
	}
	if st := at("run/initctl"); st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.Errorf("fifo: %+v", st)
	}
	if st := at("tmp"); st.Mode != unix.S_IFDIR|0o1777 {
		t.Errorf("tmp: %+v", st)
	}
	if st := at("closed"); st.Mode != unix.S_IFDIR|0o500 || st.Uid != 1000 || st.Mtim.Sec != stamp.Unix() {
		t.Errorf("closed: %+v", st)
	}
	if st := at("."); st.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("top: %o", st.Mode)
	}
	if b, _ := c.root.ReadFile("target/twice"); string(b) != "new" {
		t.Errorf("the later entry does not win: %q", b)
	}
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(filepath.Join(c.path, "store/target/usr/bin/ping"), "security.capability", value)
	if err != nil || string(value[:n]) != ping.PAXRecords["SCHILY.xattr.security.capability"] {
		t.Errorf("capability: %q, %v", value[:max(n, 0)], err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(c.path, "store/target/usr/bin/su"), "trusted.overlay.opaque", value); err == nil {
		t.Error("an overlay attribute came through")
	}
	c.check(t, true)
}

func TestUnpackPlain(t *testing.T) {
	c := newCanary(t)
	su := file("rootfs/su", "x")
	su.Mode, su.Uid = 0o4777, 12
	_, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(t,
		file("metadata.yaml", "m"), dir("rootfs"), su, file("rootfs/etc/hosts", "h"), entry(tar.TypeLink, "rootfs/h2", "rootfs/su"),
	)), fsroot.UnpackOptions{StripComponents: 1, Select: func(n string) bool { return n != "rootfs/etc/hosts" }})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	_ = fs.WalkDir(os.DirFS(filepath.Join(c.path, "store/target")), ".", func(p string, d fs.DirEntry, _ error) error {
		i, _ := d.Info()
		got = append(got, fmt.Sprint(p, " ", i.Mode()))
		return nil
	})
	if want := "[. drwxr-xr-x h2 -rwxr-xr-x su -rwxr-xr-x]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(nil), fsroot.UnpackOptions{}); !errs.IsExists(err) {
		t.Errorf("second unpack: %v", err)
	}
	c.check(t, true)
}

// Every truncation must be seen: half an image must never be taken for a whole one.
func TestUnpackTruncated(t *testing.T) {
	whole := archive(t, dir("d"), file("d/f", strings.Repeat("x", 700)+strings.Repeat("\x00", 324)), file("g", ""))
	end := len(whole) - 1024 // the end mark
	c := newCanary(t)
	for n := 0; n < end+512; n += 64 {
		if _, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(whole[:n]), fsroot.UnpackOptions{}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
		c.check(t, false)
	}
}

func TestUnpackSparse(t *testing.T) {
	c := newCanary(t)
	big := file("big", strings.Repeat("\x00", 4<<20)+"x"+strings.Repeat("\x00", 1<<20))
	res, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(t, big)), fsroot.UnpackOptions{})
	if err != nil || res.Bytes != 5<<20+1 {
		t.Fatal(res, err)
	}
	st, err := os.Stat(filepath.Join(c.path, "store/target/big"))
	if err != nil || st.Size() != 5<<20+1 || st.Sys().(*syscall.Stat_t).Blocks > 1024 {
		t.Errorf("%v, %v", st, err)
	}
}

type endless struct{ cancel func() }

func (e endless) Read(p []byte) (int, error) { e.cancel(); clear(p); return len(p), nil }

func TestUnpackCancelled(t *testing.T) {
	c := newCanary(t)
	head := archive(t, dir("a"), file("f", strings.Repeat("x", 512)))
	big := tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: 1 << 40, Mode: 0o644, Format: tar.FormatGNU}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&big); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.root.Unpack(ctx, "target", io.MultiReader(bytes.NewReader(head[:len(head)-1024]), &b, endless{cancel}),
		fsroot.UnpackOptions{Limits: fsroot.Limits{Bytes: 1 << 41}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.check(t, false)
}

// Whatever an archive says, nothing outside the target changes.
func TestUnpackNeverLeavesTheTarget(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "rootfs", "..", ".", "", "victim", "victimdir", "l"})
	names := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
	})
	rapid.Check(t, func(rt *rapid.T) {
		c := newCanary(rapidT{rt, t})
		var headers []tar.Header
		for range rapid.IntRange(1, 10).Draw(rt, "n") {
			name := strings.TrimRight(names.Draw(rt, "name"), "/")
			switch rapid.IntRange(0, 4).Draw(rt, "type") {
			case 0:
				headers = append(headers, dir(name))
			case 1:
				headers = append(headers, entry(tar.TypeSymlink, name, names.Draw(rt, "target")+"."))
			case 2:
				headers = append(headers, entry(tar.TypeLink, name, names.Draw(rt, "link")))
			case 3:
				headers = append(headers, entry(tar.TypeFifo, name, ""))
			default:
				headers = append(headers, file(name+"x", "evil"))
			}
		}
		_, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(archive(rt, headers...)), fsroot.UnpackOptions{System: os.Geteuid() == 0})
		c.check(rt, err == nil)
	})
}

// rapidT gives a rapid test the temporary directories of the test around it.
type rapidT struct {
	*rapid.T
	outer *testing.T
}

func (r rapidT) TempDir() string { return r.outer.TempDir() }

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, dir("a"), file("a/b", "x"), entry(tar.TypeSymlink, "l", "/"), file("l/x", "x")))
	f.Add(archive(f, file("../x", "x")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newCanary(t)
		_, err := c.root.Unpack(t.Context(), "target", bytes.NewReader(data), fsroot.UnpackOptions{Limits: fsroot.Limits{Entries: 100, Bytes: 1 << 20}})
		c.check(t, err == nil)
	})
}
