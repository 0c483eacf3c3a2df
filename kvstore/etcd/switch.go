package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shoal-project/shoal/kvstore"
)

// Source hands out the client to use: another when the member in this process comes or goes (elastic.Node).
type Source interface {
	// Client returns a client and a context that ends when another takes its place. While there is none it waits, within ctx.
	Client(ctx context.Context) (*clientv3.Client, context.Context, error)
	// Writes returns a context that ends when those that are under way will not be answered any more: their leader is gone, and etcd would let them wait for
	// seven seconds.
	Writes() context.Context
}

// Switch implements kvstore.Backend over the clients of a source, with a [Backend] for each. A read, or what may be done twice, that is under way when
// the client changes is done again with the next, within its context. A write is not: it ends with kvstore.ErrNoQuorum and may or may not have been done.
// Watches end with the same error; kvstore resumes them. Safe for concurrent use.
type Switch struct {
	src    Source
	room   []func() error
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu  sync.Mutex
	cur *turn
}

// turn is a client's time.
type turn struct {
	*Backend
	life context.Context
}

var (
	_ kvstore.Backend   = (*Switch)(nil)
	_ kvstore.Streamer  = (*Switch)(nil)
	_ kvstore.Users     = (*Switch)(nil)
	_ kvstore.Endpoints = (*Switch)(nil)
)

// NewSwitch returns a backend over src, which stays its owner's. room is as for [New].
func NewSwitch(src Source, room ...func() error) *Switch {
	s := &Switch{src: src, room: room}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close implements kvstore.Backend.
func (s *Switch) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil {
		return nil
	}
	return s.cur.Close()
}

// turn returns the backend of this moment.
func (s *Switch) turn(ctx context.Context) (*turn, error) {
	s.mu.Lock()
	t := s.cur
	s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, kvstore.ErrClosed
	}
	if t != nil && t.life.Err() == nil {
		return t, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	cl, life, err := s.src.Client(ctx)
	if s.ctx.Err() != nil {
		return nil, kvstore.ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kvstore.ErrNoQuorum, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil && s.cur.cl == cl {
		return s.cur, nil
	}
	if s.ctx.Err() != nil {
		return nil, kvstore.ErrClosed
	}
	t = &turn{Backend: New(cl, s.room...), life: life}
	context.AfterFunc(life, func() { _ = t.Close() }) // never an error: the client is not its own
	s.cur = t
	return t, nil
}

// over says that the client's time ended during a call.
func (s *Switch) over(ctx context.Context, t *turn, err error) bool {
	return err != nil && t.life.Err() != nil && ctx.Err() == nil && s.ctx.Err() == nil
}

// once does what must not be done twice.
func once[R any](ctx context.Context, s *Switch, f func(context.Context, *turn) (R, error)) (R, error) {
	t, err := s.turn(ctx)
	if err != nil {
		var none R
		return none, err
	}
	lost := s.src.Writes()
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lost, cancel)()
	r, err := f(wctx, t)
	switch {
	case s.over(ctx, t, err) && errors.Is(err, kvstore.ErrClosed):
		err = fmt.Errorf("%w: the member that was used has stopped: %s", kvstore.ErrNoQuorum, err.Error())
	case err != nil && wctx.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w: its leader has gone, and with it perhaps this write: %w", kvstore.ErrNoQuorum, err)
	}
	return r, err
}

// again does what may be done twice, until a client lives through it.
func again[R any](ctx context.Context, s *Switch, f func(*turn) (R, error)) (R, error) {
	for {
		t, err := s.turn(ctx)
		if err != nil {
			var none R
			return none, err
		}
		r, err := f(t)
		if !s.over(ctx, t, err) {
			return r, err
		}
	}
}

// Range implements kvstore.Backend.
func (s *Switch) Range(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	return again(ctx, s, func(t *turn) (kvstore.RangeResult, error) { return t.Range(ctx, r) })
}

