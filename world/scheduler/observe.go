package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/watch"
)

// Result is who is chosen, as of one revision of the store. Everybody who has the result of a revision has the same.
type Result struct {
	Schedule string
	Hosts    []string // chosen and alive, in the order of the strategy; never nil
	Revision int64    // of the store, up to which everything was looked at
	Written  int64    // revision at which the choice was recorded; 0: nothing was computed
	Spec     *Spec    // nil: the schedule does not exist, or cannot be read (then Err says why)
	Err      error

	keys   keys
	joined map[string]int64 // of the candidates
}

func (e *entry) view(k keys, name string, rev int64) Result {
	r := Result{Schedule: name, Hosts: e.chosen(), Revision: rev, Written: e.resultRev, Spec: e.spec, Err: e.unusable(k, name), keys: k, joined: map[string]int64{}}
	for h, c := range e.hosts {
		r.joined[h] = c.Joined
	}
	return r
}

// Held holds while host is chosen by this very result and has not been lost since: whoever acts because he was chosen puts it into the
// transaction that records what he did. ok is false when host is not among Hosts.
func (r Result) Held(host string) (held []kvstore.Compare, ok bool) {
	if !slices.Contains(r.Hosts, host) {
		return nil, false
	}
	return []kvstore.Compare{
		kvstore.Unchanged(r.keys.result(r.Schedule), r.Written),
		{Key: r.keys.host(r.Schedule, host), Target: kvstore.TargetCreate, Equal: r.joined[host]},
	}, true
}

func (r Result) same(o Result) bool {
	return slices.Equal(r.Hosts, o.Hosts) && (r.Spec == nil) == (o.Spec == nil) && (r.Err == nil) == (o.Err == nil)
}

// Observer follows the result of a schedule without taking part.
type Observer struct {
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	latest  *Result
	err     error
	changed chan struct{} // closed and replaced with each new latest or err

	last *Result // that Next returned
}

// Observe begins to follow. The schedule need not exist. Close it, or the scheduler does.
func (s *Scheduler) Observe(name string) (*Observer, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	o := &Observer{stop: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	if !s.spawn(func() { defer close(o.done); s.follow(ctx, name, o) }) {
		cancel()
		return nil, errClosed
	}
	return o, nil
}

// follow publishes what a watch of the schedule shows, batch by batch: a batch ends with whole revisions.
func (s *Scheduler) follow(ctx context.Context, name string, o *Observer) {
	b := newBoard(s.keys)
	var rev int64
	err := s.d.KV.NewWatcher(s.keys.schedule(name)).Run(ctx, func(batch kvstore.Batch) error {
		if batch.Reset {
			b = newBoard(s.keys)
		}
		for _, e := range batch.Events {
			b.apply(e)
		}
		if batch.Revision > 0 {
			rev = batch.Revision
			r := b.get(name).view(s.keys, name, rev)
			o.publish(&r, nil)
		}
		return nil
	})
	if ctx.Err() != nil && !errors.Is(err, kvstore.ErrClosed) {
		err = errClosed
	}
	o.publish(nil, fmt.Errorf("observe schedule %q: %w", name, err))
}

func (o *Observer) publish(r *Result, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r != nil {
		o.latest = r
	}
	o.err = err
	close(o.changed)
	o.changed = make(chan struct{})
}

// wait returns the first result that is as wanted, from the latest on.
func (o *Observer) wait(ctx context.Context, want func(Result) bool) (Result, error) {
	for {
		o.mu.Lock()
		latest, err, changed := o.latest, o.err, o.changed
		o.mu.Unlock()
		switch {
		case err != nil:
			return Result{}, err
		case latest != nil && want(*latest):
			return *latest, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Result{}, context.Cause(ctx)
		}
	}
}

// Next returns the result as it is at the first call and then waits for another: other hosts, or that the schedule appeared, vanished or
// became unreadable. What came and went between two calls is not reported. While the store is away it waits. It is called by one
// goroutine at a time; it fails with ctx, or when the observer, scheduler or client is closed.
func (o *Observer) Next(ctx context.Context) (Result, error) {
	r, err := o.wait(ctx, func(r Result) bool { return o.last == nil || !o.last.same(r) })
	if err == nil {
		o.last = &r
	}
	return r, err
}

// Close ends the observation.
func (o *Observer) Close() {
	o.stop()
	<-o.done
}

// errDeleted ends a place whose schedule was deleted.
func errDeleted(name string) error { return errs.NotFound("schedule %q was deleted", name) }

// Watch says when anything about a schedule may have changed, for who reads it with [Scheduler.Get].
func (s *Scheduler) Watch(ctx context.Context, name string) (*watch.Watch, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return watch.New(ctx, watch.Own(s.d.KV), watch.Prefix(s.keys.schedule(name)))
}

// WatchAll says when anything about any schedule may have changed, for who reads them with [Scheduler.List].
func (s *Scheduler) WatchAll(ctx context.Context) (*watch.Watch, error) {
	return watch.New(ctx, watch.Own(s.d.KV), watch.Prefix(s.keys.all()))
}
