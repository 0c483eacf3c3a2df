package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// lost strikes a lease out, tells the observers and writes what is wanted under another. Only the first call for a lease does something.
func (p *LeasePool) lost(l *pooled) {
	p.mu.Lock()
	if _, ok := p.leases[l]; !ok || p.closed || p.c.ctx.Err() != nil {
		p.mu.Unlock()
		return
	}
	l.lease.markLost()
	p.c.m.leaseLost()
	delete(p.leases, l)
	if p.current == l {
		p.current = nil
	}
	var names []string
	var again []*leasedKey
	for _, k := range l.keys {
		names = append(names, k.key)
		k.in = nil
		if k.wanted {
			again = append(again, k)
		} else {
			delete(p.keys, k.key)
		}
	}
	l.keys = nil
	watch := p.watch
	slices.Sort(names)
	slices.SortFunc(again, func(a, b *leasedKey) int { return strings.Compare(a.key, b.key) })
	p.spawn(func() {
		p.c.cfg.Log.Warn("a lease was lost", "keys", len(names), "again", len(again))
		l.lease.Release() // it may have been lost in a write; then it is still being renewed
		for _, o := range watch {
			var mine []string
			for _, n := range names {
				if strings.HasPrefix(n, o.prefix) {
					mine = append(mine, n)
				}
			}
			if len(mine) > 0 {
				o.f(mine)
			}
		}
		for batch := range slices.Chunk(again, p.cfg.Batch) {
			p.restore(batch)
		}
	})
	p.mu.Unlock()
}

// restore writes keys again until they are there, are not wanted any more, or the client ends.
func (p *LeasePool) restore(keys []*leasedKey) {
	const first = 10 * time.Millisecond
	guess := make(map[*leasedKey]int64, len(keys))
	for back := first; len(keys) > 0; back = min(back*2, 5*time.Second) {
		left, err := p.restoreOnce(keys, guess)
		if err == nil && len(left) == 0 {
			return
		}
		keys = left
		if err == nil {
			continue // what was read in vain says what to compare with now
		}
		p.c.cfg.Log.Debug("write leased keys again", "keys", len(keys), "err", err, "retry", back)
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)): // all nodes lose their leases at the same time
		}
	}
}

// restoreOnce writes keys in one transaction that holds when each is as guess says, or is missing where it says nothing. When it does not
// hold, guess says afterwards how the keys are; keys that somebody else has written are given back. It returns what is left to do.
func (p *LeasePool) restoreOnce(keys []*leasedKey, guess map[*leasedKey]int64) ([]*leasedKey, error) {
	var t Txn
	var doing []*leasedKey
	var on []*pooled
	for _, k := range keys {
		p.mu.Lock()
		wanted := p.keys[k.key] == k && k.wanted && !p.closed
		value := k.value
		p.mu.Unlock()
		if !wanted {
			continue
		}
		_, in, err := p.take(p.ctx, k.key)
		if err != nil {
			return keys, err
		}
		doing, on = append(doing, k), append(on, in)
		t.If = append(t.If, Unchanged(k.key, guess[k]))
		t.Then = append(t.Then, Op{Type: OpPut, Key: k.key, Value: value, Lease: in.lease.ID()})
		t.Else = append(t.Else, Get(k.key))
	}
	if len(doing) == 0 {
		return nil, nil
	}
	r, err := p.c.Txn(Urgent(p.ctx), t)
	if errors.Is(err, ErrLeaseExpired) {
		for _, l := range on {
			ctx, cancel := p.c.timeout(p.ctx)
			if _, kerr := p.c.KeepAlive(ctx, l.lease.ID()); errors.Is(kerr, ErrLeaseExpired) {
				p.lost(l)
			}
			cancel()
		}
		return doing, err
	}
	if err != nil {
		return doing, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Succeeded {
		for _, k := range doing {
			k.rev = max(k.rev, r.Revision)
		}
		return nil, nil
	}
	return p.guess(doing, guess, r), nil
}

// guess notes how the keys are that a transaction found different. The caller holds p.mu.
func (p *LeasePool) guess(doing []*leasedKey, guess map[*leasedKey]int64, r TxnResult) (left []*leasedKey) {
	for i, k := range doing {
		found := r.Results[i].KVs
		switch {
		case len(found) == 0:
			guess[k] = 0
		case k.in != nil && found[0].Lease == k.in.lease.ID():
			k.rev = max(k.rev, found[0].ModRevision) // by a put meanwhile, or by a try whose answer was lost
			continue
		case found[0].ModRevision > k.rev:
			p.c.cfg.Log.Warn("a leased key was taken by somebody else", "key", k.key)
			k.leave()
			delete(p.keys, k.key)
			continue
		default: // the old lease has not run out in the store
			guess[k] = found[0].ModRevision
		}
		left = append(left, k)
	}
	return left
}
