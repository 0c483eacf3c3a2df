package rest_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/scheduler"
)

// withScheduler is a server of the machine h1 that computes schedules in memory, a client of it, and the scheduler as the machine h2 has it.
func withScheduler(t *testing.T) (*world, *client.Client, *scheduler.Scheduler) {
	t.Helper()
	b := backends.Mem(t)
	open := func(host string) *scheduler.Scheduler {
		s, err := scheduler.New(scheduler.Deps{KV: backends.Client(t, b), Host: host})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		return s
	}
	w := notReady(t)
	svc := w.services()
	svc.Scheduler = open("h1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = svc.Scheduler.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	w.srv.SetReady(svc)
	c, err := client.Connect(t.Context(), client.Options{Socket: filepath.Join(w.dir, "unix.socket")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return w, c, open("h2")
}

func TestWorldScheduleOverHTTP(t *testing.T) {
	w, c, other := withScheduler(t)
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const name = "a/b é" // any text is a name
	put := api.WorldSchedulePut{WorldScheduleSpec: api.WorldScheduleSpec{Strategy: "spread", Max: 1, Labels: map[string]string{"disk": "ssd"}}, Revision: new(int64)}
	ok(c.PutWorldSchedule(ctx, name, put))
	w.want(w.do("PUT", "/1.0/world/scheduler/x", map[string]any{"strategy": "rr"}), 400, `strategy "rr": must be one of round-robin, alphabetical, least-loaded, spread, weighted`)
	w.want(w.do("PUT", "/1.0/world/scheduler/x", map[string]any{"strategy": "spread", "revision": -1}), 400, "Invalid revision -1: allowed are revisions of specifications, and 0 for a schedule that does not exist")
	w.want(w.do("PUT", "/1.0/world/scheduler/a%2Fb%20%C3%A9", map[string]any{"strategy": "spread", "revision": 0}), 409, `schedule "a/b é" exists`)
	w.want(w.do("GET", "/1.0/world/scheduler/x", nil), 404, `schedule "x" does not exist`)
	w.want(w.do("POST", "/1.0/world/scheduler/x/hosts", map[string]any{}), 404, `schedule "x" does not exist`)
	w.want(w.do("POST", "/1.0/world/scheduler/a%2Fb%20%C3%A9/hosts", map[string]any{"weight": 5000}), 400, "weight 5000: must be 1 to 1000, or 0 for 1")
	w.want(w.do("DELETE", "/1.0/world/scheduler/x?force=perhaps", nil), 400, `Invalid force "perhaps": allowed are true and false`)
	ok(c.JoinWorldSchedule(ctx, name, api.WorldScheduleHost{}))
	follow := func(what string, enough func(*api.WorldSchedule) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := c.WorldSchedule(name).Follow(ctx, func(s *api.WorldSchedule) error {
			if enough(s) {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	follow("a host without the label", func(s *api.WorldSchedule) bool {
		return len(s.Candidates) == 1 && !s.Candidates[0].Chosen && strings.Contains(s.Candidates[0].Reason, "disk")
	})
	ok(c.JoinWorldSchedule(ctx, name, api.WorldScheduleHost{Labels: put.Labels}))
	follow("a host with it", func(s *api.WorldSchedule) bool { return slices.Equal(s.Hosts, []string{"h1"}) && s.Computer == "h1" })
	p, err := other.Join(ctx, name, scheduler.JoinOptions{Facts: scheduler.Facts{Labels: put.Labels}})
	ok(err)
	ok(c.LeaveWorldSchedule(ctx, name, "h1"))
	follow("the next", func(s *api.WorldSchedule) bool {
		return slices.Equal(s.Hosts, []string{"h2"}) && len(s.Candidates) == 1
	})
	w.want(w.do("DELETE", "/1.0/world/scheduler/a%2Fb%20%C3%A9", nil), 409, `schedule "a/b é" is in use, hosts take part: h2 (force deletes it all the same)`)
	w.want(w.do("DELETE", "/1.0/world/scheduler/a%2Fb%20%C3%A9/hosts/h1", nil), 404, `host "h1" does not take part in schedule "a/b é"`)
	all, err := c.WorldSchedules().Get(ctx)
	ok(err)
	if len(all) != 1 || all[0].Name != name || all[0].Spec.Max != 1 {
		t.Errorf("%+v", all)
	}
	ok(p.Withdraw(ctx))
	ok(c.DeleteWorldSchedule(ctx, name, false))
	follow("deleted", func(s *api.WorldSchedule) bool { return s == nil })
}
