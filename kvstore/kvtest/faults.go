package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

// Faults is a backend that passes everything on and fails when it is told to. Safe for concurrent use.
type Faults struct {
	kvstore.Backend
	mu      sync.Mutex
	latency time.Duration
	fail    func(op string) error
	break_  context.CancelCauseFunc
	ctx     context.Context
	leases  map[kvstore.LeaseID]bool // that were granted here
	once    sync.Once
	closed  chan struct{}
}

// NewFaults returns a wrapper of b that does nothing yet.
func NewFaults(b kvstore.Backend) *Faults {
	f := &Faults{Backend: b, closed: make(chan struct{}), leases: map[kvstore.LeaseID]bool{}}
	f.ctx, f.break_ = context.WithCancelCause(context.Background())
	return f
}

// Latency delays each call.
func (f *Faults) Latency(d time.Duration) { f.mu.Lock(); f.latency = d; f.mu.Unlock() }

// Fail has each call ask fn whether to fail: op is "range", "txn", "watch", "grant", "keepalive", "revoke" or "compact".
// An error for "txn after" comes after the transaction has happened: the answer was lost.
func (f *Faults) Fail(fn func(op string) error) { f.mu.Lock(); f.fail = fn; f.mu.Unlock() }

// Break ends all streams with ErrNoQuorum, as a lost connection does.
func (f *Faults) Break() { f.endStreams(fmt.Errorf("%w: disconnected", kvstore.ErrNoQuorum)) }

func (f *Faults) endStreams(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.break_(why)
	f.ctx, f.break_ = context.WithCancelCause(context.Background())
}

// CompactAll has the store forget everything but the newest revision and ends all streams with ErrCompacted, as when they had fallen behind
// it: whoever watches has to list again. No fault that was set befalls it.
func (f *Faults) CompactAll(ctx context.Context) error {
	r, err := f.Backend.Range(ctx, kvstore.Range{Key: "\x00", CountOnly: true})
	if err != nil {
		return err
	}
	if err := f.Backend.Compact(ctx, r.Revision); err != nil && !errors.Is(err, kvstore.ErrCompacted) {
		return err
	}
	f.endStreams(fmt.Errorf("%w: everything before %d", kvstore.ErrCompacted, r.Revision))
	return nil
}

// LoseLeases takes back the leases that were granted through this wrapper, with their keys, as when their holder had been cut off for longer than they
// last: he hears of it at his next call. No fault that was set befalls it. It returns how many there were.
func (f *Faults) LoseLeases(ctx context.Context) (int, error) {
	f.mu.Lock()
	lost := f.leases
	f.leases = map[kvstore.LeaseID]bool{}
	f.mu.Unlock()
	for id := range lost {
		if err := f.Backend.Revoke(ctx, id); err != nil {
			return 0, err
		}
	}
	return len(lost), nil
}

func (f *Faults) before(ctx context.Context, op string) error {
	f.mu.Lock()
	d, fail := f.latency, f.fail
	f.mu.Unlock()
	if d > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.closed:
			return kvstore.ErrClosed
		case <-time.After(d):
		}
	}
	if fail != nil {
		return fail(op)
	}
	return nil
}

// Close implements kvstore.Backend.
func (f *Faults) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Backend.Close()
}

// Range implements kvstore.Backend.
func (f *Faults) Range(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	if err := f.before(ctx, "range"); err != nil {
		return kvstore.RangeResult{}, err
	}
	return f.Backend.Range(ctx, r)
}

// Txn implements kvstore.Backend.
func (f *Faults) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	if err := f.before(ctx, "txn"); err != nil {
		return kvstore.TxnResult{}, err
	}
	r, err := f.Backend.Txn(ctx, t)
	if err == nil {
		if err = f.before(ctx, "txn after"); err != nil {
			r = kvstore.TxnResult{}
		}
	}
	return r, err
}

// Grant implements kvstore.Backend.
func (f *Faults) Grant(ctx context.Context, ttl time.Duration) (kvstore.LeaseID, error) {
	if err := f.before(ctx, "grant"); err != nil {
		return 0, err
	}
	id, err := f.Backend.Grant(ctx, ttl)
	if err == nil {
		f.mu.Lock()
		f.leases[id] = true
		f.mu.Unlock()
	}
	return id, err
}

// KeepAlive implements kvstore.Backend.
func (f *Faults) KeepAlive(ctx context.Context, id kvstore.LeaseID) (time.Duration, error) {
	if err := f.before(ctx, "keepalive"); err != nil {
		return 0, err
	}
	return f.Backend.KeepAlive(ctx, id)
}

// Revoke implements kvstore.Backend.
func (f *Faults) Revoke(ctx context.Context, id kvstore.LeaseID) error {
	if err := f.before(ctx, "revoke"); err != nil {
		return err
	}
	err := f.Backend.Revoke(ctx, id)
	if err == nil {
		f.mu.Lock()
		delete(f.leases, id)
		f.mu.Unlock()
	}
	return err
}

// Compact implements kvstore.Backend.
func (f *Faults) Compact(ctx context.Context, rev int64) error {
	if err := f.before(ctx, "compact"); err != nil {
		return err
	}
	return f.Backend.Compact(ctx, rev)
}

type faultStream struct {
	kvstore.Stream
	f   *Faults
	ctx context.Context
}

// Watch implements kvstore.Backend.
func (f *Faults) Watch(ctx context.Context, prefix string, from int64) kvstore.Stream {
	f.mu.Lock()
	broken := f.ctx
	f.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(broken, func() { cancel(context.Cause(broken)) })
	context.AfterFunc(ctx, func() { stop() })
	if err := f.before(ctx, "watch"); err != nil {
		cancel(err)
	}
	return &faultStream{f.Backend.Watch(ctx, prefix, from), f, ctx}
}

func (s *faultStream) Next() (kvstore.WatchResponse, error) {
	if s.ctx.Err() != nil { // what had come before the stream ended is lost with it
		return kvstore.WatchResponse{}, context.Cause(s.ctx)
	}
	r, err := s.Stream.Next()
	if err != nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	return r, err
}
