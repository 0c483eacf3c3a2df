package fsmount_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/testring"
)

func TestIsMounted(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/proc": true, dir: false, filepath.Join(dir, "none"): false, link: false, "/proc/self": false} {
		if got, err := fsmount.IsMounted(path); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
	}
}

func TestUnmountOfNothing(t *testing.T) {
	for _, p := range []string{t.TempDir(), "/nonexistent/dir"} {
		if err := fsmount.Unmount(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func image(t *testing.T) string {
	t.Helper()
	testring.Need(t, 2, testring.Root, testring.Binary("mkfs.ext4"), testring.Filesystem("ext4"))
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 8<<20); err != nil {
		t.Fatal(err)
	}
	_, err := run.Host{}.Run(t.Context(), run.Command{Name: "mkfs.ext4", Args: []string{"-q"}, Operands: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// attached reports whether a loop device has the file.
func attached(t *testing.T, file string) bool {
	t.Helper()
	list, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range list {
		if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == file {
			return true
		}
	}
	return false
}

func TestLoopLivesAsLongAsItsMount(t *testing.T) {
	file := image(t)
	dir := t.TempDir()
	loop, err := fsmount.AttachLoop(file, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := fsmount.Mount("ext4", []fsmount.Option{{Key: "source", Value: loop.Path}}, 0, dir); err != nil {
		t.Fatal(err)
	}
	loop.Close()
	if !attached(t, file) {
		t.Error("the device went while it was mounted")
	}
	open, err := os.Create(filepath.Join(dir, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := fsmount.Unmount(dir); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	if on, _ := fsmount.IsMounted(dir); on {
		t.Error("still mounted")
	}
	open.Close()
	again, err := fsmount.AttachLoop(file, true) // the old device is on its way out or gone
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if attached(t, file) {
		// The last close frees it before it returns.
		t.Error("the device stayed")
	}
}

func TestFailedMountLeavesNothing(t *testing.T) {
	file := image(t)
	dir := t.TempDir()
	if err := fsmount.MountImage("squashfs", file, dir); err == nil {
		t.Error("ext4 was mounted as squashfs")
	}
	if err := fsmount.MountImage("ext4", filepath.Join(dir, "none"), dir); err == nil {
		t.Error("nothing was mounted")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if _, err := fsmount.AttachLoop(link, true); err == nil {
		t.Error("a link was followed")
	}
	if _, err := fsmount.AttachLoop(dir, true); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("a directory was attached: %v", err)
	}
	if err := fsmount.Mount("nosuchfs", nil, 0, dir); !errs.Is(err, errs.UnsupportedClass) {
		t.Errorf("a filesystem that does not exist: %v", err)
	}
	if on, _ := fsmount.IsMounted(dir); on || attached(t, file) {
		t.Errorf("left behind: mounted %v, attached %v", on, attached(t, file))
	}
}

// TestManyLoops has more at once than there are devices at first, with everybody after the same free ones.
func TestManyLoops(t *testing.T) {
	file := image(t)
	var mu sync.Mutex
	var loops []*fsmount.Loop
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			l, err := fsmount.AttachLoop(file, true)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			loops = append(loops, l)
			mu.Unlock()
		})
	}
	all.Wait()
	paths := map[string]bool{}
	for _, l := range loops {
		paths[l.Path] = true
		l.Close()
	}
	if len(paths) != 16 {
		t.Errorf("%d different devices for 16 callers", len(paths))
	}
	if attached(t, file) {
		t.Error("devices stayed")
	}
}
