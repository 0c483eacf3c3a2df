// Package drivertest proves that a storage driver does what storage/driver says. Each driver's own test calls [Run]; a
// new driver is done when it passes.
package drivertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage/driver"
)

// Subject is a driver to be proved.
type Subject struct {
	Driver driver.Driver
	// Config is the configuration of a pool to make.
	Config api.Config
	// Used says what of the pool is still there after Destroy (mounts, loop devices, files), "" for nothing.
	Used func(s driver.Spec) string
}

type world struct {
	Subject
	spec driver.Spec
}

// Run proves the driver in directories of the test.
func Run(t *testing.T, make func(t *testing.T) Subject) {
	tests := map[string]func(t *testing.T, w *world){
		"volume life": volumeLife, "names": names, "rename": rename, "links are not followed": links,
		"crash leftovers": leftovers, "deep and wide trees": deep, "limits": limits, "reopen": reopen,
		"no disk, no pool": noDisk, "destroy twice": destroyTwice, "project volumes": listing,
		"copies": copies, "restore": restore, "what a copy keeps": faithful, "fill": fillVolume,
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			w := &world{Subject: make(t)}
			base := t.TempDir()
			pool, _ := api.ParsePoolName("p" + strings.ToLower(fmt.Sprintf("%x", time.Now().UnixNano()))[8:])
			w.spec = driver.Spec{Name: pool, Config: w.Config, Path: filepath.Join(base, "storage-pools", "p"), Disk: filepath.Join(base, "disks", "p.img")}
			for _, d := range []string{"storage-pools", "disks"} {
				if err := os.Mkdir(filepath.Join(base, d), 0o711); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() {
				if err := w.Driver.Destroy(t.Context(), w.spec); err != nil && t.Context().Err() == nil {
					t.Errorf("destroy at the end: %v", err)
				}
				w.Driver.Destroy(noCtx{}, w.spec)
				if left := w.Used(w.spec); left != "" {
					t.Errorf("left behind: %s", left)
				}
			})
			cfg, err := w.Driver.Create(t.Context(), w.spec)
			if err != nil {
				t.Fatalf("create: %v", err)
			}
			w.spec.Config = cfg
			f(t, w)
		})
	}
}

// noCtx is a context that never ends, for cleaning up after the test's own has.
type noCtx struct{}

func (noCtx) Deadline() (time.Time, bool) { return time.Time{}, false }
func (noCtx) Done() <-chan struct{}       { return nil }
func (noCtx) Err() error                  { return nil }
func (noCtx) Value(any) any               { return nil }

