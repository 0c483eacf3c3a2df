package fsroot_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/testring"
	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *fsroot.Root {
	t.Helper()
	r, err := fsroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRootConfines(t *testing.T) {
	c := newCanary(t)
	if err := os.Symlink("../victim", filepath.Join(c.path, "store", "out")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../victim", "/etc/passwd", "out", "victimdir/../../victim"} {
		if _, err := c.root.ReadLimited(name, 100); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("read %s: %v", name, err)
		}
		if err := c.root.WriteAtomic(name+"/x", nil, 0o600); err == nil {
			t.Errorf("wrote to %s", name)
		}
		if p, err := c.root.Path(name); err == nil && name != "out" && !strings.HasPrefix(p, filepath.Join(c.path, "store")) {
			t.Errorf("path of %s is %s", name, p)
		}
	}
	for _, name := range []string{"", "..", "../x", "/x", "a/../../b", "a\x00b"} {
		if p, err := c.root.Path(name); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("Path(%q) = %q, %v", name, p, err)
		}
	}
	if _, err := fsroot.Open("relative"); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("relative root: %v", err)
	}
	if _, err := fsroot.Open(filepath.Join(c.path, "nothing")); !errs.IsNotFound(err) {
		t.Errorf("missing root: %v", err)
	}
}

func TestReadLimited(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := r.ReadLimited("f", 5); err != nil || string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := r.ReadLimited("f", 4); !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("too long: %v", err)
	}
	if _, err := r.ReadLimited("fifo", 4); !errs.Is(err, errs.InvalidInput) { // and must not hang
		t.Errorf("fifo: %v", err)
	}
	if _, err := r.ReadLimited(".", 4); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("directory: %v", err)
	}
	if _, err := r.ReadLimited("none", 4); !errs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
}

