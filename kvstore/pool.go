package kvstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// PoolConfig configures a LeasePool.
type PoolConfig struct {
	TTL time.Duration // of each lease; must be set
	// MaxKeys is how many keys hang on one lease; 0 means 1000. Writing and expiring a lease's keys costs the store more the more there are.
	MaxKeys int
	// Batch is how many keys one transaction re-creates; 0 means 100.
	Batch int
	// KeepEmpty has a lease without keys stay. Who writes keys beside the pool, from several goroutines, needs it: a write under way
	// may hang its key on a lease after the key was given back.
	KeepEmpty bool
}

// LeasePool keeps keys of this process alive on as few leases as MaxKeys allows. Safe for concurrent use.
//
// A key that was put is wanted until it is removed: when its lease is lost (the store was away for longer than TTL, or somebody
// revoked it) the pool writes it again under a new lease with the value of the last successful put, in batches, unless
// somebody else has written the key since. A lease that turns out to be dead is given up at the first write that it refuses, and
// the write is repeated under another. An empty lease is given back, but for one.
//
// After a crash of the process the keys live until their leases run out.
type LeasePool struct {
	c   *Client
	cfg PoolConfig

	mu      sync.Mutex
	leases  map[*pooled]struct{}
	keys    map[string]*leasedKey
	current *pooled
	growing chan struct{} // closed when the lease that is being granted is there, or is not
	watch   []*observer
	closed  bool
	ctx     context.Context // ends with the pool or the client
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of what waits for the end of a lease, or follows from it
}

type pooled struct {
	lease *Lease
	keys  []*leasedKey // in no order; each knows its place
}

type leasedKey struct {
	key    string
	in     *pooled
	at     int32  // its place among the keys of in
	wanted bool   // was put, and so is put again
	given  bool   // back
	value  []byte // of the write at rev
	rev    int64
}

// add accounts k to l. The caller holds p.mu.
func (l *pooled) add(k *leasedKey) {
	k.in, k.at = l, int32(len(l.keys))
	l.keys = append(l.keys, k)
}

// leave takes k off its lease, if it has one. The caller holds p.mu.
func (k *leasedKey) leave() {
	l := k.in
	if l == nil {
		return
	}
	end := len(l.keys) - 1
	l.keys[k.at], l.keys[end].at = l.keys[end], k.at
	l.keys[end] = nil
	l.keys, k.in = l.keys[:end], nil
}

type observer struct {
	prefix string
	f      func(keys []string)
}

// NewPool returns a pool. It lives until it or the client is closed.
func (c *Client) NewPool(cfg PoolConfig) *LeasePool {
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = 1000
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 100
	}
	cfg.Batch = min(cfg.Batch, MaxTxnOps)
	p := &LeasePool{c: c, cfg: cfg, leases: map[*pooled]struct{}{}, keys: map[string]*leasedKey{}}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	return p
}

// Stats says how many leases there are and how many keys hang on them.
func (p *LeasePool) Stats() (leases, keys int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.leases), len(p.keys)
}

// Observe has f called with the keys under prefix whose lease was lost, before any is written again. Calls come one at a time per lost
// lease, from a goroutine of the pool; several observers may see one key. The returned function ends it.
func (p *LeasePool) Observe(prefix string, f func(keys []string)) (stop func()) {
	o := &observer{prefix, f}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = append(slices.Clip(p.watch), o)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watch = slices.DeleteFunc(slices.Clone(p.watch), func(x *observer) bool { return x == o })
	}
}

// Take accounts key to a lease and returns it, always the same one until it is lost or the key given back. The pool does not write
// the key; whoever takes and does not write, or deletes, gives it back. What is taken and never put through the pool may go by any name.
func (p *LeasePool) Take(ctx context.Context, key string) (*Lease, error) {
	_, in, err := p.take(ctx, key)
	if err != nil {
		return nil, err
	}
	return in.lease, nil
}