func (w *world) open(t *testing.T) driver.Pool {
	t.Helper()
	p, err := w.Driver.Open(t.Context(), w.spec)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func vol(name string) driver.Volume {
	n, err := api.ParseInstanceName(name)
	if err != nil {
		panic(err)
	}
	return driver.InstanceVolume(api.DefaultProject, n)
}

func create(t *testing.T, p driver.Pool, name string, size int64) driver.Volume {
	t.Helper()
	v := vol(name)
	if _, err := p.CreateVolume(t.Context(), v, size); err != nil {
		t.Fatalf("create volume %s: %v", name, err)
	}
	return v
}

func want(t *testing.T, p driver.Pool, v driver.Volume, there bool) {
	t.Helper()
	got, err := p.Exists(v)
	if err != nil || got != there {
		t.Fatalf("volume %s: there=%v, %v; want %v", v, got, err, there)
	}
}

func volumeLife(t *testing.T, w *world) {
	p := w.open(t)
	v := create(t, p, "c1", 0)
	want(t, p, v, true)
	for sub, mode := range map[string]fs.FileMode{"": 0o700, "upper": 0o755, "work": 0o700} {
		st, err := os.Lstat(filepath.Join(p.Path(v), sub))
		if err != nil || !st.IsDir() || st.Mode().Perm() != mode {
			t.Errorf("%q: %v %v, want a directory of mode %v", sub, st, err, mode)
		}
	}
	if _, err := p.CreateVolume(t.Context(), v, 0); !errs.IsExists(err) {
		t.Errorf("second create: %v", err)
	}
	if err := os.WriteFile(filepath.Join(p.Path(v), "upper", "f"), make([]byte, 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "usage covers the file", func() bool {
		n, err := p.Usage(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		syncFS(t, p.Path(v))
		return n >= 8<<20 && n < 16<<20
	})
	r, err := p.Resources(t.Context())
	if err != nil || r.Space.Total == 0 || r.Space.Used > r.Space.Total {
		t.Errorf("resources %+v, %v", r, err)
	}
	for range 2 {
		if err := p.DeleteVolume(t.Context(), v); err != nil {
			t.Fatalf("delete: %v", err)
		}
		want(t, p, v, false)
	}
	create(t, p, "c1", 0) // the name is free at once
	if _, err := p.Usage(t.Context(), vol("none")); !errs.IsNotFound(err) {
		t.Errorf("usage of nothing: %v", err)
	}
}

func names(t *testing.T, w *world) {
	p := w.open(t)
	project, _ := api.ParseProjectName("blue")
	n, _ := api.ParseInstanceName("c1")
	a, b := vol("c1"), driver.InstanceVolume(project, n)
	for _, v := range []driver.Volume{a, b} {
		if _, err := p.CreateVolume(t.Context(), v, 0); err != nil {
			t.Fatal(err)
		}
	}
	if p.Path(a) == p.Path(b) {
		t.Error("two projects share a path")
	}
	if err := p.DeleteVolume(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want(t, p, a, true)
}

func listing(t *testing.T, w *world) {
	p := w.open(t)
	create(t, p, "b", 0)
	create(t, p, "a", 0)
	if err := os.Mkdir(filepath.Join(filepath.Dir(p.Path(vol("a"))), "not a volume"), 0o700); err != nil {
		t.Fatal(err)
	}
	vols, err := p.Volumes(t.Context())
	if err != nil || fmt.Sprint(vols) != "[containers/a containers/b]" {
		t.Errorf("volumes %v, %v", vols, err)
	}
}

func rename(t *testing.T, w *world) {
	p := w.open(t)
	a := create(t, p, "a", 0)
	b := create(t, p, "b", 0)
	if err := p.RenameVolume(t.Context(), a, b); !errs.IsExists(err) {
		t.Errorf("rename onto another: %v", err)
	}
	if err := os.WriteFile(filepath.Join(p.Path(a), "upper", "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is what a restarted daemon does again
		if err := p.RenameVolume(t.Context(), a, vol("c")); err != nil {
			t.Fatal(err)
		}
	}
	want(t, p, a, false)
	if _, err := os.Lstat(filepath.Join(p.Path(vol("c")), "upper", "mine")); err != nil {
		t.Error(err)
	}
	if err := p.RenameVolume(t.Context(), vol("x"), vol("y")); !errs.IsNotFound(err) {
		t.Errorf("rename of nothing: %v", err)
	}
}

// links plants what a hostile guest can in its own layer and looks at a canary outside.
func links(t *testing.T, w *world) {
	p := w.open(t)
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.MkdirAll(filepath.Join(canary, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(canary, "d", "f"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := create(t, p, "c1", 0)
	upper := filepath.Join(p.Path(v), "upper")
	for name, target := range map[string]string{"abs": canary, "dir": filepath.Join(canary, "d"), "root": "/", "up": "../../../../.."} {
		if err := os.Symlink(target, filepath.Join(upper, name)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := p.Usage(t.Context(), v); err != nil || n > 1<<20 {
		t.Errorf("usage %d, %v: a link was followed", n, err)
	}
	if err := p.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	emptied(t, p)
	if b, err := os.ReadFile(filepath.Join(canary, "d", "f")); string(b) != "alive" {
		t.Fatalf("the canary is dead: %q, %v", b, err)
	}
	// A link where a volume should be is not a volume.
	at := p.Path(vol("c2"))
	if err := os.Symlink(canary, at); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CreateVolume(t.Context(), vol("c2"), 0); err == nil {
		t.Error("a volume was made through a link")
	}
	if _, err := p.Usage(t.Context(), vol("c2")); err == nil {
		t.Error("usage followed a link")
	}
	if err := p.DeleteVolume(t.Context(), vol("c2")); err == nil {
		t.Error("delete took a link for a volume")
	}
}

func leftovers(t *testing.T, w *world) {
	p := w.open(t)
	keep := create(t, p, "keep", 0)
	root := filepath.Dir(filepath.Dir(p.Path(keep)))
	p.Close()
	// What a daemon leaves that died while it made one volume and removed another.
	for _, d := range []string{".new/HALF/upper", ".trash/DEAD/upper/etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, ".trash/DEAD/upper/etc/passwd"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = w.open(t)
	emptied(t, p)
	if left, _ := os.ReadDir(filepath.Join(root, ".new")); len(left) != 0 {
		t.Errorf("unfinished volumes left: %v", left)
	}
	want(t, p, keep, true)
}

func emptied(t *testing.T, p driver.Pool) {
	t.Helper()
	trash := filepath.Join(filepath.Dir(filepath.Dir(p.Path(vol("x")))), ".trash")
	eventually(t, "the trash is empty", func() bool {
		left, err := os.ReadDir(trash)
		return err == nil && len(left) == 0
	})
}

func deep(t *testing.T, w *world) {
	p := w.open(t)
	v := create(t, p, "c1", 0)
	root, err := os.OpenRoot(filepath.Join(p.Path(v), "upper"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := root.WriteFile(fmt.Sprintf("file%d", i), nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := root.Mkdir("d", 0); err != nil {
			t.Fatal(err)
		}
		next, err := root.OpenRoot("d")
		root.Close()
		if err != nil {
			t.Fatal(err)
		}
		root = next
	}
	root.Close()
	if _, err := p.Usage(t.Context(), v); err != nil {
		t.Errorf("usage of a deep tree: %v", err)
	}
	if err := p.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	emptied(t, p)
}

func limits(t *testing.T, w *world) {
	p := w.open(t)
	v := vol("c1")
	enforced, err := p.CreateVolume(t.Context(), v, 32<<20)
	if err != nil || enforced != w.Driver.Info().Quotas {
		t.Fatalf("create with a limit: enforced %v, %v; the driver says %v", enforced, err, w.Driver.Info().Quotas)
	}
	if !enforced {
		return
	}
	if err := fill(filepath.Join(p.Path(v), "upper", "big"), 64<<20); !errs.Is(driver.NoSpace(err), errs.NoSpaceClass) {
		t.Errorf("writing 64 MiB into 32: %v", err)
	}
	if _, err := p.SetSize(t.Context(), v, 0); err != nil {
		t.Fatalf("take the limit away: %v", err)
	}
	if err := fill(filepath.Join(p.Path(v), "upper", "big"), 64<<20); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if _, err := p.CreateVolume(t.Context(), vol("c2"), 1<<50); !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("a limit of a petabyte: %v", err)
	}
	want(t, p, vol("c2"), false)
	// A full pool refuses without harm and works again.
	other := create(t, p, "other", 0)
	if err := fill(filepath.Join(p.Path(other), "upper", "all"), 1<<40); err == nil {
		t.Fatal("the pool has no end")
	}
	if _, err := p.CreateVolume(t.Context(), vol("late"), 0); err != nil && !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("create on a full pool: %v", err)
	}
	if err := p.DeleteVolume(t.Context(), other); err != nil {
		t.Fatalf("delete on a full pool: %v", err)
	}
	eventually(t, "space comes back", func() bool {
		return fill(filepath.Join(p.Path(v), "upper", "again"), 16<<20) == nil
	})
}

func fill(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for done := int64(0); done < n && err == nil; done += int64(len(buf)) {
		_, err = f.Write(buf)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func reopen(t *testing.T, w *world) {
	p := w.open(t)
	v := create(t, p, "c1", 0)
	f := filepath.Join(p.Path(v), "upper", "f")
	if err := os.WriteFile(f, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(f) // a running instance
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := held.Stat(); err != nil {
		t.Errorf("the pool went away with its handle: %v", err)
	}
	held.Close()
	for range 2 {
		p = w.open(t)
		if b, err := os.ReadFile(f); string(b) != "kept" {
			t.Errorf("after reopening: %q, %v", b, err)
		}
		want(t, p, v, true)
		p.Close()
	}
}

func noDisk(t *testing.T, w *world) {
	other := w.spec
	other.Name, _ = api.ParsePoolName("elsewhere")
	if p, err := w.Driver.Open(t.Context(), other); err == nil {
		p.Close()
		t.Error("the pool of another name was opened")
	}
	other = w.spec
	other.Path, other.Disk, other.Config = filepath.Join(t.TempDir(), "gone"), filepath.Join(t.TempDir(), "gone.img"), api.Config{}
	if p, err := w.Driver.Open(t.Context(), other); err == nil {
		p.Close()
		t.Error("a pool that does not exist was opened")
	}
	if err := w.Driver.Destroy(t.Context(), other); err != nil {
		t.Errorf("destroy of a pool that does not exist: %v", err)
	}
}

func destroyTwice(t *testing.T, w *world) {
	p := w.open(t)
	v := create(t, p, "c1", 0)
	if err := os.WriteFile(filepath.Join(p.Path(v), "upper", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Close()
	for range 2 {
		if err := w.Driver.Destroy(t.Context(), w.spec); err != nil {
			t.Fatal(err)
		}
	}
	if left := w.Used(w.spec); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// eventually polls, since the kernel and the background work take their time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("still not: %s", what)
		}
	}
}
