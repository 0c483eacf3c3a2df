package storage_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage"
	"github.com/shoal-project/shoal/storage/dir"
	"github.com/shoal-project/shoal/storage/driver"
)

var _ instance.VolumeStore = (*storage.Service)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	*storage.Service
	dir string
	db  *state.DB
}

var quiet = slog.New(slog.DiscardHandler)

func start(t *testing.T, base string, db *state.DB, drivers ...driver.Driver) *world {
	t.Helper()
	if drivers == nil {
		drivers = []driver.Driver{dir.New(quiet)}
	}
	s, err := storage.New(storage.Deps{Dir: base, State: db, Drivers: drivers, Clock: clock.Real{}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &world{s, base, db}
}

// withPool starts a service that has the pool "p".
func withPool(t *testing.T) *world {
	w := start(t, t.TempDir(), state.NewMemory())
	if err := w.CreatePool(t.Context(), api.StoragePoolsPost{Name: "p", Driver: "dir"}); err != nil {
		t.Fatal(err)
	}
	return w
}

// again closes the service and starts the next one on the same directory and database.
func (w *world) again(t *testing.T) *world {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next := start(t, w.dir, w.db)
	if err := next.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return next
}

func pool(s string) api.PoolName     { n, _ := api.ParsePoolName(s); return n }
func inst(s string) api.InstanceName { n, _ := api.ParseInstanceName(s); return n }

var project = api.DefaultProject

func (w *world) path(t *testing.T, name string) string {
	t.Helper()
	p, err := w.RootPath(t.Context(), pool("p"), project, inst(name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRootLife(t *testing.T) {
	w := withPool(t)
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 0); !errs.IsExists(err) {
		t.Errorf("second create: %v", err)
	}
	if st, err := os.Stat(filepath.Join(w.path(t, "c1"), "upper")); err != nil || !st.IsDir() {
		t.Errorf("upper: %v", err)
	}
	for range 2 {
		if err := w.RenameRoot(t.Context(), pool("p"), project, inst("c1"), inst("c2")); err != nil {
			t.Fatalf("rename: %v", err)
		}
	}
	w = w.again(t)
	w.path(t, "c2")
	vols, err := w.ListVolumes(pool("p"), project)
	if err != nil || len(vols) != 1 || vols[0].Name != "c2" || vols[0].Type != "container" || vols[0].Config["size"] != "1073741824" {
		t.Errorf("volumes %+v, %v", vols, err)
	}
	if err := w.DeletePool(t.Context(), pool("p")); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("delete of a pool in use: %v", err)
	}
	for range 2 {
		if err := w.DeleteRoot(t.Context(), pool("p"), project, inst("c2")); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	if _, err := w.RootPath(t.Context(), pool("p"), project, inst("c2")); !errs.IsNotFound(err) {
		t.Errorf("path of a deleted root: %v", err)
	}
	if err := w.DeletePool(t.Context(), pool("p")); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "storage-pools")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := w.PoolExists(pool("p")); !errs.IsNotFound(err) || err.Error() != "Storage pool not found" {
		t.Errorf("deleted pool: %v", err)
	}
}

// TestCutOff puts the records and directories there that a killed daemon leaves, and starts.
func TestCutOff(t *testing.T) {
	type rec = map[string]any
	for name, c := range map[string]struct {
		prepare func(t *testing.T, w *world, vols *state.Table[rec])
		there   map[string]bool
	}{
		"while making": {func(t *testing.T, w *world, vols *state.Table[rec]) {
			mark(t, vols, "p/containers/default/c1", func(r rec) { r["phase"] = "making" })
		}, map[string]bool{"c1": false}},
		"while making, before the directory": {func(t *testing.T, w *world, vols *state.Table[rec]) {
			vols.Create(t.Context(), "p/containers/default/c2", rec{"phase": "making"})
		}, map[string]bool{"c1": true, "c2": false}},
		"while deleting": {func(t *testing.T, w *world, vols *state.Table[rec]) {
			mark(t, vols, "p/containers/default/c1", func(r rec) { r["phase"] = "deleting" })
		}, map[string]bool{"c1": false}},
		"while renaming, before the move": {func(t *testing.T, w *world, vols *state.Table[rec]) {
			vols.Create(t.Context(), "p/containers/default/c2", rec{"rename_from": "c1"})
		}, map[string]bool{"c1": false, "c2": true}},
		"while renaming, after the move": {func(t *testing.T, w *world, vols *state.Table[rec]) {
			vols.Create(t.Context(), "p/containers/default/c2", rec{"rename_from": "c1"})
			p := w.path(t, "c1")
			if err := os.Rename(p, filepath.Join(filepath.Dir(p), "c2")); err != nil {
				t.Fatal(err)
			}
		}, map[string]bool{"c1": false, "c2": true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := withPool(t)
			if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 0); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, w, state.NewTable[rec](w.db, "volumes", 1))
			w = w.again(t)
			for n, there := range c.there {
				_, err := w.RootPath(t.Context(), pool("p"), project, inst(n))
				if (err == nil) != there {
					t.Errorf("%s: %v; want it there: %v", n, err, there)
				}
				_, err = os.Stat(filepath.Join(w.dir, "storage-pools/p/containers", n))
				if (err == nil) != there {
					t.Errorf("directory of %s: %v; want it there: %v", n, err, there)
				}
				if !there {
					if err := w.CreateRoot(t.Context(), pool("p"), project, inst(n), 0); err != nil {
						t.Errorf("the name %s is not free: %v", n, err)
					}
				}
			}
		})
	}
}

func mark(t *testing.T, vols *state.Table[map[string]any], key string, change func(map[string]any)) {
	t.Helper()
	_, err := vols.Modify(t.Context(), key, func(r *map[string]any) error { change(*r); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestPoolIsRefused(t *testing.T) {
	w := withPool(t)
	taken := t.TempDir()
	if err := w.CreatePool(t.Context(), api.StoragePoolsPost{Name: "src", Driver: "dir", StoragePoolPut: put("source", taken)}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		req   api.StoragePoolsPost
		class errs.Class
	}{
		"taken name":          {api.StoragePoolsPost{Name: "p", Driver: "dir"}, errs.ExistsClass},
		"bad name":            {api.StoragePoolsPost{Name: "../p", Driver: "dir"}, errs.InvalidInput},
		"unknown driver":      {api.StoragePoolsPost{Name: "q", Driver: "zfs"}, errs.InvalidInput},
		"unknown key":         {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("colour", "red")}, errs.InvalidInput},
		"bad value":           {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("volume.size", "many")}, errs.InvalidInput},
		"relative source":     {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("source", "etc")}, errs.InvalidInput},
		"climbing source":     {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("source", "/tmp/../etc")}, errs.InvalidInput},
		"source in our house": {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("source", filepath.Join(w.dir, "disks"))}, errs.InvalidInput},
		"source of another":   {api.StoragePoolsPost{Name: "q", Driver: "dir", StoragePoolPut: put("source", taken)}, errs.InvalidInput},
	} {
		if err := w.CreatePool(t.Context(), c.req); !errs.Is(err, c.class) {
			t.Errorf("%s: %v (class %v), want class %v", name, err, errs.ClassOf(err), c.class)
		}
	}
	if got := w.ListPools(t.Context()); len(got) != 2 {
		t.Errorf("pools %+v", got)
	}
	if left, _ := os.ReadDir(filepath.Join(w.dir, "storage-pools")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPoolConfiguration(t *testing.T) {
	w := start(t, t.TempDir(), state.NewMemory())
	if err := w.CreatePool(t.Context(), api.StoragePoolsPost{Name: "p", Driver: "dir", StoragePoolPut: put("volume.size", "1GiB")}); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 0); err != nil {
		t.Fatal(err)
	}
	v, err := w.GetVolume(pool("p"), "container", project, "c1")
	if err != nil || v.Config["size"] != "1073741824" || !strings.Contains(v.Description, "not enforced") {
		t.Errorf("volume with the pool's default size: %+v, %v", v, err)
	}
	for name, c := range map[string]struct {
		put api.StoragePoolPut
		ok  bool
	}{
		"a free key":       {put("user.owner", "me"), true},
		"another source":   {put("source", "/srv"), false},
		"a key of ours":    {put("volatile.initial_source", "/srv"), false},
		"a size for a dir": {put("size", "10GiB"), false},
	} {
		if err := w.UpdatePool(t.Context(), pool("p"), c.put); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok=%v", name, err, c.ok)
		}
	}
	got, err := w.GetPool(t.Context(), pool("p"))
	if err != nil || got.Config["user.owner"] != "me" || got.Config["source"] == "" || got.Config["volume.size"] != "" {
		t.Errorf("pool after the updates: %+v, %v", got, err)
	}
	if _, err := w.GetVolume(pool("p"), "weird", project, "c1"); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("volume of a strange type: %v", err)
	}
	if _, err := w.GetVolume(pool("p"), "custom", project, "vv"); err == nil || err.Error() != "Storage pool volume not found" {
		t.Errorf("missing volume: %v", err)
	}
}