func (p *LeasePool) take(ctx context.Context, key string) (*leasedKey, *pooled, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, nil, ErrClosed
		}
		if k, in := p.account(key); in != nil {
			p.mu.Unlock()
			return k, in, nil
		}
		wait := p.growing
		if wait == nil {
			wait = make(chan struct{})
			p.growing = wait
			p.mu.Unlock()
			if err := p.grow(ctx, wait); err != nil {
				return nil, nil, err
			}
			continue
		}
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-p.ctx.Done():
			return nil, nil, ErrClosed
		}
	}
}

// room returns a lease that takes one more key. The caller holds p.mu.
func (p *LeasePool) room() *pooled {
	if l := p.current; l != nil && len(l.keys) < p.cfg.MaxKeys {
		return l
	}
	for l := range p.leases {
		if len(l.keys) < p.cfg.MaxKeys {
			p.current = l
			return l
		}
	}
	return nil
}

// grow grants one more lease. It is in the books before anybody waits for its loss: a lease that is lost at once
// would otherwise be entered after it was struck out, and stay for ever.
func (p *LeasePool) grow(ctx context.Context, done chan struct{}) error {
	l, err := p.c.NewLease(Urgent(ctx), p.cfg.TTL)
	p.mu.Lock()
	p.growing = nil
	close(done)
	if err == nil && p.closed {
		err = ErrClosed
	}
	if err != nil {
		p.mu.Unlock()
		if l != nil {
			l.Release()
		}
		return err
	}
	n := &pooled{lease: l}
	p.leases[n] = struct{}{}
	p.current = n
	ok := p.spawn(func() {
		select {
		case <-l.Lost():
			p.lost(n)
		case <-l.done:
			select {
			case <-l.Lost():
				p.lost(n)
			default: // given back
			}
		}
	})
	p.mu.Unlock()
	if !ok {
		return ErrClosed
	}
	return nil
}

// Give gives a key back: it is not wanted any more and makes room on its lease.
func (p *LeasePool) Give(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(key)
}

// give is Give for who holds p.mu.
func (p *LeasePool) give(key string) {
	k := p.keys[key]
	if k == nil {
		return
	}
	delete(p.keys, key)
	l := k.in
	k.leave()
	k.wanted, k.given = false, true
	if l == nil || len(l.keys) > 0 || len(p.leases) <= 1 || p.cfg.KeepEmpty || p.closed {
		return
	}
	delete(p.leases, l)
	if p.current == l {
		p.current = nil
	}
	p.spawn(func() {
		if err := l.lease.Close(p.ctx); err != nil {
			p.c.cfg.Log.Debug("give back a lease", "err", err) // it runs out by itself
		}
	})
}

// Put writes key under a lease of the pool and keeps it there. After an error the key is wanted as it was before the call; one of class
// Unavailable leaves open whether it was written. Of concurrent puts of a key the one with the larger revision is remembered.
func (p *LeasePool) Put(ctx context.Context, key string, value []byte, held ...Compare) (changed bool, rev int64, err error) {
	for {
		k, in, err := p.take(ctx, key)
		if err != nil {
			return false, 0, fmt.Errorf("put %s: %w", key, err)
		}
		changed, rev, err = p.c.Update(ctx, key, value, in.lease.ID(), held...)
		if errors.Is(err, ErrLeaseExpired) {
			p.lost(in)
			continue
		}
		p.mu.Lock()
		switch {
		case err == nil && rev > k.rev:
			k.value, k.rev, k.wanted = slices.Clone(value), rev, true
		case err != nil && !k.wanted && k.rev == 0 && !errors.Is(err, ErrNoQuorum):
			p.mu.Unlock()
			p.Give(key)
			return changed, rev, err
		}
		moved := err == nil && k.in != in && !k.given && !p.closed // the lease was lost while the write was under way
		if moved && p.keys[key] == nil {
			p.keys[key] = k
		}
		if moved {
			p.spawn(func() { p.restore([]*leasedKey{k}) })
		}
		p.mu.Unlock()
		return changed, rev, err
	}
}

// Remove deletes key and gives it back; after an error it is not wanted any more all the same.
func (p *LeasePool) Remove(ctx context.Context, key string, held ...Compare) (changed bool, rev int64, err error) {
	p.Give(key)
	return p.c.Remove(ctx, key, held...)
}