func TestWriteAtomic(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	for _, content := range []string{"one", "two"} {
		if err := r.WriteAtomic("f", []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(filepath.Join(dir, "f"))
		st, _ := os.Stat(filepath.Join(dir, "f"))
		if string(b) != content || st.Mode() != 0o640 {
			t.Errorf("%q %v", b, st.Mode())
		}
	}
	// a link with that name is replaced, not written through
	if err := os.Symlink("f", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteAtomic("l", []byte("three"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "f")); string(b) != "two" {
		t.Errorf("written through a link: %q", b)
	}
	// a failure leaves nothing
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteAtomic("d", nil, 0o600); err == nil {
		t.Error("wrote over a directory")
	}
	if err := r.WriteAtomic("none/f", nil, 0o600); !errs.IsNotFound(err) {
		t.Errorf("no directory: %v", err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(names) != 3 || len(hidden) != 0 {
		t.Errorf("left: %v %v", names, hidden)
	}
}

func TestRemoveTemp(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	for _, d := range []string{"keep", fsroot.TempPrefix + "a/b"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, fsroot.TempPrefix+"f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveTemp("."); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 || left[0].Name() != "keep" {
		t.Errorf("left %v", left)
	}
}

func TestRemoveTree(t *testing.T) {
	c := newCanary(t)
	target := filepath.Join(c.path, "store", "target")
	for _, d := range []string{"a/b/c", "ro"} {
		if err := os.MkdirAll(filepath.Join(target, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 { // more than one read of the directory
		if err := os.WriteFile(filepath.Join(target, "a", string(rune('一'+i))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"l": "..", "a/l": "../../victimdir", "abs": c.path} {
		if err := os.Symlink(to, filepath.Join(target, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(c.path, "store", "victim"), filepath.Join(target, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := c.root.RemoveTree("target"); err != nil {
		t.Fatal(err)
	}
	c.check(t, false)
	if err := c.root.RemoveTree("target"); err != nil {
		t.Errorf("second time: %v", err)
	}
	if err := c.root.RemoveTree("none/none"); err != nil {
		t.Errorf("nothing: %v", err)
	}
	for _, name := range []string{".", "", "../victimdir", "/etc"} {
		if err := c.root.RemoveTree(name); err == nil {
			t.Errorf("removed %q", name)
		}
	}
	c.check(t, false)
}

// A guest may build a tree that is deeper than the number of files a process may open.
func TestRemoveTreeDeep(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 3000
	for i := range depth {
		name := "d"
		if i == 0 {
			name = "tree"
		}
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) }()
	if err := r.RemoveTree("tree"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// A bind mount that was left behind must not cost what is on its other side.
func TestRemoveTreeStopsAtMounts(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	dir, precious := t.TempDir(), t.TempDir()
	r := open(t, dir)
	if err := os.WriteFile(filepath.Join(precious, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "tree", "sub")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if err := r.RemoveTree("tree"); !errs.Is(err, errs.BusyClass) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(precious, "f")); err != nil {
		t.Fatal("removed through a mount")
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveTree("tree"); err != nil {
		t.Errorf("after unmount: %v", err)
	}
}

func TestRenameSync(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "a", "f"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.RenameSync("a/f", "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "g")); err != nil {
		t.Error(err)
	}
	if err := r.RenameSync("none", "h"); !errs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if err := r.RenameSync("g", "../g"); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("got %v", err)
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want errs.Class
	}{
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, errs.NoSpaceClass},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}, errs.NoSpaceClass},
		{fs.ErrNotExist, errs.NotFoundClass},
		{fs.ErrExist, errs.ExistsClass},
		{syscall.EBUSY, errs.BusyClass},
		{syscall.ELOOP, errs.InvalidInput},
		{syscall.EIO, errs.Internal},
		{errs.Conflict("x"), errs.ConflictClass},
	} {
		if got := fsroot.Classify(tt.err); errs.ClassOf(got) != tt.want || !errors.Is(got, tt.err) {
			t.Errorf("%v: %v", tt.err, errs.ClassOf(got))
		}
	}
	if fsroot.Classify(nil) != nil {
		t.Error("nil is no error")
	}
}

func TestOpenGuest(t *testing.T) {
	outer := t.TempDir()
	rootfs := filepath.Join(outer, "rootfs")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755))
	must(os.WriteFile(filepath.Join(rootfs, "etc", "hostname"), []byte("guest"), 0o644))
	must(os.WriteFile(filepath.Join(outer, "secret"), []byte("host"), 0o600))
	for link, to := range map[string]string{
		"abs": "/etc/hostname", "rel": "etc/../../../../etc/hostname", "out": "../secret", "loop": "loop",
		"hostabs": filepath.Join(outer, "secret"), "magic": "/proc/self/root",
	} {
		must(os.Symlink(to, filepath.Join(rootfs, link)))
	}
	must(unix.Mkfifo(filepath.Join(rootfs, "fifo"), 0o600))
	for _, name := range []string{"etc/hostname", "/etc/hostname", "../../etc/hostname", "abs", "rel"} {
		if b, err := fsroot.ReadGuest(rootfs, name, 100); err != nil || string(b) != "guest" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, class := range map[string]errs.Class{
		"out": errs.NotFoundClass, "hostabs": errs.NotFoundClass, "magic": errs.NotFoundClass, "loop": errs.InvalidInput,
		"fifo": errs.InvalidInput, "etc": errs.InvalidInput, "none": errs.NotFoundClass, "etc/hostname/x": errs.InvalidInput,
	} {
		if b, err := fsroot.ReadGuest(rootfs, name, 100); !errs.Is(err, class) {
			t.Errorf("%s: %q, %v (%v), want %v", name, b, err, errs.ClassOf(err), class)
		}
	}
	if _, err := fsroot.ReadGuest(rootfs, "abs", 4); !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("limit: %v", err)
	}
	d, err := fsroot.OpenGuest(rootfs, "/")
	must(err)
	defer d.Close()
	if names, _ := d.Readdirnames(-1); len(names) != 8 {
		t.Errorf("top: %v", names)
	}
}