func put(k, v string) api.StoragePoolPut { return api.StoragePoolPut{Config: api.Config{k: v}} }

func TestMissingDiskIsShown(t *testing.T) {
	w := start(t, t.TempDir(), state.NewMemory())
	src := t.TempDir()
	if err := w.CreatePool(t.Context(), api.StoragePoolsPost{Name: "p", Driver: "dir", StoragePoolPut: put("source", src)}); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	away := src + ".away"
	if err := os.Rename(src, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(src, 0o755); err != nil { // the empty mount point
		t.Fatal(err)
	}
	w = w.again(t)
	got, err := w.GetPool(t.Context(), pool("p"))
	if err != nil || got.Status != "Unavailable" || got.Description == "" {
		t.Fatalf("pool without its disk: %+v, %v", got, err)
	}
	if _, err := w.RootPath(t.Context(), pool("p"), project, inst("c1")); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("root on a missing disk: %v", err)
	}
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c2"), 0); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("create on a missing disk: %v", err)
	}
	if left, _ := os.ReadDir(src); len(left) != 0 {
		t.Errorf("something was made where the disk should be: %v", left)
	}
	os.Remove(src)
	if err := os.Rename(away, src); err != nil {
		t.Fatal(err)
	}
	w.path(t, "c1") // it works again without a restart
	if got, _ := w.GetPool(t.Context(), pool("p")); got.Status != "Created" {
		t.Errorf("status %s after the disk came back", got.Status)
	}
}

