package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// locks is what a client's locks share: the queues of this process, a pool of leases per ttl, and unique names.
type locks struct {
	c    *Client
	id   uint64 // of this client, in the names of its keys
	seq  atomic.Uint32
	mu   sync.Mutex
	pool map[time.Duration]*LeasePool
	turn map[string]*turns
	held map[string]*Lock // by key, to tell a local queue that a lease was lost

	vigils map[string]*vigil // by path
}

// turns is the queue of this process for one path. Whoever has the turn has it until he passes it on.
type turns struct{ waiting []chan struct{} }

func (s *locks) init(c *Client) {
	s.c, s.id = c, rand.Uint64()
	s.pool, s.turn, s.held = map[time.Duration]*LeasePool{}, map[string]*turns{}, map[string]*Lock{}
	s.vigils = map[string]*vigil{}
}

// leases returns the pool of locks with this ttl.
func (s *locks) leases(ttl time.Duration) *LeasePool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pool[ttl]
	if p == nil {
		p = s.c.NewPool(PoolConfig{TTL: ttl})
		p.Observe("", s.lost)
		s.pool[ttl] = p
	}
	return p
}

// lost passes the turns on of locks whose lease is gone: their holders may never call Unlock.
func (s *locks) lost(keys []string) {
	for _, k := range keys {
		s.mu.Lock()
		l := s.held[k]
		s.mu.Unlock()
		if l != nil {
			l.pass()
		}
	}
}

// await waits for the turn of this process at path, in the order of the calls.
func (s *locks) await(ctx context.Context, path string) error {
	s.mu.Lock()
	q := s.turn[path]
	if q == nil {
		s.turn[path] = &turns{}
		s.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	q.waiting = append(q.waiting, mine)
	s.mu.Unlock()
	var err error
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.c.ctx.Done():
		err = ErrClosed
	}
	s.mu.Lock()
	for i, w := range q.waiting {
		if w == mine {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	s.next(path) // the turn came at the last moment
	return err
}

// next passes the turn at path on.
func (s *locks) next(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.turn[path]
	if q == nil {
		return
	}
	if len(q.waiting) == 0 {
		delete(s.turn, path)
		return
	}
	close(q.waiting[0])
	q.waiting = q.waiting[1:]
}

// Lock is a lock that this process holds.
type Lock struct {
	s      *locks
	pool   *LeasePool
	lease  *Lease
	path   string
	key    string
	rev    int64
	passed sync.Once
	once   sync.Once
	err    error
}

// Lock waits until it holds the lock named path; waiters get it in the order in which they came, those of one process one
// after the other. Two locks of one process exclude each other like those of two; lock a and lock a/b are different ones.
//
// The locks of a client share leases of ttl. A lock is lost when its lease cannot be renewed for ttl (see Done), so whoever acts under it
// puts Held into the transaction that records the effect. An error of ctx leaves no waiter behind; where the store cannot be asked
// to delete it, that is done later or its lease runs out.
func (c *Client) Lock(ctx context.Context, path string, ttl time.Duration) (*Lock, error) {
	s := &c.locks
	if err := s.await(ctx, path); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	l := &Lock{s: s, pool: s.leases(ttl), path: path, key: fmt.Sprintf("%s/%016x-%08x", path, s.id, s.seq.Add(1))}
	if err := l.acquire(Urgent(ctx)); err != nil {
		uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), l.Unlock(uctx))
	}
	return l, nil
}

// acquire puts a key into the queue and waits until none before it is left. While the store is away it keeps its place and asks again, until
// ctx ends or the lease is lost.
func (l *Lock) acquire(ctx context.Context) error {
	w := l.s.attend(l.path, l.key)
	defer func() { w.leave() }()
	queue, err := l.enqueue(ctx)
	if err != nil {
		return err
	}
	for {
		before, own := l.before(queue)
		switch {
		case !own:
			return ErrLockLost
		case len(before) == 0:
			return nil
		case len(before) > crowd:
			err = l.waitGone(ctx, last(queue, before))
		case w != nil:
			if err = w.wait(ctx, l.lease.Lost(), before); !errors.Is(err, errVigil) {
				return l.whyGone(err)
			}
			w.leave()
			w, err = nil, nil
		default:
			w, err = l.s.watch(ctx, l.path, l.key)
		}
		if queue, err = l.look(ctx, err); err != nil {
			return err
		}
	}
}

// look reads the queue after a wait that ended with why, nil or not, again and again while the store is away.
func (l *Lock) look(ctx context.Context, why error) ([]KeyValue, error) {
	if errors.Is(why, ErrCompacted) || errors.Is(why, errStale) {
		why = nil // the queue says what the watch did not
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if why != nil {
			if err := l.pause(ctx, why, wait); err != nil {
				return nil, err
			}
		}
		var r TxnResult
		if r, why = l.s.c.Txn(ctx, Txn{Then: []Op{l.queue()}}); why == nil {
			return r.Results[0].KVs, nil
		}
	}
}

