package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// JoinOptions says how a host takes part.
type JoinOptions struct {
	// Spec is what the host takes the schedule to be; nil: whatever it is, DefaultSpec when it is new. While other hosts take part
	// a different one is an error: Configure changes it for all.
	Spec  *Spec
	Facts Facts
	// TTL is how long the host is counted as alive without a sign of life: 0 is DefaultTTL; raised to MinTTL and whole seconds.
	TTL time.Duration
	// ReuseLease keeps the host in its place for TTL after Close or a crash, so that one that comes back in time notices nothing, and
	// nobody else either. Without it Close withdraws at once.
	ReuseLease bool
	// Persist keeps the host in its place until it withdraws, whether it is alive or not.
	Persist bool
	// Drain is how long a withdrawal waits for being replaced; 0: DefaultTTL, negative: not at all.
	Drain time.Duration
}

func (o JoinOptions) check() (JoinOptions, error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < 0 || o.TTL > MaxTTL {
		return o, errs.Invalid("session lifetime %s: must be %s to %s", o.TTL, MinTTL, MaxTTL)
	}
	o.TTL = max(MinTTL, (o.TTL+time.Second-1)/time.Second*time.Second)
	if o.Drain == 0 {
		o.Drain = DefaultTTL
	}
	if o.Persist && o.ReuseLease {
		return o, errs.Invalid("a host that persists has no lease to reuse: choose one of the two")
	}
	if o.Spec != nil {
		if err := o.Spec.Check(); err != nil {
			return o, err
		}
	}
	return o, o.Facts.Check()
}

// Place is a host's part in a schedule. Safe for concurrent use, but Next is called by one goroutine at a time.
//
// While it is open its candidacy is written again whenever it is found missing: after a lost lease, and when somebody removed it.
type Place struct {
	s    *Scheduler
	name string
	opts JoinOptions
	key  string
	pool *kvstore.LeasePool // nil: it persists
	obs  *Observer
	ctx  context.Context // ends when it is closed
	stop context.CancelFunc
	kept chan struct{} // closed when nothing writes the key any more but under mu

	mu   sync.Mutex // over what follows and over writing the key
	cand Candidate
	gone bool // withdrawn or closed
}

// Join has this host take part. Exists when it already does through this scheduler; two processes must not join under one host name.
func (s *Scheduler) Join(ctx context.Context, name string, opts JoinOptions) (*Place, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	opts, err := opts.check()
	if err != nil {
		return nil, err
	}
	p := &Place{s: s, name: name, opts: opts, key: s.keys.host(name, s.d.Host), kept: make(chan struct{}), cand: Candidate{Facts: opts.Facts, Persist: opts.Persist}}
	if err := s.enter(p); err != nil {
		return nil, err
	}
	p.ctx, p.stop = context.WithCancel(s.ctx)
	fail := func(err error) (*Place, error) {
		p.stop()
		s.strike(p)
		return nil, fmt.Errorf("join schedule %q: %w", name, kvstore.Hint(err))
	}
	if err := s.agree(ctx, name, opts.Spec); err != nil {
		return fail(err)
	}
	if p.obs, err = s.Observe(name); err != nil {
		return fail(err)
	}
	if err := p.put(ctx); err != nil {
		p.obs.Close()
		_, lerr := s.leave(context.WithoutCancel(ctx), name, s.d.Host) // it may have happened
		return fail(errors.Join(err, lerr))
	}
	if !s.spawn(p.keep) {
		close(p.kept)
		return nil, errors.Join(errClosed, p.Close(ctx))
	}
	return p, nil
}

// enter puts a place into the books and gives it a pool.
func (s *Scheduler) enter(p *Place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.places[p.name] != nil:
		return errs.Exists("host %q takes part in schedule %q already", s.d.Host, p.name)
	}
	s.places[p.name] = p
	if p.opts.Persist {
		return nil
	}
	if p.pool = s.pools[p.opts.TTL]; p.pool == nil {
		p.pool = s.d.KV.NewPool(kvstore.PoolConfig{TTL: p.opts.TTL})
		s.pools[p.opts.TTL] = p.pool
	}
	return nil
}

func (s *Scheduler) strike(p *Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places[p.name] == p {
		delete(s.places, p.name)
	}
}

