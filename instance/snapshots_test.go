package instance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

func snap(t *testing.T, w *instancetest.World, name, snap string) error {
	t.Helper()
	spec, err := w.Snapshot(project, name, api.InstanceSnapshotsPost{Name: snap})
	return w.Run(t, spec, err)
}

func snapNames(t *testing.T, w *instancetest.World, name string) []string {
	t.Helper()
	list, err := w.Snapshots(project, name)
	must(t, err)
	out := []string{}
	for _, s := range list {
		out = append(out, s.Name)
	}
	return out
}

func restore(t *testing.T, w *instancetest.World, name, snap string) error {
	t.Helper()
	spec, err := w.Restore(project, name, snap, false)
	return w.Run(t, spec, err)
}

func guestFile(t *testing.T, w *instancetest.World, name string) string {
	t.Helper()
	n, err := api.ParseInstanceName(name)
	must(t, err)
	return filepath.Join(w.Host.RootDir(project, n), "upper", "f")
}

func wantNames(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("snapshots %v, want %v", got, want)
	}
}

func TestSnapshotLife(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", func(r *api.InstancesPost) { r.Config = api.Config{"user.x": "old"} })
	must(t, os.WriteFile(guestFile(t, w, "c1"), []byte("old"), 0o600))
	must(t, do(t, w, "c1", "start"))
	must(t, snap(t, w, "c1", ""))
	must(t, snap(t, w, "c1", ""))
	must(t, snap(t, w, "c1", "mine"))
	wantNames(t, snapNames(t, w, "c1"), "mine", "snap0", "snap1")
	wantErr(t, snap(t, w, "c1", "mine"), errs.ExistsClass, "mine")
	for _, bad := range []string{"a b", "a/b", "..", "x\n"} {
		wantErr(t, snap(t, w, "c1", bad), errs.InvalidInput, "snapshot")
	}
	_, err := w.Snapshot(project, "c1", api.InstanceSnapshotsPost{Stateful: true})
	wantErr(t, err, errs.UnsupportedClass, "stateful")
	past := time.Unix(1, 0)
	_, err = w.Snapshot(project, "c1", api.InstanceSnapshotsPost{ExpiresAt: &past})
	wantErr(t, err, errs.InvalidInput, "past")

	must(t, os.WriteFile(guestFile(t, w, "c1"), []byte("new"), 0o600))
	must(t, w.Patch(t.Context(), project, "c1", api.InstancePut{Config: api.Config{"user.x": "new"}}, nil))
	before := get(t, w, "c1")
	must(t, restore(t, w, "c1", "c1/snap0"))
	after := get(t, w, "c1")
	if b, _ := os.ReadFile(guestFile(t, w, "c1")); string(b) != "old" || after.Config["user.x"] != "old" || after.StatusCode != api.Running {
		t.Errorf("restored: %q, %q, %s", b, after.Config["user.x"], after.Status)
	}
	for _, k := range []string{"volatile.uuid", "volatile.eth0.hwaddr", "volatile.idmap.base"} {
		if before.Config[k] != after.Config[k] || after.Config[k] == "" {
			t.Errorf("%s: %q became %q", k, before.Config[k], after.Config[k])
		}
	}
	wantErr(t, restore(t, w, "c1", "none"), errs.NotFoundClass, "snapshot not found")

	must(t, do(t, w, "c1", "stop"))
	spec, err := w.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"})
	must(t, w.Run(t, spec, err))
	spec, err = w.RenameSnapshot(project, "c2", "snap1", api.InstanceSnapshotPost{Name: "mine"})
	wantErr(t, w.Run(t, spec, err), errs.ExistsClass, "already in use")
	spec, err = w.RenameSnapshot(project, "c2", "snap1", api.InstanceSnapshotPost{Name: "best"})
	must(t, w.Run(t, spec, err))
	spec, err = w.DeleteSnapshot(project, "c2", "mine")
	must(t, w.Run(t, spec, err))
	wantNames(t, snapNames(t, w, "c2"), "best", "snap0")
	must(t, restore(t, w, "c2", "best"))
	w.Check(t)
	spec, err = w.Delete(t.Context(), project, "c2")
	must(t, w.Run(t, spec, err)) // and its snapshots
}

