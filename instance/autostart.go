package instance

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
)

// Autostart starts what boot.autostart asks for, or what ran before where that key is not set: in parallel, one
// priority after the other, highest first. What was being restarted when the daemon died is started whatever the keys say. An instance that does not start is logged and tried twice more.
func (s *Service) Autostart(ctx context.Context) error {
	groups := map[int][]ref{}
	delays := map[int]time.Duration{}
	for _, item := range s.store.list(api.ProjectName{}) {
		r, err := parseKey(item.Key)
		e := s.entries.get(r)
		if err != nil || e == nil || item.Value.Phase != ready {
			continue
		}
		if status, _ := e.now(); isRunning(status) {
			continue
		}
		x, err := s.expand(r.project, item.Value)
		if err != nil {
			s.log.Error("instance cannot be started", "instance", r.String(), "err", err)
			continue
		}
		auto, set := x.cfg["boot.autostart"], x.cfg["boot.autostart"] != ""
		if item.Value.Intent != wantStart && (set && !config.IsTrue(auto) || !set && item.Value.Config["volatile.last_state.power"] != "RUNNING") {
			continue
		}
		prio, _ := strconv.Atoi(x.cfg["boot.autostart.priority"])
		delay, _ := strconv.Atoi(x.cfg["boot.autostart.delay"])
		groups[prio] = append(groups[prio], r)
		delays[prio] = max(delays[prio], time.Duration(delay)*time.Second)
	}
	prios := make([]int, 0, len(groups))
	for p := range groups {
		prios = append(prios, p)
	}
	slices.Sort(prios)
	for _, p := range slices.Backward(prios) {
		g := new(errgroup.Group)
		g.SetLimit(parallel)
		for _, r := range groups[p] {
			g.Go(func() error { s.autostartOne(ctx, r); return nil })
		}
		_ = g.Wait()
		if !pause(ctx, delays[p]) {
			return ctx.Err()
		}
	}
	return nil
}

// autostartOne tries three times, as long as nobody else decides about the instance: a forced stop ends it, and so does a
// deletion, after which the name may be another instance's.
func (s *Service) autostartOne(ctx context.Context, r ref) {
	meant := s.entries.get(r)
	for try := 1; meant != nil && s.entries.get(r) == meant; try++ {
		err := s.power(ctx, r, api.InstanceStatePut{Action: "start"})
		if err == nil || errors.Is(err, errForced) {
			return
		}
		s.log.Error("Failed to autostart instance", "project", r.project.String(), "instance", r.name.String(), "try", try, "err", err)
		if try == 3 || s.down.Load() || !pause(ctx, 5*time.Second) {
			return
		}
	}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
