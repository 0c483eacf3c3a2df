package kvstore

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

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
