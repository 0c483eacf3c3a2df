package instance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
)

// hostShutdownTimeout is what boot.host_shutdown_timeout says when it is not set.
const hostShutdownTimeout = 30 * time.Second

// StopAll stops every instance because the host goes down: those of the highest boot.stop.priority first, all of one
// priority at the same time, each cleanly for as long as its boot.host_shutdown_timeout allows and then by force. Nothing is
// started any more. What ran counts as running afterwards, so the next start of the daemon brings it back as
// boot.autostart says. The error joins those that could not be stopped.
func (s *Service) StopAll(ctx context.Context) error {
	s.down.Store(true)
	type one struct {
		e       *entry
		timeout time.Duration
	}
	groups := map[int][]one{}
	for _, item := range s.store.list(api.ProjectName{}) {
		r, err := parseKey(item.Key)
		e := s.entries.get(r)
		if err != nil || e == nil {
			continue
		}
		if status, _ := e.now(); !isRunning(status) {
			continue
		}
		prio, timeout := 0, hostShutdownTimeout
		if x, err := s.expand(r.project, item.Value); err == nil {
			prio, _ = strconv.Atoi(x.cfg["boot.stop.priority"])
			if n, err := strconv.Atoi(x.cfg["boot.host_shutdown_timeout"]); err == nil {
				timeout = time.Duration(n) * time.Second
			}
		}
		groups[prio] = append(groups[prio], one{e, timeout})
	}
	var mu sync.Mutex
	var problems []error
	for _, prio := range slices.Backward(slices.Sorted(maps.Keys(groups))) {
		g := new(errgroup.Group) // without a limit: those who wait for guests need nothing of ours
		for _, o := range groups[prio] {
			g.Go(func() error {
				if err := s.stopForHost(ctx, o.e, o.timeout); err != nil {
					mu.Lock()
					defer mu.Unlock()
					problems = append(problems, err)
				}
				return nil
			})
		}
		_ = g.Wait()
	}
	return errors.Join(problems...)
}

func (s *Service) stopForHost(ctx context.Context, e *entry, timeout time.Duration) error {
	if err := s.intend(ctx, e, wantBack); err != nil {
		s.log.Warn("a stop for the host's end could not be written down", "instance", e.name().String(), "err", err)
	}
	if timeout > 0 {
		err := e.exclusive(ctx, actStop, func(ctx context.Context) error { return s.stop(ctx, e, false, timeout) })
		if status, _ := e.now(); err == nil || !isRunning(status) {
			s.event(ctx, e.name(), "instance-shutdown", nil)
			return nil
		}
		s.log.Warn("instance is stopped by force", "instance", e.name().String(), "err", err)
	}
	err := e.forced(ctx, func() error { return s.kill(ctx, e) }, func(ctx context.Context) error { return s.stop(ctx, e, true, 0) })
	if err == nil {
		s.event(ctx, e.name(), "instance-stopped", nil)
	}
	return err
}
