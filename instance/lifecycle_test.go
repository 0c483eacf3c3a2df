package instance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var project = api.DefaultProject

func create(t *testing.T, w *instancetest.World, name string, change ...func(*api.InstancesPost)) {
	t.Helper()
	req := api.InstancesPost{Name: name, Source: api.InstanceSource{Type: "image", Alias: "img"}}
	for _, c := range change {
		c(&req)
	}
	spec, err := w.Create(t.Context(), project, req)
	must(t, w.Run(t, spec, err))
}

func power(t *testing.T, w *instancetest.World, name string, put api.InstanceStatePut) error {
	t.Helper()
	spec, err := w.SetState(t.Context(), project, name, put)
	return w.Run(t, spec, err)
}

func do(t *testing.T, w *instancetest.World, name, action string) error {
	t.Helper()
	return power(t, w, name, api.InstanceStatePut{Action: action, Timeout: -1})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err error, class errs.Class, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || errs.ClassOf(err) != class {
		t.Fatalf("got error %v (%v), want %q (%v)", err, errs.ClassOf(err), text, class)
	}
}

func get(t *testing.T, w *instancetest.World, name string) api.Instance {
	t.Helper()
	inst, _, err := w.Get(project, name)
	must(t, err)
	return inst
}

func wantStatus(t *testing.T, w *instancetest.World, name string, want api.StatusCode) {
	t.Helper()
	if got := get(t, w, name); got.StatusCode != want || got.Status != want.String() {
		t.Fatalf("status %s, want %s", got.Status, want)
	}
}

// eventually polls; what it waits for happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s does not happen", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func instanceName(t *testing.T, s string) api.InstanceName {
	t.Helper()
	n, err := api.ParseInstanceName(s)
	must(t, err)
	return n
}

func TestLife(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", func(r *api.InstancesPost) {
		r.Config = api.Config{"user.x": "7", "limits.processes": "500"}
		r.Description = "first"
	})
	inst := get(t, w, "c1")
	for k, want := range map[string]string{"image.os": "Debian", "user.x": "7", "volatile.base_image": instancetest.Fingerprint, "volatile.apply_template": "create"} {
		if inst.Config[k] != want {
			t.Errorf("%s is %q, want %q", k, inst.Config[k], want)
		}
	}
	if mac := inst.Config["volatile.eth0.hwaddr"]; !strings.HasPrefix(mac, "00:16:3e:") || len(mac) != 17 {
		t.Errorf("hwaddr %q", mac)
	}
	if inst.ExpandedDevices["eth0"]["network"] != "br0" || len(inst.Devices) != 0 || !slices.Equal(inst.Profiles, []string{"default"}) {
		t.Errorf("devices %v, expanded %v, profiles %v", inst.Devices, inst.ExpandedDevices, inst.Profiles)
	}
	wantStatus(t, w, "c1", api.Stopped)

	must(t, do(t, w, "c1", "start"))
	wantStatus(t, w, "c1", api.Running)
	nics := w.Host.Attached(project, instanceName(t, "c1"))
	inst = get(t, w, "c1")
	if len(nics) != 1 || nics[0].HWAddr != inst.Config["volatile.eth0.hwaddr"] || nics[0].HostName != inst.Config["volatile.eth0.host_name"] || nics[0].PID == 0 || nics[0].Name != "eth0" {
		t.Errorf("nics %+v", nics)
	}
	root := filepath.Join(w.Host.RootDir(project, instanceName(t, "c1")), "upper")
	if b, _ := os.ReadFile(root + "/etc/hostname"); string(b) != "c1\n" {
		t.Errorf("hostname %q", b)
	}
	if b, _ := os.ReadFile(root + "/etc/started"); string(b) != "start 7" {
		t.Errorf("started %q", b)
	}
	if inst.Config["volatile.apply_template"] != "" || inst.Config["volatile.last_state.power"] != "RUNNING" || inst.LastUsedAt.IsZero() {
		t.Errorf("after start: %v", inst.Config)
	}
	wantErr(t, do(t, w, "c1", "start"), errs.InvalidInput, "The instance is already running")
	spec, err := w.Delete(t.Context(), project, "c1")
	wantErr(t, w.Run(t, spec, err), errs.InvalidInput, "Instance is running")

	must(t, do(t, w, "c1", "freeze"))
	wantStatus(t, w, "c1", api.Frozen)
	wantErr(t, do(t, w, "c1", "freeze"), errs.InvalidInput, "The container is already frozen")
	must(t, do(t, w, "c1", "unfreeze"))
	wantErr(t, do(t, w, "c1", "unfreeze"), errs.InvalidInput, "The container is already running")
	must(t, do(t, w, "c1", "restart"))
	wantStatus(t, w, "c1", api.Running)
	must(t, do(t, w, "c1", "stop"))
	wantStatus(t, w, "c1", api.Stopped)
	wantErr(t, do(t, w, "c1", "stop"), errs.InvalidInput, "The instance is already stopped")
	wantErr(t, do(t, w, "c1", "restart"), errs.InvalidInput, "Instance is not running")
	if got := get(t, w, "c1").Config["volatile.last_state.power"]; got != "STOPPED" {
		t.Errorf("power %q", got)
	}
	w.Check(t)

	spec, err = w.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"})
	must(t, w.Run(t, spec, err))
	must(t, do(t, w, "c2", "start"))
	if b, _ := os.ReadFile(filepath.Join(w.Host.RootDir(project, instanceName(t, "c2")), "upper/etc/hostname")); string(b) != "c2\n" {
		t.Errorf("hostname after rename %q", b)
	}
	must(t, power(t, w, "c2", api.InstanceStatePut{Action: "stop", Force: true}))
	spec, err = w.Delete(t.Context(), project, "c2")
	must(t, w.Run(t, spec, err))
	if n := w.Names(project); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
	want := []string{"instance-created", "instance-started", "instance-paused", "instance-resumed", "instance-restarted", "instance-shutdown", "instance-renamed", "instance-started", "instance-stopped", "instance-deleted"}
	var got []string
	for _, e := range w.Host.Events() {
		if action, _, _ := strings.Cut(e, " "); strings.HasPrefix(action, "instance-") {
			got = append(got, action)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %v\nwant   %v", got, want)
	}
}

