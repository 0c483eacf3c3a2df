package kvstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Lease is a lease that is kept alive by a goroutine until it is closed or lost.
type Lease struct {
	c    *Client
	id   LeaseID
	ttl  time.Duration
	stop context.CancelFunc
	done chan struct{}
	lost chan struct{}
	once sync.Once // over lost
}

// NewLease grants a lease and keeps it alive. ttl is at least a few seconds on etcd.
func (c *Client) NewLease(ctx context.Context, ttl time.Duration) (*Lease, error) {
	gctx, cancel := c.timeout(ctx)
	defer cancel()
	granted := time.Now()
	id, err := c.Grant(gctx, ttl)
	if err != nil {
		return nil, fmt.Errorf("grant a lease: %w", err)
	}
	kctx, stop := context.WithCancel(c.ctx)
	l := &Lease{c: c, id: id, ttl: ttl, stop: stop, done: make(chan struct{}), lost: make(chan struct{})}
	if !c.spawn(func() { l.keep(kctx, granted) }) {
		stop()
		return nil, fmt.Errorf("grant a lease: %w", ErrClosed)
	}
	return l, nil
}

// ID returns the lease's name for puts.
func (l *Lease) ID() LeaseID { return l.id }

// Lost is closed when the lease has expired, or may have: it could not be renewed for its whole time, or the client is closed.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Close stops the renewal and revokes the lease; its keys go at once, or when its time is up if the store is away.
func (l *Lease) Close(ctx context.Context) error {
	l.stop()
	<-l.done
	ctx, cancel := l.c.timeout(ctx)
	defer cancel()
	return l.c.Revoke(ctx, l.id)
}

// Release stops the renewal and lets the lease run out by itself.
func (l *Lease) Release() { l.stop(); <-l.done }

func (l *Lease) markLost() { l.once.Do(func() { close(l.lost) }) }

func (l *Lease) keep(ctx context.Context, renewed time.Time) {
	defer close(l.done)
	defer l.stop()
	t := time.NewTicker(l.ttl / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			if l.c.ctx.Err() != nil {
				l.markLost()
			}
			return
		case <-t.C:
		}
		sent := time.Now() // what counts is when the renewal left, not when the answer came
		kctx, cancel := context.WithDeadline(ctx, renewed.Add(l.ttl))
		_, err := l.c.KeepAlive(kctx, l.id)
		cancel()
		switch {
		case err == nil:
			renewed = sent
		case ctx.Err() != nil: // stopped: the next round sees why
		case errors.Is(err, ErrLeaseExpired), errors.Is(err, ErrClosed), time.Since(renewed) >= l.ttl:
			l.markLost()
			return
		}
	}
}