// An instance on a pool whose copies take time stands still for the copy, and goes on afterwards, also after a daemon's death.
func TestSnapshotFreezes(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	must(t, snap(t, w, "c1", "a"))
	if n := w.Guests.Calls("freeze"); n != 0 {
		t.Errorf("%d freezes for a copy of one moment", n)
	}
	w.Host.CopiesTakeTime()
	must(t, snap(t, w, "c1", "b"))
	if f, u := w.Guests.Calls("freeze"), w.Guests.Calls("unfreeze"); f != 1 || u != 1 {
		t.Errorf("%d freezes, %d thaws", f, u)
	}
	must(t, w.Guests.Inject("unfreeze * error internal cut"))
	w.Host.Fail("DeleteSnapshot", errors.New("cut"))
	if err := snap(t, w, "c1", "c"); err == nil {
		t.Fatal("made")
	}
	w.Host.Fail("DeleteSnapshot", nil)
	w.Guests.Heal()
	w.Restart(t)
	wantStatus(t, w, "c1", api.Running)
	wantNames(t, snapNames(t, w, "c1"), "a", "b")
}

func TestCutOffSnapshot(t *testing.T) {
	for _, step := range []string{"Hold", "SnapshotRoot"} {
		for _, undo := range []string{"DeleteSnapshot", "Release"} {
			t.Run(step+" "+undo, func(t *testing.T) {
				w := instancetest.New(t)
				create(t, w, "c1")
				w.Host.Fail(step, errors.New("cut"))
				w.Host.Fail(undo, errors.New("cut"))
				if err := snap(t, w, "c1", "s"); err == nil {
					t.Fatal("made")
				}
				wantNames(t, snapNames(t, w, "c1"))
				w.Host.Fail(step, nil)
				w.Host.Fail(undo, nil)
				w.Restart(t)
				w.Check(t)
				must(t, snap(t, w, "c1", "s"))
			})
		}
	}
	t.Run("delete", func(t *testing.T) {
		w := instancetest.New(t)
		create(t, w, "c1")
		must(t, snap(t, w, "c1", "s"))
		w.Host.Fail("DeleteSnapshot", errors.New("cut"))
		spec, err := w.DeleteSnapshot(project, "c1", "s")
		if err := w.Run(t, spec, err); err == nil {
			t.Fatal("deleted")
		}
		w.Host.Fail("DeleteSnapshot", nil)
		w.Restart(t)
		wantNames(t, snapNames(t, w, "c1"))
	})
}

// A restore that fails leaves the instance as it was.
func TestFailedRestore(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", func(r *api.InstancesPost) { r.Config = api.Config{"user.x": "old"} })
	must(t, snap(t, w, "c1", "s"))
	must(t, w.Patch(t.Context(), project, "c1", api.InstancePut{Config: api.Config{"user.x": "new"}}, nil))
	w.Host.Fail("ReplaceRoot", errors.New("cut"))
	if err := restore(t, w, "c1", "s"); err == nil {
		t.Fatal("restored")
	}
	w.Host.Fail("ReplaceRoot", nil)
	if x := get(t, w, "c1").Config["user.x"]; x != "new" {
		t.Errorf("user.x %q", x)
	}
	must(t, do(t, w, "c1", "start"))
	must(t, do(t, w, "c1", "stop"))
	must(t, restore(t, w, "c1", "s"))
}

func TestSnapshotScheduleAndExpiry(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "off", func(r *api.InstancesPost) { r.Config = api.Config{"snapshots.schedule": "*/5 * * * *"} })
	create(t, w, "always", func(r *api.InstancesPost) {
		r.Config = api.Config{"snapshots.schedule": "*/5 * * * *, @startup", "snapshots.schedule.stopped": "true", "snapshots.expiry": "1H", "snapshots.pattern": "auto%d"}
	})
	at := time.Date(2030, 1, 1, 12, 5, 10, 0, time.UTC)
	w.Tick(t.Context(), at, false)
	w.Tick(t.Context(), at.Add(time.Minute), false)
	wantNames(t, snapNames(t, w, "off"))
	wantNames(t, snapNames(t, w, "always"), "auto0")
	w.Tick(t.Context(), at.Add(time.Minute), true)
	wantNames(t, snapNames(t, w, "always"), "auto0", "auto1")
	s, _, err := w.GetSnapshot(project, "always", "auto0")
	must(t, err)
	if want := at.Add(time.Hour); !s.ExpiresAt.Equal(want) {
		t.Errorf("expires at %v, want %v", s.ExpiresAt, want)
	}
	spec, err := w.UpdateSnapshot(project, "always", "auto1", api.InstanceSnapshotPut{}, nil)
	must(t, w.Run(t, spec, err))
	w.Tick(t.Context(), at.Add(2*time.Hour+time.Minute), false)
	wantNames(t, snapNames(t, w, "always"), "auto1")
}
