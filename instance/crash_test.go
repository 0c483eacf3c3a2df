package instance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

// A daemon that dies leaves the record with its phase and any part of the effects. Making the undo fail too leaves the
// same; the next start must clear it up, and the name must be free again.
func TestCutOffCreate(t *testing.T) {
	for _, effect := range []string{"CreateRoot", "Hold", "Mount"} {
		for _, undo := range []string{"Forget", "DeleteRoot", "Release"} {
			t.Run(effect+" "+undo, func(t *testing.T) {
				w := instancetest.New(t)
				w.Host.Fail(effect, errors.New("cut"))
				w.Host.Fail(undo, errors.New("cut"))
				spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"}})
				if err := w.Run(t, spec, err); err == nil {
					t.Fatal("created")
				}
				w.Host.Fail(effect, nil)
				w.Host.Fail(undo, nil)
				wantErr(t, do(t, w, "c1", "start"), errs.BusyClass, "not complete")
				w.Restart(t)
				if !gone(t, w) {
					t.Fatal("still there")
				}
				w.Check(t)
				create(t, w, "c1")
			})
		}
	}
}

func TestCutOffDelete(t *testing.T) {
	for _, step := range []string{"Detach", "Forget", "DeleteRoot", "Release"} {
		for _, again := range []string{"restart", "delete"} {
			t.Run(step+" "+again, func(t *testing.T) {
				w := instancetest.New(t)
				create(t, w, "c1")
				w.Host.Fail(step, errors.New("cut"))
				spec, err := w.Delete(t.Context(), project, "c1")
				if err := w.Run(t, spec, err); err == nil {
					t.Fatal("deleted")
				}
				w.Host.Fail(step, nil)
				wantStatus(t, w, "c1", api.Error)
				if again == "restart" {
					w.Restart(t)
				} else {
					spec, err := w.Delete(t.Context(), project, "c1")
					must(t, w.Run(t, spec, err))
				}
				if !gone(t, w) {
					t.Fatal("still there")
				}
				w.Check(t)
				create(t, w, "c1")
			})
		}
	}
}

func TestCutOffRename(t *testing.T) {
	for _, step := range []string{"Forget", "RenameRoot"} {
		t.Run(step, func(t *testing.T) {
			w := instancetest.New(t)
			create(t, w, "c1")
			w.Host.Fail(step, errors.New("cut"))
			spec, err := w.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"})
			if err := w.Run(t, spec, err); err == nil {
				t.Fatal("renamed")
			}
			_, err = w.Create(t.Context(), project, api.InstancesPost{Name: "c2", Source: api.InstanceSource{Type: "image", Alias: "img"}})
			wantErr(t, err, errs.ExistsClass, "already exists")
			w.Host.Fail(step, nil)
			w.Restart(t)
			if n := w.Names(project); !slices.Equal(n, []string{"c2"}) {
				t.Fatalf("names %v", n)
			}
			w.Check(t)
			must(t, do(t, w, "c2", "start"))
			must(t, do(t, w, "c2", "stop"))
			create(t, w, "c1")
		})
	}
}

func TestDaemonRestart(t *testing.T) {
	w := instancetest.New(t)
	for _, n := range []string{"runs", "frozen", "exits", "reboots", "off"} {
		create(t, w, n)
		if n != "off" {
			must(t, do(t, w, n, "start"))
		}
	}
	must(t, do(t, w, "frozen", "freeze"))
	exits, reboots := id(t, w, "exits"), id(t, w, "reboots")
	kill := w.Guests.Calls("kill")
	w.Restart(t)
	w.Check(t)
	for n, want := range map[string]api.StatusCode{"runs": api.Running, "frozen": api.Frozen, "exits": api.Running, "off": api.Stopped} {
		wantStatus(t, w, n, want)
	}
	if w.Guests.Calls("kill") != kill {
		t.Error("the restart killed something")
	}
	// What ends while no daemon is there is found by the next one.
	w.Die(t)
	w.Guests.Exit(exits, driver.Exit{Code: 0})
	w.Guests.Exit(reboots, driver.Exit{Code: 129, Reboot: true})
	w.Live(t)
	eventually(t, "exit and reboot", func() bool {
		return get(t, w, "exits").StatusCode == api.Stopped && get(t, w, "reboots").StatusCode == api.Running
	})
	// After the host's own restart nothing runs; what ran before comes back.
	w.Die(t)
	for _, n := range w.Guests.IDs() {
		w.Guests.Exit(n, driver.Exit{Code: 137})
	}
	w.Live(t)
	eventually(t, "all stopped", func() bool { return get(t, w, "runs").StatusCode == api.Stopped })
	must(t, w.Autostart(t.Context()))
	for n, want := range map[string]api.StatusCode{"runs": api.Running, "frozen": api.Running, "exits": api.Stopped, "off": api.Stopped} {
		wantStatus(t, w, n, want)
	}
}

