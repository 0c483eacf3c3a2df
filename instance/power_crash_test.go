package instance_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

// The daemon dies in a forced stop: before the kill (the process lives), after it, and when the host dies with it. The stop
// wins each time, and nothing starts the instance again.
func TestForcedStopSurvivesTheDaemon(t *testing.T) {
	for _, at := range []string{"before the kill", "after the kill", "with the host"} {
		for _, ephemeral := range []bool{false, true} {
			name := at
			if ephemeral {
				name += ", ephemeral"
			}
			t.Run(name, func(t *testing.T) {
				w := instancetest.New(t)
				create(t, w, "c1", func(r *api.InstancesPost) { r.Ephemeral = ephemeral; r.Config = api.Config{"boot.autorestart": "true"} })
				must(t, do(t, w, "c1", "start"))
				uuid := id(t, w, "c1")
				must(t, w.Guests.Inject("kill * hang"))
				cutOff(t, w, api.InstanceStatePut{Action: "stop", Force: true}, "kill")
				w.Guests.Heal()
				switch at {
				case "after the kill":
					w.Guests.Exit(uuid, driver.Exit{Code: 137})
				case "with the host":
					w.PowerLoss()
				}
				w.Live(t)
				if ephemeral {
					eventually(t, "gone", func() bool { return gone(t, w) })
					return
				}
				eventually(t, "stopped", func() bool { return stopped(t, w) })
				must(t, w.Autostart(t.Context()))
				wantStatus(t, w, "c1", api.Stopped)
				w.Check(t)
				eventually(t, "free", func() bool { return do(t, w, "c1", "start") == nil }) // the old decision does not count for the next run
				w.Restart(t)
				wantStatus(t, w, "c1", api.Running)
			})
		}
	}
}

// cutOff begins an operation on c1, lets it come as far as a call of the driver that hangs, and ends operation and daemon there.
func cutOff(t *testing.T, w *instancetest.World, put api.InstanceStatePut, call string) {
	t.Helper()
	spec, err := w.SetState(t.Context(), project, "c1", put)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	calls := w.Guests.Calls(call)
	go func() { ended <- spec.Run(ctx, &instancetest.Handle{}) }()
	eventually(t, call, func() bool { return w.Guests.Calls(call) > calls })
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("the operation says that it succeeded")
	}
	w.Die(t)
}