// agree sees to it that the schedule has the spec that the host wants.
func (s *Scheduler) agree(ctx context.Context, name string, want *Spec) error {
	spec := DefaultSpec()
	if want != nil {
		spec = *want
	}
	for {
		rev, err := s.Configure(ctx, name, spec, 0)
		if rev > 0 || !errs.Is(err, errs.ExistsClass) {
			return err
		}
		have, err := s.Get(ctx, name)
		switch {
		case errs.Is(err, errs.NotFoundClass):
			continue // deleted meanwhile
		case err != nil:
			return err
		case have.Result.Err != nil:
			return have.Result.Err
		case have.Spec == nil:
			continue
		case want == nil || have.Spec.Equal(spec):
			return nil
		}
		others := slices.ContainsFunc(have.Candidates, func(c Candidate) bool { return c.Host != s.d.Host })
		if others {
			return errs.Conflict("other hosts take part in it as %s with a maximum of %d, which differs from what is asked for: configure the schedule for all of them",
				have.Spec.Strategy, have.Spec.Max)
		}
		if _, err := s.Configure(ctx, name, spec, have.SpecRevision); !errs.Is(err, errs.ConflictClass) {
			return err
		}
	}
}

// put writes the candidacy. Joined is what the store makes of it, so the value does not carry it.
func (p *Place) put(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return errClosed
	}
	_, err := p.write(ctx)
	return err
}

// write is put for who holds p.mu. It returns the revision of the write, or an earlier one when the candidacy was so already.
func (p *Place) write(ctx context.Context) (rev int64, err error) {
	if p.pool == nil {
		_, rev, err = p.s.d.KV.UpdateIfDifferent(ctx, p.key, encode(p.cand), 0)
	} else {
		_, rev, err = p.pool.Put(ctx, p.key, encode(p.cand))
	}
	return rev, err
}

// keep writes the candidacy again when it is missing although the schedule is there.
func (p *Place) keep() {
	defer close(p.kept)
	const first = 50 * time.Millisecond
	back := first
	for {
		missing := func(r Result) bool { return r.Spec != nil && r.joined[p.s.d.Host] == 0 }
		r, err := p.obs.wait(p.ctx, missing)
		if err != nil {
			return
		}
		err = p.put(p.ctx)
		if err == nil { // wait until it shows
			seen := func(n Result) bool { return n.Revision > r.Revision && !missing(n) || n.Spec == nil }
			wctx, cancel := context.WithTimeout(p.ctx, p.opts.TTL)
			_, err = p.obs.wait(wctx, seen)
			cancel()
			back = first
		}
		if p.ctx.Err() != nil {
			return
		}
		if err != nil {
			p.s.d.Log.Debug("take part again", "schedule", p.name, "err", err, "retry", back)
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(back/2 + rand.N(back)):
			}
			back = min(back*2, 5*time.Second)
		}
	}
}

// Next is [Observer.Next]; NotFound when the schedule was deleted.
func (p *Place) Next(ctx context.Context) (Result, error) {
	r, err := p.obs.Next(ctx)
	if err == nil && r.Err == nil && r.Spec == nil {
		err = errDeleted(p.name)
	}
	return r, err
}

// Update changes what the host says about itself.
func (p *Place) Update(ctx context.Context, f Facts) error {
	if err := f.Check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return errClosed
	}
	old := p.cand.Facts
	p.cand.Facts = f
	if _, err := p.write(ctx); err != nil {
		p.cand.Facts = old
		return fmt.Errorf("update schedule %q: %w", p.name, kvstore.Hint(err))
	}
	return nil
}

// Withdraw drains and leaves: the host says that it goes, waits until others have its place (at most Drain, and not when nobody
// computes or everybody else is chosen already), and takes its candidacy back. When it returns nil no result names the host. It may be called again.
// After an error the host still takes part, draining.
func (p *Place) Withdraw(ctx context.Context) error {
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return nil
	}
	p.cand.Draining = true
	rev, err := p.write(ctx)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("withdraw from schedule %q: %w", p.name, kvstore.Hint(err))
	}
	if p.opts.Drain > 0 {
		p.drained(ctx, rev)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("withdraw from schedule %q: %w", p.name, context.Cause(ctx))
	}
	return p.end(ctx, func(ctx context.Context) error {
		_, err := p.s.leave(ctx, p.name, p.s.d.Host)
		return err
	})
}

// drained waits until the host is not chosen any more, as of revision rev, at which it said that it drains, or later.
func (p *Place) drained(ctx context.Context, rev int64) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Drain)
	defer cancel()
	_, err := p.obs.wait(ctx, func(r Result) bool { return r.Revision >= rev && !slices.Contains(r.Hosts, p.s.d.Host) })
	if err != nil {
		p.s.d.Log.Info("withdrawing without having been replaced", "schedule", p.name, "err", err)
	}
}

