package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage/driver"
)

const snapID = "0190c7a2-6d1e-4c1b-9a51-0f4b3c2d1e00"

func snap(t *testing.T) driver.Volume {
	t.Helper()
	v, err := driver.SnapshotVolume(snapID)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func write(t *testing.T, p driver.Pool, v driver.Volume, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Path(v), "upper", name), []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, p driver.Pool, v driver.Volume, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Path(v), "upper", name))
	if err != nil {
		return "no file"
	}
	return string(b)
}

func copies(t *testing.T, w *world) {
	p := w.open(t)
	a, s, b := create(t, p, "a", 0), snap(t), vol("b")
	write(t, p, a, "f", "one")
	if _, err := p.CopyVolume(t.Context(), a, s, 0, nil); err != nil {
		t.Fatal(err)
	}
	write(t, p, a, "f", "two")
	if got := read(t, p, s, "f"); got != "one" {
		t.Errorf("the snapshot follows its volume: %q", got)
	}
	if _, err := p.CopyVolume(t.Context(), s, b, 64<<20, nil); err != nil {
		t.Fatal(err)
	}
	write(t, p, b, "f", "three")
	if got := read(t, p, s, "f") + read(t, p, a, "f"); got != "onetwo" {
		t.Errorf("a write to the copy is seen elsewhere: %q", got)
	}
	if _, err := p.CopyVolume(t.Context(), a, b, 0, nil); !errs.IsExists(err) {
		t.Errorf("copy onto a volume: %v", err)
	}
	if _, err := p.CopyVolume(t.Context(), vol("none"), vol("x"), 0, nil); !errs.IsNotFound(err) {
		t.Errorf("copy of nothing: %v", err)
	}
	want(t, p, vol("x"), false)
	vols, err := p.Volumes(t.Context())
	if err != nil || fmt.Sprint(vols) != "[containers/a containers/b snapshots/"+snapID+"]" {
		t.Errorf("volumes %v, %v", vols, err)
	}
	if err := p.DeleteVolume(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	emptied(t, p)
	if got := read(t, p, s, "f"); got != "one" {
		t.Errorf("the snapshot went with its volume: %q", got)
	}
	if w.Driver.Info().Quotas {
		if err := fill(filepath.Join(p.Path(b), "upper", "big"), 96<<20); !errs.Is(driver.NoSpace(err), errs.NoSpaceClass) {
			t.Errorf("writing 96 MiB into a copy of 64: %v", err)
		}
	}
	for _, bad := range []string{"", "..", "a/b", strings.ToUpper(snapID), "snap0"} {
		if _, err := driver.SnapshotVolume(bad); err == nil {
			t.Errorf("%q is the id of a snapshot", bad)
		}
	}
}

func restore(t *testing.T, w *world) {
	p := w.open(t)
	a, s := create(t, p, "a", 0), snap(t)
	write(t, p, a, "f", "one")
	if _, err := p.CopyVolume(t.Context(), a, s, 0, nil); err != nil {
		t.Fatal(err)
	}
	write(t, p, a, "f", "two")
	write(t, p, a, "later", "x")
	for range 2 { // a restore that a crash cut off is done again
		if _, err := p.ReplaceVolume(t.Context(), s, a, 0, nil); err != nil {
			t.Fatal(err)
		}
		if got := read(t, p, a, "f") + read(t, p, a, "later"); got != "oneno file" {
			t.Errorf("restored %q", got)
		}
	}
	write(t, p, a, "f", "three")
	if got := read(t, p, s, "f"); got != "one" {
		t.Errorf("the snapshot follows what was restored from it: %q", got)
	}
	if _, err := p.ReplaceVolume(t.Context(), s, vol("none"), 0, nil); !errs.IsNotFound(err) {
		t.Errorf("restore of nothing: %v", err)
	}
	other, _ := driver.SnapshotVolume(strings.Replace(snapID, "0", "1", 1))
	if _, err := p.ReplaceVolume(t.Context(), other, a, 0, nil); !errs.IsNotFound(err) {
		t.Errorf("restore from nothing: %v", err)
	}
	if got := read(t, p, a, "f"); got != "three" {
		t.Errorf("a restore that failed changed the volume: %q", got)
	}
	left, _ := os.ReadDir(filepath.Join(filepath.Dir(filepath.Dir(p.Path(a))), ".new"))
	if len(left) != 0 {
		t.Errorf("unfinished volumes left: %v", left)
	}
}

// faithful plants one of each kind of file, as a guest and overlayfs make them.
func faithful(t *testing.T, w *world) {
	if os.Geteuid() != 0 {
		t.Skip("device nodes need root")
	}
	p := w.open(t)
	a, b := create(t, p, "a", 0), vol("b")
	upper := filepath.Join(p.Path(a), "upper")
	plant := errors.Join(
		os.MkdirAll(filepath.Join(upper, "d", "e"), 0o750), os.Chmod(filepath.Join(upper, "d"), 0o2751|os.ModeSticky),
		os.WriteFile(filepath.Join(upper, "d", "f"), []byte("data"), 0o600), os.Chown(filepath.Join(upper, "d", "f"), 12, 34),
		unix.Chmod(filepath.Join(upper, "d", "f"), 0o4755), os.Link(filepath.Join(upper, "d", "f"), filepath.Join(upper, "hard")),
		os.Symlink("/etc/shadow", filepath.Join(upper, "link")), os.Lchown(filepath.Join(upper, "link"), 7, 8),
		unix.Mknod(filepath.Join(upper, "gone"), unix.S_IFCHR, 0), unix.Mkfifo(filepath.Join(upper, "pipe"), 0o620),
		os.WriteFile(filepath.Join(upper, "holes"), nil, 0o644), os.Truncate(filepath.Join(upper, "holes"), 1<<30),
	)
	if plant != nil {
		t.Fatal(plant)
	}
	xattr := unix.Setxattr(filepath.Join(upper, "d"), "trusted.overlay.opaque", []byte("y"), 0)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(upper, "d"), []unix.Timespec{{Sec: 5}, {Sec: 1000, Nsec: 7}}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CopyVolume(t.Context(), a, b, 0, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "d", "d/e", "d/f", "hard", "link", "gone", "pipe", "holes"} {
		var x, y unix.Stat_t
		if err := errors.Join(unix.Lstat(filepath.Join(upper, name), &x), unix.Lstat(filepath.Join(p.Path(b), "upper", name), &y)); err != nil {
			t.Fatal(err)
		}
		if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid || x.Rdev != y.Rdev || x.Mtim != y.Mtim || x.Nlink != y.Nlink ||
			x.Mode&unix.S_IFMT != unix.S_IFDIR && x.Size != y.Size {
			t.Errorf("%q: %+v became %+v", name, x, y)
		}
		if name == "holes" && y.Blocks > 1<<10 {
			t.Errorf("a hole takes %d blocks", y.Blocks)
		}
	}
	if got := read(t, p, b, "hard"); got != "data" {
		t.Errorf("content %q", got)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(p.Path(b), "upper", "d"), "trusted.overlay.opaque", buf); xattr == nil && string(buf[:max(n, 0)]) != "y" {
		t.Errorf("the attribute of overlayfs: %q, %v", buf[:max(n, 0)], err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.CopyVolume(ctx, a, vol("c"), 0, nil); err == nil != w.Driver.Info().Snapshots {
		t.Errorf("a cancelled copy: %v", err)
	}
}

func fillVolume(t *testing.T, w *world) {
	p := w.open(t)
	bad := errors.New("cut")
	if _, err := p.FillVolume(t.Context(), vol("a"), 0, func(*os.File) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("a fill that fails: %v", err)
	}
	want(t, p, vol("a"), false)
	_, err := p.FillVolume(t.Context(), vol("a"), 0, func(dir *os.File) error {
		want(t, p, vol("a"), false)
		return os.WriteFile(filepath.Join(dir.Name(), "upper", "f"), []byte("filled"), 0o644)
	})
	if err != nil || read(t, p, vol("a"), "f") != "filled" {
		t.Errorf("fill: %v, %q", err, read(t, p, vol("a"), "f"))
	}
}