// RangeStream implements kvstore.Streamer. It is not begun anew when the client changes: the caller has parts of it.
func (s *Switch) RangeStream(ctx context.Context, r kvstore.Range, each func(kvstore.RangeResult) error) (h kvstore.Header, ok bool, err error) {
	t, err := s.turn(ctx)
	if err != nil {
		return h, false, err
	}
	h, ok, err = t.RangeStream(ctx, r, each)
	if s.over(ctx, t, err) && errors.Is(err, kvstore.ErrClosed) {
		err = fmt.Errorf("%w: the member that was read has stopped", kvstore.ErrNoQuorum)
	}
	return h, ok, err
}

// Txn implements kvstore.Backend.
func (s *Switch) Txn(ctx context.Context, x kvstore.Txn) (kvstore.TxnResult, error) {
	return once(ctx, s, func(ctx context.Context, t *turn) (kvstore.TxnResult, error) { return t.Txn(ctx, x) })
}

// Grant implements kvstore.Backend. A lease of which the caller does not hear runs out.
func (s *Switch) Grant(ctx context.Context, ttl time.Duration) (kvstore.LeaseID, error) {
	return again(ctx, s, func(t *turn) (kvstore.LeaseID, error) { return t.Grant(ctx, ttl) })
}

// KeepAlive implements kvstore.Backend.
func (s *Switch) KeepAlive(ctx context.Context, id kvstore.LeaseID) (time.Duration, error) {
	return again(ctx, s, func(t *turn) (time.Duration, error) { return t.KeepAlive(ctx, id) })
}

// Revoke implements kvstore.Backend.
func (s *Switch) Revoke(ctx context.Context, id kvstore.LeaseID) error {
	return s.simply(ctx, func(t *turn) error { return t.Revoke(ctx, id) })
}

// Compact implements kvstore.Backend.
func (s *Switch) Compact(ctx context.Context, rev int64) error {
	_, err := once(ctx, s, func(ctx context.Context, t *turn) (struct{}, error) { return struct{}{}, t.Compact(ctx, rev) })
	return err
}

// EnforceUser implements kvstore.Users.
func (s *Switch) EnforceUser(ctx context.Context, name string, roles []string) error {
	return s.simply(ctx, func(t *turn) error { return t.EnforceUser(ctx, name, roles) })
}

// EnforceNoUser implements kvstore.Users.
func (s *Switch) EnforceNoUser(ctx context.Context, name string) error {
	return s.simply(ctx, func(t *turn) error { return t.EnforceNoUser(ctx, name) })
}

func (s *Switch) simply(ctx context.Context, f func(*turn) error) error {
	_, err := again(ctx, s, func(t *turn) (struct{}, error) { return struct{}{}, f(t) })
	return err
}

// Endpoints implements kvstore.Endpoints.
func (s *Switch) Endpoints(ctx context.Context) []kvstore.Endpoint {
	t, err := s.turn(ctx)
	if err != nil {
		return nil
	}
	return t.Endpoints(ctx)
}

// Watch implements kvstore.Backend.
func (s *Switch) Watch(ctx context.Context, prefix string, from int64) kvstore.Stream {
	t, err := s.turn(ctx)
	if err != nil {
		return failed{err}
	}
	return &watch{Stream: t.Watch(ctx, prefix, from), s: s, t: t, ctx: ctx}
}

// watch is a stream that ends with its client.
type watch struct {
	kvstore.Stream
	s   *Switch
	t   *turn
	ctx context.Context
}

func (w *watch) Next() (kvstore.WatchResponse, error) {
	r, err := w.Stream.Next()
	if w.s.over(w.ctx, w.t, err) {
		err = fmt.Errorf("%w: the member that was watched has stopped", kvstore.ErrNoQuorum)
	}
	return r, err
}

// failed is a watch for which there was no client.
type failed struct{ err error }

func (f failed) Next() (kvstore.WatchResponse, error)  { return kvstore.WatchResponse{}, f.err }
func (f failed) RequestProgress(context.Context) error { return f.err }