// Close ends the place: a host that persists stays in it; with ReuseLease it stays for TTL; else it leaves at once, without draining.
// When the store is away that is tried again for as long as the scheduler is open. Closing again does nothing.
func (p *Place) Close(ctx context.Context) error {
	switch {
	case p.opts.Persist:
		return p.end(ctx, func(context.Context) error { return nil })
	case p.opts.ReuseLease:
		return p.end(ctx, p.bequeath)
	}
	return p.end(ctx, func(ctx context.Context) error {
		_, err := p.s.leave(ctx, p.name, p.s.d.Host)
		return err
	})
}

// end stops what keeps the candidacy and does what is to be done with it.
func (p *Place) end(ctx context.Context, do func(context.Context) error) error {
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return nil
	}
	p.gone = true
	p.stop()
	if p.pool != nil {
		p.pool.Give(p.key)
	}
	p.mu.Unlock()
	<-p.kept
	p.obs.Close()
	err := do(ctx)
	if err == nil {
		p.s.strike(p)
		return nil
	}
	if !p.s.spawn(func() { p.retry(do) }) {
		p.s.strike(p)
	}
	return fmt.Errorf("leave schedule %q: %w", p.name, kvstore.Hint(err))
}

// retry does what end could not, while the scheduler is open; until then the host cannot join again.
func (p *Place) retry(do func(context.Context) error) {
	defer p.s.strike(p)
	for back := 100 * time.Millisecond; ; back = min(back*2, 5*time.Second) {
		select {
		case <-p.s.ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)):
		}
		err := do(p.s.ctx)
		if err == nil || errors.Is(err, kvstore.ErrClosed) {
			return
		}
	}
}

// bequeath hangs the candidacy on a lease that nobody renews.
func (p *Place) bequeath(ctx context.Context) error {
	kv, ok, err := p.s.d.KV.Get(ctx, p.key)
	if err != nil || !ok {
		return err
	}
	id, err := p.s.d.KV.Grant(ctx, p.opts.TTL)
	if err != nil {
		return err
	}
	_, _, err = p.s.d.KV.UpdateIfUnchanged(ctx, p.key, kv.ModRevision, kv.Value, id)
	if errors.Is(err, kvstore.ErrNotFound) {
		return nil
	}
	return err
}

// leave takes a host out of a schedule, its candidacy and its place in the result in one transaction, so that the last one leaves
// nothing behind although nobody computes any more. left is false when it did not take part.
func (s *Scheduler) leave(ctx context.Context, name, host string) (left bool, err error) {
	key, result := s.keys.host(name, host), s.keys.result(name)
	for {
		r, err := s.d.KV.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Get(key), kvstore.Get(result)}})
		if err != nil {
			return left, fmt.Errorf("leave schedule %q: %w", name, kvstore.Hint(err))
		}
		cand, res := r.Results[0].KVs, r.Results[1].KVs
		var t kvstore.Txn
		if len(cand) > 0 {
			t.If = append(t.If, kvstore.Unchanged(key, cand[0].ModRevision))
			t.Then = append(t.Then, kvstore.Delete(key))
		}
		if len(res) > 0 {
			if op, named := strike(res[0], host); named {
				t.Then = append(t.Then, op)
			}
			t.If = append(t.If, kvstore.Unchanged(result, res[0].ModRevision))
		} else {
			t.If = append(t.If, kvstore.Missing(result))
		}
		if len(t.Then) == 0 {
			return left, nil
		}
		r, err = s.d.KV.Txn(ctx, t)
		if err != nil {
			return left, fmt.Errorf("leave schedule %q: %w", name, kvstore.Hint(err))
		}
		if r.Succeeded {
			return true, nil
		}
	}
}

// strike returns what makes of a result one without host; named is false when it does not name it or cannot be read.
func strike(kv kvstore.KeyValue, host string) (op kvstore.Op, named bool) {
	s, err := decode[stored](kv)
	if err != nil || !slices.Contains(s.Hosts, host) {
		return op, false
	}
	s.Hosts = slices.DeleteFunc(s.Hosts, func(h string) bool { return h == host })
	if len(s.Hosts) == 0 {
		return kvstore.Delete(kv.Key), true
	}
	s.Computer = host
	return kvstore.Put(kv.Key, encode(s)), true
}