func id(t *testing.T, w *instancetest.World, name string) string {
	t.Helper()
	return get(t, w, name).Config["volatile.uuid"]
}

func TestGuestEndsByItself(t *testing.T) {
	for _, tt := range []struct {
		name      string
		ephemeral bool
		exit      driver.Exit
		settled   func(t *testing.T, w *instancetest.World) bool
		event     string
	}{
		{"poweroff", false, driver.Exit{Code: 130}, stopped, "instance-shutdown"},
		{"crash", false, driver.Exit{Code: 139}, stopped, "instance-shutdown"},
		{"reboot", false, driver.Exit{Code: 129, Reboot: true}, running, "instance-restarted"},
		{"ephemeral poweroff", true, driver.Exit{Code: 130}, gone, "instance-deleted"},
		{"ephemeral reboot", true, driver.Exit{Code: 129, Reboot: true}, running, "instance-restarted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := instancetest.New(t)
			create(t, w, "c1", func(r *api.InstancesPost) { r.Ephemeral = tt.ephemeral })
			must(t, do(t, w, "c1", "start"))
			before := w.Guests.Calls("start")
			w.Guests.Exit(id(t, w, "c1"), tt.exit)
			eventually(t, tt.event, func() bool {
				return slices.ContainsFunc(w.Host.Events(), func(e string) bool { return strings.HasPrefix(e, tt.event+" ") })
			})
			if !tt.settled(t, w) || tt.exit.Reboot && w.Guests.Calls("start") != before+1 {
				t.Fatalf("after %s: %v", tt.name, w.List(project))
			}
			if tt.exit.Reboot {
				must(t, power(t, w, "c1", api.InstanceStatePut{Action: "stop", Force: true}))
			}
			w.Check(t)
		})
	}
}

func stopped(t *testing.T, w *instancetest.World) bool {
	inst, _, err := w.Get(project, "c1")
	return err == nil && inst.StatusCode == api.Stopped && inst.Config["volatile.last_state.power"] == "STOPPED"
}