// failing is a driver whose volumes cannot be made.
type failing struct{ driver.Driver }

type failingPool struct{ driver.Pool }

func (f failing) Open(ctx context.Context, s driver.Spec) (driver.Pool, error) {
	p, err := f.Driver.Open(ctx, s)
	return failingPool{p}, err
}

func (f failingPool) CreateVolume(context.Context, driver.Volume, int64) (bool, error) {
	return false, errs.Classify(errs.NoSpaceClass, errors.New("full"))
}

func TestFailedCreateLeavesNoRecord(t *testing.T) {
	w := start(t, t.TempDir(), state.NewMemory(), failing{dir.New(quiet)})
	if err := w.CreatePool(t.Context(), api.StoragePoolsPost{Name: "p", Driver: "dir"}); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateRoot(t.Context(), pool("p"), project, inst("c1"), 0); !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("create on a full pool: %v", err)
	}
	if vols, _ := w.ListVolumes(pool("p"), project); len(vols) != 0 {
		t.Errorf("records left: %+v", vols)
	}
}

// BenchmarkRoot makes and deletes the root of an instance.
func BenchmarkRoot(b *testing.B) {
	s, err := storage.New(storage.Deps{Dir: b.TempDir(), State: state.NewMemory(), Drivers: []driver.Driver{dir.New(quiet)}, Clock: clock.Real{}, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.CreatePool(b.Context(), api.StoragePoolsPost{Name: "p", Driver: "dir"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.CreateRoot(b.Context(), pool("p"), project, inst("c1"), 0); err != nil {
			b.Fatal(err)
		}
		if err := s.DeleteRoot(b.Context(), pool("p"), project, inst("c1")); err != nil {
			b.Fatal(err)
		}
	}
}
