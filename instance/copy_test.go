package instance_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

func copyOf(t *testing.T, w *instancetest.World, from, to string, change ...func(*api.InstancesPost)) error {
	t.Helper()
	req := api.InstancesPost{Name: to, Source: api.InstanceSource{Type: "copy", Source: from}}
	for _, c := range change {
		c(&req)
	}
	spec, err := w.Create(t.Context(), project, req)
	return w.Run(t, spec, err)
}

func TestCopy(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", func(r *api.InstancesPost) {
		r.Config = api.Config{"user.x": "old", "user.y": "y"}
		r.Description = "mine"
	})
	must(t, os.WriteFile(guestFile(t, w, "c1"), []byte("old"), 0o600))
	must(t, snap(t, w, "c1", "s0"))
	must(t, os.WriteFile(guestFile(t, w, "c1"), []byte("new"), 0o600))
	must(t, do(t, w, "c1", "start"))
	must(t, copyOf(t, w, "c1", "c2", func(r *api.InstancesPost) {
		r.Config = api.Config{"user.x": "mine", "volatile.uuid": get(t, w, "c1").Config["volatile.uuid"]}
	}))
	a, b := get(t, w, "c1"), get(t, w, "c2")
	if b.Config["user.x"] != "mine" || b.Config["user.y"] != "y" || b.Description != "mine" || b.StatusCode != api.Stopped {
		t.Errorf("the copy is %+v", b)
	}
	for _, k := range []string{"volatile.uuid", "volatile.eth0.hwaddr", "volatile.idmap.base"} {
		if a.Config[k] == b.Config[k] || b.Config[k] == "" {
			t.Errorf("%s is %q in both", k, b.Config[k])
		}
	}
	wantNames(t, snapNames(t, w, "c2"), "s0")
	must(t, do(t, w, "c2", "start"))
	root := filepath.Dir(guestFile(t, w, "c2"))
	if h, err := os.ReadFile(filepath.Join(root, "etc", "hostname")); string(h) != "c2\n" {
		t.Errorf("the template of the trigger copy: %q, %v", h, err)
	}
	must(t, do(t, w, "c2", "stop"))
	must(t, restore(t, w, "c2", "s0"))
	if f, _ := os.ReadFile(guestFile(t, w, "c2")); string(f) != "old" {
		t.Errorf("restored %q", f)
	}
	if f, _ := os.ReadFile(guestFile(t, w, "c1")); string(f) != "new" {
		t.Errorf("the original has %q", f)
	}
	must(t, copyOf(t, w, "c1/s0", "c3"))
	if f, _ := os.ReadFile(guestFile(t, w, "c3")); string(f) != "old" {
		t.Errorf("the copy of the snapshot has %q", f)
	}
	must(t, copyOf(t, w, "c1", "c4", func(r *api.InstancesPost) { r.Source.InstanceOnly = true }))
	wantNames(t, snapNames(t, w, "c4"))
	w.Check(t)

	wantErr(t, copyOf(t, w, "c1", "c2"), errs.ExistsClass, "already exists")
	wantErr(t, copyOf(t, w, "none", "c9"), errs.NotFoundClass, "Instance not found")
	wantErr(t, copyOf(t, w, "c1/none", "c9"), errs.NotFoundClass, "snapshot not found")
	wantErr(t, copyOf(t, w, "", "c9"), errs.InvalidInput, "source")
	wantErr(t, copyOf(t, w, "../c1", "c9"), errs.NotFoundClass, "not found")
	wantErr(t, copyOf(t, w, "c1", "c9", func(r *api.InstancesPost) { r.Config = api.Config{"limits.cpu": "many"} }), errs.InvalidInput, "limits.cpu")
}

func TestCutOffCopy(t *testing.T) {
	for _, step := range []string{"CopyRoot", "SnapshotRoot", "Hold"} {
		for _, undo := range []string{"DeleteRoot", "DeleteSnapshot", "Release"} {
			t.Run(step+" "+undo, func(t *testing.T) {
				w := instancetest.New(t)
				create(t, w, "c1")
				must(t, snap(t, w, "c1", "s0"))
				w.Host.Fail(step, errors.New("cut"))
				w.Host.Fail(undo, errors.New("cut"))
				if err := copyOf(t, w, "c1", "c2"); err == nil {
					t.Fatal("copied")
				}
				w.Host.Fail(step, nil)
				w.Host.Fail(undo, nil)
				w.Restart(t)
				w.Check(t)
				must(t, copyOf(t, w, "c1", "c2"))
			})
		}
	}
}

func TestCancelledCopy(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	release := w.Host.Block("CopyRoot")
	defer release()
	spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: "c2", Source: api.InstanceSource{Type: "copy", Source: "c1"}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- spec.Run(ctx, &instancetest.Handle{}) }()
	eventually(t, "the copy", func() bool { return len(w.Names(project)) == 2 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled copy succeeded")
	}
	if n := w.Names(project); len(n) != 1 {
		t.Errorf("left: %v", n)
	}
	w.Check(t)
}

func TestRefresh(t *testing.T) {
	w := instancetest.New(t)
	again := func(r *api.InstancesPost) { r.Source.Refresh = true }
	create(t, w, "c1")
	must(t, snap(t, w, "c1", "s0"))
	must(t, snap(t, w, "c1", "s1"))
	must(t, copyOf(t, w, "c1", "c2"))
	must(t, snap(t, w, "c2", "own"))
	must(t, os.WriteFile(guestFile(t, w, "c1"), []byte("later"), 0o600))
	must(t, snap(t, w, "c1", "s2"))
	spec, err := w.DeleteSnapshot(project, "c1", "s0")
	must(t, w.Run(t, spec, err))
	must(t, copyOf(t, w, "c1", "c2", again))
	wantNames(t, snapNames(t, w, "c2"), "s1", "s2")
	if f, _ := os.ReadFile(guestFile(t, w, "c2")); string(f) != "later" {
		t.Errorf("refreshed to %q", f)
	}
	wantErr(t, copyOf(t, w, "c1", "c1", again), errs.InvalidInput, "itself")
	must(t, do(t, w, "c2", "start"))
	wantErr(t, copyOf(t, w, "c1", "c2", again), errs.InvalidInput, "running")
	w.Check(t)
}