func running(t *testing.T, w *instancetest.World) bool {
	inst, _, err := w.Get(project, "c1")
	return err == nil && inst.StatusCode == api.Running
}

func gone(t *testing.T, w *instancetest.World) bool {
	_, _, err := w.Get(project, "c1")
	return errs.IsNotFound(err)
}

func TestEphemeralStop(t *testing.T) {
	for _, force := range []bool{false, true} {
		w := instancetest.New(t)
		create(t, w, "c1", func(r *api.InstancesPost) { r.Ephemeral = true })
		must(t, do(t, w, "c1", "start"))
		must(t, do(t, w, "c1", "restart"))
		wantStatus(t, w, "c1", api.Running)
		must(t, power(t, w, "c1", api.InstanceStatePut{Action: "stop", Force: force, Timeout: -1}))
		if !gone(t, w) {
			t.Fatalf("force %v: not deleted: %v", force, w.List(project))
		}
	}
}

func TestStartFails(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name     string
		sabotage func(w *instancetest.World, id string) (repair func())
	}{
		{"image", func(w *instancetest.World, _ string) func() {
			w.Host.Fail("Mount", boom)
			return func() { w.Host.Fail("Mount", nil) }
		}},
		{"root", func(w *instancetest.World, _ string) func() {
			w.Host.Fail("RootPath", boom)
			return func() { w.Host.Fail("RootPath", nil) }
		}},
		{"template", func(w *instancetest.World, _ string) func() {
			w.Host.Fail("Template", boom)
			return func() { w.Host.Fail("Template", nil) }
		}},
		{"network", func(w *instancetest.World, _ string) func() {
			w.Host.Fail("Attach", boom)
			return func() { w.Host.Fail("Attach", nil) }
		}},
		{"create", func(w *instancetest.World, id string) func() { return inject(w, "create "+id+" error internal boom") }},
		{"create, answer lost", func(w *instancetest.World, id string) func() { return inject(w, "create "+id+" after internal boom") }},
		{"start", func(w *instancetest.World, id string) func() { return inject(w, "start "+id+" error internal boom") }},
		{"start, answer lost", func(w *instancetest.World, id string) func() { return inject(w, "start "+id+" after internal boom") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := instancetest.New(t)
			create(t, w, "c1")
			repair := tt.sabotage(w, id(t, w, "c1"))
			err := do(t, w, "c1", "start")
			if err == nil || !strings.Contains(err.Error(), "boom") || !strings.Contains(err.Error(), `start instance "c1"`) {
				t.Fatalf("got %v", err)
			}
			repair()
			wantStatus(t, w, "c1", api.Stopped)
			if n := len(w.Guests.IDs()); n != 0 {
				t.Fatalf("%d processes left", n)
			}
			w.Check(t)
			if got := get(t, w, "c1").Config["volatile.apply_template"]; got != "create" {
				t.Errorf("templates to apply after a failed start: %q", got)
			}
			must(t, do(t, w, "c1", "start"))
			if got := get(t, w, "c1").Config["volatile.apply_template"]; got != "" {
				t.Errorf("templates to apply after a start: %q", got)
			}
			must(t, do(t, w, "c1", "stop"))
		})
	}
}

func inject(w *instancetest.World, rules string) func() {
	if err := w.Guests.Inject(rules); err != nil {
		panic(err)
	}
	return w.Guests.Heal
}

func TestCreateFails(t *testing.T) {
	for _, method := range []string{"CreateRoot", "Hold", "Mount", "Reserve"} {
		t.Run(method, func(t *testing.T) {
			w := instancetest.New(t)
			w.Host.Fail(method, errs.NoSpace("the pool is full"))
			spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"},
				InstancePut: api.InstancePut{Devices: api.Devices{"eth0": {"type": "nic", "network": "br0", "ipv4.address": "10.0.0.9"}}}})
			wantErr(t, w.Run(t, spec, err), errs.NoSpaceClass, "the pool is full")
			if !gone(t, w) {
				t.Fatal("still there")
			}
			w.Check(t)
			w.Host.Fail(method, nil)
			create(t, w, "c1")
		})
	}
}
