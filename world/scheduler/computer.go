package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Run stands by to compute and does while this scheduler is the one that is elected, until ctx ends; then it is nil. Errors of the store are
// retried. Whoever runs it need not take part in any schedule.
func (s *Scheduler) Run(ctx context.Context) error {
	const first = 100 * time.Millisecond
	back := first
	for {
		began := time.Now()
		err := s.term(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, kvstore.ErrClosed) {
			return fmt.Errorf("compute schedules: %w", err)
		}
		if time.Since(began) > time.Minute {
			back = first
		}
		s.d.Log.Warn("computing schedules was interrupted", "err", err, "retry", back)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(back/2 + rand.N(back)):
		}
		back = min(back*2, 5*time.Second)
	}
}

// term is one time in office.
func (s *Scheduler) term(ctx context.Context) error {
	lock, err := s.d.KV.Lock(ctx, s.keys.computer(), s.d.LockTTL)
	if err != nil {
		return err
	}
	defer func() {
		uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := lock.Unlock(uctx); err != nil {
			s.d.Log.Debug("give up computing schedules", "err", err) // it goes with its lease
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-lock.Done():
			cancel(kvstore.ErrLockLost)
		case <-ctx.Done():
		}
	}()
	s.d.Log.Info("computing the schedules of the cluster", "fence", lock.Fence())
	c := &computer{s: s, lock: lock, board: newBoard(s.keys), dirty: map[string]bool{}, warned: map[string]string{}}
	return s.d.KV.NewWatcher(s.keys.all()).Run(ctx, func(b kvstore.Batch) error { return c.take(ctx, b) })
}

// computer is the work of one term.
type computer struct {
	s      *Scheduler
	lock   *kvstore.Lock
	board  *board
	dirty  map[string]bool   // schedules that changed
	warned map[string]string // by schedule, what was reported as unreadable
}

// take takes in what happened and computes what may differ for it.
func (c *computer) take(ctx context.Context, b kvstore.Batch) error {
	if b.Reset {
		c.board = newBoard(c.s.keys)
		clear(c.dirty)
	}
	for _, e := range b.Events {
		if name := c.board.apply(e); name != "" {
			c.dirty[name] = true
		}
	}
	if b.Revision == 0 {
		return nil // the list is not complete
	}
	for _, name := range slices.Sorted(maps.Keys(c.dirty)) {
		if err := c.compute(ctx, name, b.Revision); err != nil {
			return fmt.Errorf("schedule %q: %w", name, err)
		}
		delete(c.dirty, name)
	}
	return nil
}

// decide is what the result of a schedule should be.
func (c *computer) decide(name string, e *entry) []string {
	if e.spec == nil {
		return nil
	}
	in := Input{Schedule: name, Spec: *e.spec, Candidates: e.candidates(), Previous: e.current()}
	if e.spec.Strategy == LeastLoaded {
		in.Places = c.board.places(name)
	}
	return Choose(in)
}

// compute writes a schedule's result unless it is as it should be. The transaction holds while the lock does and neither spec nor result
// are other than what was looked at; when they are, the watch will say so and it is computed again.
func (c *computer) compute(ctx context.Context, name string, rev int64) error {
	e := c.board.get(name)
	if err := e.unusable(c.s.keys, name); err != nil {
		if c.warned[name] != err.Error() {
			c.warned[name] = err.Error()
			c.s.d.Log.Warn("a schedule is left as it is", "schedule", name, "err", err)
		}
		return nil
	}
	hosts := c.decide(name, e)
	if e.resultRev == 0 && len(hosts) == 0 {
		return nil
	}
	if e.result != nil && len(hosts) > 0 && slices.Equal(hosts, e.result.Hosts) && slices.Equal(hosts, e.current()) {
		return nil
	}
	key := c.s.keys.result(name)
	next := stored{Hosts: hosts, Inputs: rev, Computer: c.s.d.Host, Fence: c.lock.Fence()}
	op := kvstore.Delete(key)
	if len(hosts) > 0 {
		op = kvstore.Put(key, encode(next))
	}
	r, err := c.s.d.KV.Txn(ctx, kvstore.Txn{
		If:   []kvstore.Compare{c.lock.Held(), kvstore.Unchanged(c.s.keys.spec(name), e.specRev), kvstore.Unchanged(key, e.resultRev)},
		Then: []kvstore.Op{op},
		Else: []kvstore.Op{kvstore.Get(c.lock.Held().Key)},
	})
	switch {
	case err != nil:
		return err
	case !r.Succeeded && len(r.Results[0].KVs) == 0:
		return kvstore.ErrLockLost
	case !r.Succeeded:
		return nil
	}
	c.s.d.Log.Info("chose hosts", "schedule", name, "hosts", hosts, "revision", r.Revision)
	if e = c.board.at[name]; e == nil {
		return nil
	}
	e.result, e.resultRev = &next, r.Revision
	if len(hosts) == 0 {
		e.result, e.resultRev = nil, 0
	}
	return nil
}

// unusable says why nothing is computed: the spec cannot be read, or a newer program wrote the result. A result that is broken otherwise
// is written anew.
func (e *entry) unusable(k keys, name string) error {
	if err := e.broken[k.spec(name)]; err != nil {
		return err
	}
	if err := e.broken[k.result(name)]; errs.Is(err, errs.UnsupportedClass) {
		return err
	}
	return nil
}