// A restart that was cut off after the process had ended is finished, also when boot.autostart is off.
func TestRestartSurvivesTheDaemon(t *testing.T) {
	for _, code := range []int{0, 137} {
		w := instancetest.New(t)
		create(t, w, "c1", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autostart": "false"} })
		must(t, do(t, w, "c1", "start"))
		uuid := id(t, w, "c1")
		must(t, w.Guests.Inject("shutdown * hang"))
		cutOff(t, w, api.InstanceStatePut{Action: "restart", Timeout: -1}, "shutdown")
		w.Guests.Heal()
		w.Guests.Exit(uuid, driver.Exit{Code: code})
		w.Live(t)
		w.Settle(t)
		must(t, w.Autostart(t.Context()))
		eventually(t, "running", func() bool { return running(t, w) })
	}
}

func TestAutostartOrder(t *testing.T) {
	w := instancetest.New(t)
	for name, prio := range map[string]string{"low": "1", "mid-a": "5", "mid-b": "5", "high": "100", "none": ""} {
		create(t, w, name, func(r *api.InstancesPost) {
			r.Config = api.Config{"boot.autostart": "true", "boot.autostart.delay": "0", "boot.autostart.priority": prio}
		})
	}
	must(t, w.Autostart(t.Context()))
	got := names(w, "instance-started")
	slices.Sort(got[1:3])
	if want := []string{"high", "mid-a", "mid-b", "low", "none"}; !slices.Equal(got, want) {
		t.Errorf("started %v, want %v", got, want)
	}
}

// names returns the instances of one kind of event in their order.
func names(w *instancetest.World, action string) (out []string) {
	for _, e := range w.Host.Events() {
		if rest, ok := strings.CutPrefix(e, action+" "); ok {
			out = append(out, rest[strings.LastIndex(rest, "/")+1:])
		}
	}
	return out
}

func TestHostShutdown(t *testing.T) {
	w := instancetest.New(t)
	for name, cfg := range map[string]api.Config{
		"first": {"boot.stop.priority": "10"}, "second": {"boot.stop.priority": "5"}, "last": {},
		"stuck": {"boot.stop.priority": "5", "boot.host_shutdown_timeout": "0"}, "manual": {"boot.autostart": "false"}, "off": {},
	} {
		create(t, w, name, func(r *api.InstancesPost) { r.Config = cfg })
		if name != "off" {
			must(t, do(t, w, name, "start"))
		}
	}
	must(t, w.StopAll(t.Context()))
	for _, i := range w.List(project) {
		if i.StatusCode != api.Stopped {
			t.Errorf("%s is %s", i.Name, i.Status)
		}
	}
	down := append(names(w, "instance-shutdown"), names(w, "instance-stopped")...)
	if len(down) != 5 || down[0] != "first" || down[4] != "stuck" || down[1] != "second" {
		t.Errorf("stopped %v", down)
	}
	wantErr(t, do(t, w, "off", "start"), errs.UnavailableClass, "shutting down")
	w.Restart(t)
	must(t, w.Autostart(t.Context()))
	for n, want := range map[string]api.StatusCode{"first": api.Running, "second": api.Running, "last": api.Running, "stuck": api.Running, "manual": api.Stopped, "off": api.Stopped} {
		wantStatus(t, w, n, want)
	}
}

func TestRestartPolicy(t *testing.T) {
	for _, c := range []struct {
		policy string
		code   int
		back   bool
	}{{"true", 0, true}, {"true", 1, true}, {"on-failure", 1, true}, {"on-failure", 0, false}, {"false", 1, false}, {"", 1, false}} {
		w := instancetest.New(t)
		create(t, w, "c1", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autorestart": c.policy} })
		must(t, do(t, w, "c1", "start"))
		w.Guests.Exit(id(t, w, "c1"), driver.Exit{Code: c.code})
		eventually(t, "end", func() bool { return len(names(w, "instance-shutdown")) == 1 })
		if c.back {
			eventually(t, "back", func() bool { return running(t, w) })
		}
		w.Settle(t)
		must(t, w.Autostart(t.Context()))
		wantStatus(t, w, "c1", map[bool]api.StatusCode{true: api.Running, false: api.Stopped}[c.back])
		// What somebody stops stays stopped.
		if c.back {
			eventually(t, "stop", func() bool { // the start holds the instance a moment longer than its guest needs to run
				err := do(t, w, "c1", "stop")
				if err != nil && !strings.Contains(err.Error(), "busy") {
					t.Fatal(err)
				}
				return err == nil
			})
			w.Restart(t)
			must(t, w.Autostart(t.Context()))
			wantStatus(t, w, "c1", api.Stopped)
		}
	}
	w := instancetest.New(t)
	_, err := w.Create(t.Context(), project, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"},
		InstancePut: api.InstancePut{Config: api.Config{"boot.autorestart": "maybe"}}})
	wantErr(t, err, errs.InvalidInput, "on-failure")
}

// A restart that waits is taken over by the next daemon, and ended by a stop.
func TestRestartPolicyWaits(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autorestart": "true"} })
	crash := func() {
		n := len(names(w, "instance-shutdown"))
		w.Guests.Exit(id(t, w, "c1"), driver.Exit{Code: 1})
		eventually(t, "end", func() bool { return len(names(w, "instance-shutdown")) > n })
	}
	must(t, do(t, w, "c1", "start"))
	for range 3 {
		crash()
		eventually(t, "back", func() bool { return running(t, w) })
	}
	crash() // now it waits 4 seconds
	w.Restart(t)
	must(t, w.Autostart(t.Context()))
	wantStatus(t, w, "c1", api.Running)
	for range 3 {
		crash()
		eventually(t, "back", func() bool { return running(t, w) })
	}
	crash()
	must(t, do(t, w, "c1", "stop"))
	w.Restart(t)
	must(t, w.Autostart(t.Context()))
	wantStatus(t, w, "c1", api.Stopped)
}
