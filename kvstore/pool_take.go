package kvstore

import (
	"context"
	"errors"
	"slices"
)

// TakeAll is [LeasePool.Take] for many keys at once; the answers are in their order. After an error those that were accounted before it
// stay so.
func (p *LeasePool) TakeAll(ctx context.Context, keys []string) ([]LeaseID, error) {
	out := make([]LeaseID, len(keys))
	for at := 0; at < len(keys); {
		p.mu.Lock()
		for at < len(keys) {
			_, in := p.account(keys[at])
			if in == nil {
				break
			}
			out[at] = in.lease.ID()
			at++
		}
		p.mu.Unlock()
		if at == len(keys) {
			break
		}
		_, in, err := p.take(ctx, keys[at]) // no lease has room: one is granted, outside of the mutex
		if err != nil {
			return nil, err
		}
		out[at] = in.lease.ID()
		at++
	}
	return out, nil
}

// GiveAll is [LeasePool.Give] for many keys.
func (p *LeasePool) GiveAll(keys []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		p.give(key)
	}
}

// Refused is to be called when the store refused a write under these leases with ErrLeaseExpired: it does not say which of them is gone. Each
// is renewed, and those that the store does not know are given up: their keys go to the observers, and are accounted to others when
// they are taken again. An error means that the store could not be asked.
func (p *LeasePool) Refused(ctx context.Context, ids []LeaseID) error {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		l := p.find(id)
		if l == nil {
			continue // given up already, or none
		}
		kctx, cancel := p.c.timeout(Urgent(ctx))
		_, err := p.c.KeepAlive(kctx, id)
		cancel()
		switch {
		case errors.Is(err, ErrLeaseExpired):
			p.lost(l)
		case err != nil:
			return err
		}
	}
	return nil
}

// account returns the lease that carries a key, after it gave it one if there is room; else nil. The caller holds p.mu.
func (p *LeasePool) account(key string) (*leasedKey, *pooled) {
	if p.closed {
		return nil, nil
	}
	k := p.keys[key]
	if k != nil && k.in != nil {
		return k, k.in
	}
	l := p.room()
	if l == nil {
		return k, nil
	}
	if k == nil {
		k = &leasedKey{key: key}
		p.keys[key] = k
	}
	l.add(k)
	return k, l
}

func (p *LeasePool) find(id LeaseID) *pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.leases {
		if l.lease.ID() == id {
			return l
		}
	}
	return nil
}

// Close stops renewing the leases and returns when nothing of the pool runs any more; the keys live until their time is up. Whatever is asked of
// the pool afterwards fails with ErrClosed. It may be called again.
func (p *LeasePool) Close() {
	for _, l := range p.end() {
		l.lease.Release()
	}
	p.wg.Wait()
}

// Revoke closes the pool and has all of its keys deleted at once. After an error some of them live until their time is up.
func (p *LeasePool) Revoke(ctx context.Context) error {
	var err error
	for _, l := range p.end() {
		if e := l.lease.Close(ctx); e != nil {
			err = errors.Join(err, e)
		}
	}
	p.wg.Wait()
	return err
}

// end marks the pool closed and returns its leases.
func (p *LeasePool) end() []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cancel()
	var all []*pooled
	for l := range p.leases {
		all = append(all, l)
	}
	return all
}

// spawn runs f in a goroutine that Close and the client's wait for. The caller holds p.mu.
func (p *LeasePool) spawn(f func()) bool {
	p.wg.Add(1)
	ok := p.c.spawn(func() { defer p.wg.Done(); f() })
	if !ok {
		p.wg.Done()
	}
	return ok
}