func TestAutostart(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "always", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autostart": "true"} })
	create(t, w, "never", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autostart": "false"} })
	create(t, w, "before", func(r *api.InstancesPost) { r.Config = api.Config{"boot.autostart.priority": "9"} })
	create(t, w, "off")
	for _, n := range []string{"never", "before"} {
		must(t, do(t, w, n, "start"))
	}
	w.Die(t)
	w.PowerLoss() // the host lost power
	w.Live(t)
	must(t, w.Autostart(t.Context()))
	for n, want := range map[string]api.StatusCode{"always": api.Running, "never": api.Stopped, "before": api.Running, "off": api.Stopped} {
		wantStatus(t, w, n, want)
	}
}

func TestLocks(t *testing.T) {
	t.Run("joiners share the result", func(t *testing.T) {
		w := instancetest.New(t)
		create(t, w, "c1")
		must(t, do(t, w, "c1", "start"))
		release := w.Host.Block("Detach") // the stop hangs in its tear-down
		var wg sync.WaitGroup
		results := make([]error, 4)
		for i := range results {
			wg.Go(func() { results[i] = do(t, w, "c1", "stop") })
		}
		eventually(t, "stopping", func() bool { return get(t, w, "c1").StatusCode == api.Stopping })
		wantErr(t, do(t, w, "c1", "start"), errs.BusyClass, `Instance is busy running a "stop" operation`)
		wantErr(t, do(t, w, "c1", "restart"), errs.BusyClass, `Instance is busy running a "stop" operation`)
		release()
		wg.Wait()
		for _, err := range results {
			if err != nil && err.Error() != "The instance is already stopped" {
				t.Errorf("joiner: %v", err)
			}
		}
		if w.Guests.Calls("shutdown") != 1 {
			t.Errorf("%d shutdowns", w.Guests.Calls("shutdown"))
		}
	})
	for _, stuck := range []struct{ name, rule, action string }{
		{"stop", "shutdown * ignore", "stop"},
		{"restart", "shutdown * ignore", "restart"},
		{"freeze", "freeze * hang", "freeze"},
	} {
		t.Run("force wins over "+stuck.name, func(t *testing.T) {
			w := instancetest.New(t)
			create(t, w, "c1")
			must(t, do(t, w, "c1", "start"))
			must(t, w.Guests.Inject(stuck.rule))
			result := make(chan error)
			go func() { result <- do(t, w, "c1", stuck.action) }()
			eventually(t, "holder", func() bool { s := get(t, w, "c1").StatusCode; return s == api.Stopping || s == api.Freezing })
			must(t, power(t, w, "c1", api.InstanceStatePut{Action: "stop", Force: true}))
			err := <-result
			if stuck.action != "stop" && err == nil {
				t.Error("the stuck operation says that it succeeded")
			}
			w.Guests.Heal()
			wantStatus(t, w, "c1", api.Stopped)
			w.Check(t)
			must(t, do(t, w, "c1", "start"))
			must(t, do(t, w, "c1", "stop"))
		})
	}
	t.Run("force wins over a stuck start", func(t *testing.T) {
		w := instancetest.New(t)
		create(t, w, "c1")
		must(t, w.Guests.Inject("create * hang"))
		result := make(chan error)
		go func() { result <- do(t, w, "c1", "start") }()
		eventually(t, "starting", func() bool { return get(t, w, "c1").StatusCode == api.Starting })
		must(t, power(t, w, "c1", api.InstanceStatePut{Action: "stop", Force: true}))
		if err := <-result; err == nil {
			t.Error("started")
		}
		wantStatus(t, w, "c1", api.Stopped)
		w.Guests.Heal()
		w.Check(t)
	})
	t.Run("clean stop runs out of time", func(t *testing.T) {
		w := instancetest.New(t)
		create(t, w, "c1")
		must(t, do(t, w, "c1", "start"))
		must(t, w.Guests.Inject("shutdown * ignore"))
		err := power(t, w, "c1", api.InstanceStatePut{Action: "stop", Timeout: 1})
		wantErr(t, err, errs.UnavailableClass, `Failed shutting down instance, status is "Running"`)
		wantStatus(t, w, "c1", api.Running)
		must(t, power(t, w, "c1", api.InstanceStatePut{Action: "stop", Force: true}))
	})
	t.Run("same name at once", func(t *testing.T) {
		w := instancetest.New(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for range 8 {
			wg.Go(func() {
				spec, err := w.Create(context.Background(), project, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"}})
				if err == nil {
					err = spec.Run(context.Background(), &instancetest.Handle{})
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					made++
				} else if !errs.IsExists(err) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Errorf("made %d times", made)
		}
	})
	t.Run("blocks and addresses are unique", func(t *testing.T) {
		w := instancetest.New(t)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { create(t, w, fmt.Sprintf("c%d", i)) })
		}
		wg.Wait()
		seen := map[string]bool{}
		for _, i := range w.List(project) {
			for _, k := range []string{"volatile.eth0.hwaddr", "volatile.idmap.base"} {
				if v := i.Config[k]; seen[v] || v == "" || v == "0" {
					t.Errorf("%s %s %q", i.Name, k, v)
				} else {
					seen[v] = true
				}
			}
		}
	})
}

// TestAnySequence does random things to a few instances, with failures and restarts, and looks at the world after each.
func TestAnySequence(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := instancetest.New(t)
		name := rapid.SampledFrom([]string{"a", "b"})
		failing := rapid.SampledFrom([]string{"CreateRoot", "Mount", "Attach", "Template"})
		rt.Repeat(map[string]func(*rapid.T){
			"create": func(rt *rapid.T) {
				spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: name.Draw(rt, "n"), Source: api.InstanceSource{Type: "image", Alias: "img"},
					InstancePut: api.InstancePut{Ephemeral: rapid.Bool().Draw(rt, "ephemeral")}})
				_ = w.Run(t, spec, err)
			},
			"power": func(rt *rapid.T) {
				action := rapid.SampledFrom([]string{"start", "start", "stop", "restart", "freeze", "unfreeze"}).Draw(rt, "action")
				_ = power(t, w, name.Draw(rt, "n"), api.InstanceStatePut{Action: action, Timeout: -1, Force: rapid.Bool().Draw(rt, "force")})
			},
			"delete": func(rt *rapid.T) {
				spec, err := w.Delete(t.Context(), project, name.Draw(rt, "n"))
				_ = w.Run(t, spec, err)
			},
			"rename": func(rt *rapid.T) {
				spec, err := w.Rename(t.Context(), project, name.Draw(rt, "from"), api.InstancePost{Name: name.Draw(rt, "to")})
				_ = w.Run(t, spec, err)
			},
			"exit": func(rt *rapid.T) {
				n := name.Draw(rt, "n")
				inst, _, err := w.Get(project, n)
				if err != nil || inst.StatusCode != api.Running {
					rt.Skip()
				}
				events := len(w.Host.Events())
				w.Guests.Exit(inst.Config["volatile.uuid"], driver.Exit{Code: 1, Reboot: rapid.Bool().Draw(rt, "reboot")})
				eventually(t, "end", func() bool { return len(w.Host.Events()) > events })
			},
			"restart the daemon": func(rt *rapid.T) { w.Restart(t) },
			"fail": func(rt *rapid.T) {
				m := failing.Draw(rt, "method")
				w.Host.Fail(m, errors.New("boom"))
				_ = power(t, w, name.Draw(rt, "n"), api.InstanceStatePut{Action: "start"})
				spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: name.Draw(rt, "m"), Source: api.InstanceSource{Type: "image", Alias: "img"}})
				_ = w.Run(t, spec, err)
				w.Host.Fail(m, nil)
			},
			"": func(rt *rapid.T) {
				w.Settle(t)
				w.Check(t)
				for _, inst := range w.List(project) {
					alive := w.Alive(inst.Config["volatile.uuid"])
					if alive != (inst.StatusCode == api.Running || inst.StatusCode == api.Frozen) {
						rt.Fatalf("%s is %s, its process is alive: %v", inst.Name, inst.Status, alive)
					}
				}
				if t.Failed() {
					rt.FailNow()
				}
			},
		})
		w.Die(t)
	})
}