// pause waits a while when the store is away for now, and otherwise returns why there is nothing to wait for.
func (l *Lock) pause(ctx context.Context, why error, d time.Duration) error {
	switch {
	case !errs.Is(why, errs.UnavailableClass), errors.Is(why, ErrClosed):
		return l.whyGone(why)
	case ctx.Err() != nil:
		return l.whyGone(fmt.Errorf("%w: %w", ctx.Err(), why))
	}
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-l.lease.Lost():
		return l.whyGone(why)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), why)
	case <-t.C:
		return nil
	}
}

// last returns the key that was queued last of those with the names.
func last(queue []KeyValue, names []string) (best KeyValue) {
	for _, kv := range queue {
		if slices.Contains(names, kv.Key) && kv.CreateRevision > best.CreateRevision {
			best = kv
		}
	}
	return best
}

func (l *Lock) queue() Op {
	return Op{Type: OpGet, Key: l.path + "/", End: PrefixEnd(l.path + "/")}
}

// enqueue creates the key and returns the queue as it is then.
func (l *Lock) enqueue(ctx context.Context) ([]KeyValue, error) {
	c := l.s.c
	for {
		_, in, err := l.pool.take(ctx, l.key)
		if err != nil {
			return nil, err
		}
		l.lease = in.lease
		r, err := c.Txn(ctx, Txn{
			If:   []Compare{Missing(l.key)},
			Then: []Op{{Type: OpPut, Key: l.key, Value: []byte(c.cfg.Name), Lease: l.lease.ID()}, l.queue()},
		})
		switch {
		case errors.Is(err, ErrLeaseExpired):
			l.pool.lost(in)
			continue // the lease had run out without our knowledge; nothing is lost yet
		case err != nil:
			return nil, err
		case !r.Succeeded:
			return nil, ErrLockLost // somebody writes keys of this form
		}
		l.rev = r.Revision
		l.s.mu.Lock()
		l.s.held[l.key] = l
		l.s.mu.Unlock()
		select {
		case <-l.lease.Lost(): // before it was entered: nobody will pass the turn on
			return nil, ErrLockLost
		default:
			return r.Results[1].KVs, nil
		}
	}
}

// waitGone waits until the key is deleted. The watch stands before the key is looked at once more; it begins "now" and not at a
// revision, because etcd serves a watch that begins in the past, be it by one revision, only every 100 ms.
func (l *Lock) waitGone(ctx context.Context, kv KeyValue) error {
	c := l.s.c
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !c.spawn(func() {
		select {
		case <-l.lease.Lost():
			cancel()
		case <-ctx.Done():
		}
	}) {
		return ErrClosed
	}
	s := c.Watch(ctx, kv.Key, 0)
	if _, err := s.Next(); err != nil {
		return l.whyGone(err)
	}
	now, ok, err := c.Get(ctx, kv.Key)
	if err != nil || !ok || now.CreateRevision != kv.CreateRevision {
		return l.whyGone(err)
	}
	for {
		r, err := s.Next()
		if err != nil {
			if errors.Is(err, ErrCompacted) {
				return nil // look again
			}
			return l.whyGone(err)
		}
		for _, e := range r.Events {
			if e.Type == Deleted && e.KV.Key == kv.Key {
				return nil
			}
		}
	}
}

// whyGone names the loss of the lease where it is why a wait ended.
func (l *Lock) whyGone(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-l.lease.Lost():
		if l.s.c.ctx.Err() != nil {
			return ErrClosed
		}
		return fmt.Errorf("%w: %w", ErrLockLost, err)
	default:
		return err
	}
}

// Held holds while this lock is held: put it into the transaction that records what was done under the lock.
func (l *Lock) Held() Compare { return Compare{Key: l.key, Target: TargetCreate, Equal: l.rev} }

// Fence is a number that is larger for each later holder of the same lock.
func (l *Lock) Fence() int64 { return l.rev }

// Done is closed when the lock may have gone to somebody else. It may close late (a process that was stopped): see Held.
func (l *Lock) Done() <-chan struct{} { return l.lease.Lost() }

// pass gives the turn to the next one of this process.
func (l *Lock) pass() { l.passed.Do(func() { l.s.next(l.path) }) }

// Unlock gives the lock up; calling it again returns the same. After an error the key is deleted as soon as the store answers; at
// the latest it goes when its time is up.
func (l *Lock) Unlock(ctx context.Context) error {
	l.once.Do(func() {
		if l.lease == nil { // it was never queued
			l.pass()
			return
		}
		_, _, err := l.s.c.Remove(Urgent(ctx), l.key)
		l.pass()
		if err == nil {
			l.forget()
			return
		}
		l.err = fmt.Errorf("unlock %s: %w", l.key, err)
		l.s.c.spawn(l.retry)
	})
	return l.err
}

func (l *Lock) forget() {
	l.s.mu.Lock()
	delete(l.s.held, l.key)
	l.s.mu.Unlock()
	l.pool.Give(l.key)
}

// retry deletes the key that Unlock could not delete.
func (l *Lock) retry() {
	defer l.forget()
	ctx := Urgent(l.s.c.ctx)
	for back := 20 * time.Millisecond; ; back = min(back*2, 5*time.Second) {
		select {
		case <-l.lease.Lost():
			return
		case <-ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)):
		}
		if _, _, err := l.s.c.Remove(ctx, l.key); err == nil {
			return
		}
	}
}
