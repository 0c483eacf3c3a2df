package kvstore

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Limits bounds what a client asks of the store. [Urgent] calls, and those about leases, never wait and are never counted.
type Limits struct {
	// Rate is the number of calls per second, each page of a list being one; 0 means no limit. Burst is how many may come at once; 0 means
	// as many as come in a second.
	Rate  float64
	Burst int
	// Bootstrap is the rate until Booted is closed, when both are set: a node that starts reads more than one that runs.
	Bootstrap float64
	Booted    <-chan struct{}
	// InFlight is how many calls are under way at a time; 0 means no limit. When the store pushes back (ErrOverloaded, or a call
	// that got no answer in time) the client halves it, and comes back to it by one for each round of answers.
	InFlight int
}

// limited is a backend that keeps Limits. Waiting allocates nothing.
type limited struct {
	Backend
	lim    Limits
	closed context.Context
	slots  chan struct{} // one in it for each call that may begin; nil without a limit
	timers sync.Pool

	mu     sync.Mutex
	free   time.Time // when the bucket is full again
	parked int       // slots taken away after push-back
	debt   int       // slots to be taken away as their calls end
	credit int       // answers since a slot was last given back
}

func newLimited(ctx context.Context, b Backend, lim Limits) *limited {
	if lim.Burst <= 0 {
		lim.Burst = max(1, int(lim.Rate))
	}
	l := &limited{Backend: b, lim: lim, closed: ctx}
	l.timers.New = func() any {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	if lim.InFlight > 0 {
		l.slots = make(chan struct{}, lim.InFlight)
		for range lim.InFlight {
			l.slots <- struct{}{}
		}
	}
	return l
}

// rate returns the rate that holds now.
func (l *limited) rate() float64 {
	if l.lim.Bootstrap > 0 && l.lim.Booted != nil {
		select {
		case <-l.lim.Booted:
		default:
			return l.lim.Bootstrap
		}
	}
	return l.lim.Rate
}

// reserve takes a token and returns how long to wait for it, and what it cost.
func (l *limited) reserve() (wait, cost time.Duration) {
	rate := l.rate()
	if rate <= 0 {
		return 0, 0
	}
	cost = time.Duration(float64(time.Second) / rate)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(cost)
	return l.free.Sub(now) - time.Duration(l.lim.Burst)*cost, cost
}

func (l *limited) enter(ctx context.Context) error {
	wait, cost := l.reserve()
	if wait > 0 {
		t := l.timers.Get().(*time.Timer)
		t.Reset(wait)
		var err error
		select {
		case <-t.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.closed.Done():
			err = ErrClosed
		}
		t.Stop()
		l.timers.Put(t)
		if err != nil {
			l.mu.Lock()
			l.free = l.free.Add(-cost)
			l.mu.Unlock()
			return err
		}
	}
	if l.slots == nil {
		return nil
	}
	select {
	case <-l.slots: // asking a context for its channel makes one
		return nil
	default:
	}
	select {
	case <-l.slots:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.closed.Done():
		return ErrClosed
	}
}

// leave gives the slot of a call back, or keeps it when the store pushed back.
func (l *limited) leave(err error) {
	if l.slots == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.lim.InFlight - l.parked - l.debt
	switch {
	case errors.Is(err, ErrOverloaded) || errors.Is(err, context.DeadlineExceeded):
		l.credit = 0
		l.debt += limit / 2 // one stays
		for idle := true; idle && l.debt > 0; {
			select {
			case <-l.slots:
				l.debt, l.parked = l.debt-1, l.parked+1
			default:
				idle = false
			}
		}
	case err == nil && limit < l.lim.InFlight:
		if l.credit++; l.credit >= limit {
			l.credit = 0
			if l.debt > 0 {
				l.debt--
			} else {
				l.parked--
				l.slots <- struct{}{}
			}
		}
	}
	if l.debt > 0 {
		l.debt--
		l.parked++
		return
	}
	l.slots <- struct{}{}
}

// Range implements Backend.
func (l *limited) Range(ctx context.Context, r Range) (res RangeResult, err error) {
	if isUrgent(ctx) {
		return l.Backend.Range(ctx, r)
	}
	if err = l.enter(ctx); err != nil {
		return res, err
	}
	res, err = l.Backend.Range(ctx, r)
	l.leave(err)
	return res, err
}

// Txn implements Backend.
func (l *limited) Txn(ctx context.Context, t Txn) (res TxnResult, err error) {
	if isUrgent(ctx) {
		return l.Backend.Txn(ctx, t)
	}
	if err = l.enter(ctx); err != nil {
		return res, err
	}
	res, err = l.Backend.Txn(ctx, t)
	l.leave(err)
	return res, err
}
