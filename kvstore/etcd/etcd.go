package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Backend implements kvstore.Backend.
type Backend struct {
	cl      *clientv3.Client
	kv      etcdserverpb.KVClient // for calls with a codec of ours; nil of a member in this process
	pages   atomic.Bool           // the cluster cannot stream a range
	ctx     context.Context       // ends with Close
	cancel  context.CancelFunc
	closed  atomic.Bool
	watches atomic.Uint64 // so far, of a member in this process
	room    []func() error
	wrote   []kvstore.OpResult // of each put: nothing
	owned   bool               // the client is ours to close
}

var _ kvstore.Backend = (*Backend)(nil)

// New returns a backend over cl. Close ends the backend's calls and watches and leaves cl to its owner. Each of room is asked
// before whatever puts something into the database, whose error is then the answer.
func New(cl *clientv3.Client, room ...func() error) *Backend {
	b := &Backend{cl: cl, room: room, wrote: make([]kvstore.OpResult, 1)}
	if cl.ActiveConnection() != nil {
		b.kv = clientv3.RetryKVClient(cl)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Close implements kvstore.Backend.
func (b *Backend) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.cancel()
	if b.owned {
		if err := b.cl.Close(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("close the connection to the database: %w", err)
		}
	}
	return nil
}

// call joins a caller's context with the backend's life.
func (b *Backend) call(ctx context.Context) (context.Context, func(), error) {
	if b.closed.Load() {
		return nil, nil, kvstore.ErrClosed
	}
	if b.owned { // its closing ends the calls
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.ctx, cancel)
	return ctx, func() { stop(); cancel() }, nil
}

// Txn implements kvstore.Backend.
func (b *Backend) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	if err := kvstore.CheckTxn(t); err != nil {
		return kvstore.TxnResult{}, err
	}
	if puts(t.Then) || puts(t.Else) {
		if err := b.hasRoom(); err != nil {
			return kvstore.TxnResult{}, err
		}
	}
	ctx, done, err := b.call(ctx)
	if err != nil {
		return kvstore.TxnResult{}, err
	}
	defer done()
	if len(t.If) == 0 && len(t.Then) == 1 && t.Then[0].Type == kvstore.OpPut {
		return b.put(ctx, t.Then[0])
	}
	if len(t.If) == 0 && len(t.Then) == 1 && t.Then[0].Type == kvstore.OpDelete && t.Then[0].End == "" {
		return b.delete(ctx, t.Then[0].Key)
	}
	cmps := make([]clientv3.Cmp, len(t.If))
	for i, c := range t.If {
		cmps[i] = compare(c)
	}
	res, err := b.cl.Txn(ctx).If(cmps...).Then(ops(t.Then)...).Else(ops(t.Else)...).Commit()
	if err != nil {
		return kvstore.TxnResult{}, b.failed(err)
	}
	out := kvstore.TxnResult{Header: header(res.Header), Succeeded: res.Succeeded, Results: make([]kvstore.OpResult, len(res.Responses))}
	for i, r := range res.Responses {
		if g := r.GetResponseRange(); g != nil {
			out.Results[i].KVs = convert(g.Kvs, nil)
		} else if d := r.GetResponseDeleteRange(); d != nil {
			out.Results[i].Deleted = d.Deleted
		}
	}
	return out, nil
}

func puts(ops []kvstore.Op) bool {
	return slices.ContainsFunc(ops, func(o kvstore.Op) bool { return o.Type == kvstore.OpPut })
}

func (b *Backend) hasRoom() error {
	for _, room := range b.room {
		if err := room(); err != nil {
			return err
		}
	}
	return nil
}

// put writes one key: the same as a transaction of it, for half the work on both sides.
func (b *Backend) put(ctx context.Context, o kvstore.Op) (kvstore.TxnResult, error) {
	var opts []clientv3.OpOption
	if o.Lease != 0 {
		opts = []clientv3.OpOption{clientv3.WithLease(clientv3.LeaseID(o.Lease))}
	}
	r, err := b.cl.Put(ctx, o.Key, string(o.Value), opts...)
	if err != nil {
		return kvstore.TxnResult{}, b.failed(err)
	}
	return kvstore.TxnResult{Header: header(r.Header), Succeeded: true, Results: b.wrote}, nil
}

// delete is like put.
func (b *Backend) delete(ctx context.Context, key string) (kvstore.TxnResult, error) {
	r, err := b.cl.Delete(ctx, key)
	if err != nil {
		return kvstore.TxnResult{}, b.failed(err)
	}
	return kvstore.TxnResult{Header: header(r.Header), Succeeded: true, Results: []kvstore.OpResult{{Deleted: r.Deleted}}}, nil
}

func compare(c kvstore.Compare) clientv3.Cmp {
	of := clientv3.ModRevision
	switch c.Target {
	case kvstore.TargetCreate:
		of = clientv3.CreateRevision
	case kvstore.TargetVersion:
		of = clientv3.Version
	case kvstore.TargetLease:
		of = clientv3.LeaseValue
	}
	cmp := clientv3.Compare(of(c.Key), "=", c.Equal)
	if c.End != "" {
		cmp = cmp.WithRange(c.End)
	}
	return cmp
}

func ops(in []kvstore.Op) []clientv3.Op {
	out := make([]clientv3.Op, len(in))
	for i, o := range in {
		var opts []clientv3.OpOption
		if o.End != "" {
			opts = append(opts, clientv3.WithRange(o.End))
		}
		switch o.Type {
		case kvstore.OpPut:
			if o.Lease != 0 {
				opts = append(opts, clientv3.WithLease(clientv3.LeaseID(o.Lease)))
			}
			out[i] = clientv3.OpPut(o.Key, string(o.Value), opts...)
		case kvstore.OpDelete:
			out[i] = clientv3.OpDelete(o.Key, opts...)
		case kvstore.OpGet:
			out[i] = clientv3.OpGet(o.Key, opts...)
		}
	}
	return out
}

// Grant implements kvstore.Backend.
func (b *Backend) Grant(ctx context.Context, ttl time.Duration) (kvstore.LeaseID, error) {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	if err := b.hasRoom(); err != nil {
		return 0, err
	}
	r, err := b.cl.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, b.failed(err)
	}
	return kvstore.LeaseID(r.ID), nil
}

// KeepAlive implements kvstore.Backend.
func (b *Backend) KeepAlive(ctx context.Context, id kvstore.LeaseID) (time.Duration, error) {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	r, err := b.cl.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	if err != nil {
		return 0, b.failed(err)
	}
	return time.Duration(r.TTL) * time.Second, nil
}

// Revoke implements kvstore.Backend.
func (b *Backend) Revoke(ctx context.Context, id kvstore.LeaseID) error {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = b.cl.Revoke(ctx, clientv3.LeaseID(id))
	if err = b.failed(err); errors.Is(err, kvstore.ErrLeaseExpired) {
		return nil
	}
	return err
}

// Compact implements kvstore.Backend.
func (b *Backend) Compact(ctx context.Context, rev int64) error {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = b.cl.Compact(ctx, rev)
	return b.failed(err)
}

func header(h *etcdserverpb.ResponseHeader) kvstore.Header {
	return kvstore.Header{Cluster: h.ClusterId, Revision: h.Revision}
}

// convert uses buf while it is large enough.
func convert(in []*mvccpb.KeyValue, buf []kvstore.KeyValue) []kvstore.KeyValue {
	out := slices.Grow(buf[:0], len(in))
	for _, kv := range in {
		out = append(out, keyValue(kv))
	}
	return out
}

func keyValue(kv *mvccpb.KeyValue) kvstore.KeyValue {
	return kvstore.KeyValue{Key: string(kv.Key), Value: kv.Value, CreateRevision: kv.CreateRevision,
		ModRevision: kv.ModRevision, Version: kv.Version, Lease: kvstore.LeaseID(kv.Lease)}
}

// raftStopped is the text of raft's ErrStopped: what a call has, without a code, that a member had not proposed yet when it stopped.
const raftStopped = "raft: stopped"

// failed gives an error of etcd its sentinel.
func (b *Backend) failed(err error) error {
	if err == nil {
		return nil
	}
	if b.closed.Load() {
		return fmt.Errorf("%w: %w", kvstore.ErrClosed, err)
	}
	as := func(s error) error { return fmt.Errorf("%w: %w", s, err) }
	code := status.Code(err)
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) {
		code = e.Code()
	}
	switch e := rpctypes.Error(err); {
	case errors.Is(e, rpctypes.ErrCompacted):
		return as(kvstore.ErrCompacted)
	case errors.Is(e, rpctypes.ErrFutureRev):
		return as(kvstore.ErrFuture)
	case errors.Is(e, rpctypes.ErrLeaseNotFound):
		return as(kvstore.ErrLeaseExpired)
	case errors.Is(e, rpctypes.ErrNoSpace):
		return as(kvstore.ErrNoSpace)
	case errors.Is(e, rpctypes.ErrTooManyOps), errors.Is(e, rpctypes.ErrRequestTooLarge):
		return as(kvstore.ErrTooLarge)
	case errors.Is(e, rpctypes.ErrTooManyRequests):
		return as(kvstore.ErrOverloaded)
	case errors.Is(e, rpctypes.ErrDuplicateKey):
		return as(kvstore.ErrDuplicateKey)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errs.Classify(errs.UnavailableClass, err)
	case errors.Is(e, rpctypes.ErrNoLeader), errors.Is(e, rpctypes.ErrLeaderChanged), errors.Is(e, rpctypes.ErrTimeout),
		errors.Is(e, rpctypes.ErrTimeoutDueToLeaderFail), errors.Is(e, rpctypes.ErrTimeoutDueToConnectionLost), code == codes.Unavailable,
		code == codes.Unknown && status.Convert(err).Message() == raftStopped:
		return as(kvstore.ErrNoQuorum)
	case code == codes.DeadlineExceeded, code == codes.Canceled:
		return errs.Classify(errs.UnavailableClass, err)
	}
	return err
}

type stream struct {
	b   *Backend
	ctx context.Context
	ch  clientv3.WatchChan
}

// Watch implements kvstore.Backend.
func (b *Backend) Watch(ctx context.Context, prefix string, from int64) kvstore.Stream {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	stop := context.AfterFunc(b.ctx, cancel)
	context.AfterFunc(ctx, func() { stop(); cancel() })
	if b.kv == nil {
		// A stream of etcd's of its own, which it finds by the metadata: the way into a member in this process holds but a
		// few messages, and watches of one stream that end at once would wait for each other for good.
		ctx = metadata.AppendToOutgoingContext(ctx, "shoal-watch", strconv.FormatUint(b.watches.Add(1), 10))
	}
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify()}
	if from == 0 {
		opts = append(opts, clientv3.WithCreatedNotify())
	}
	return &stream{b: b, ctx: ctx, ch: b.cl.Watch(ctx, prefix, opts...)}
}

// RequestProgress uses the watch's own context: etcd's client finds the stream by the context's metadata.
func (s *stream) RequestProgress(context.Context) error { return s.b.cl.RequestProgress(s.ctx) }

func (s *stream) Next() (kvstore.WatchResponse, error) {
	r, ok := <-s.ch
	switch {
	case !ok && s.b.closed.Load():
		return kvstore.WatchResponse{}, kvstore.ErrClosed
	case !ok && s.ctx.Err() != nil:
		return kvstore.WatchResponse{}, s.ctx.Err()
	case !ok:
		return kvstore.WatchResponse{}, fmt.Errorf("%w: the watch was closed", kvstore.ErrNoQuorum)
	case r.CompactRevision != 0:
		return kvstore.WatchResponse{}, fmt.Errorf("%w: up to %d", kvstore.ErrCompacted, r.CompactRevision)
	case r.Err() != nil:
		return kvstore.WatchResponse{}, s.b.failed(r.Err())
	}
	out := kvstore.WatchResponse{Header: header(r.Header), Events: make([]kvstore.Event, len(r.Events))}
	for i, e := range r.Events {
		typ := kvstore.Modified
		switch {
		case e.Type == mvccpb.Event_DELETE:
			typ = kvstore.Deleted
		case e.IsCreate():
			typ = kvstore.Created
		}
		out.Events[i] = kvstore.Event{Type: typ, KV: keyValue(e.Kv)}
	}
	return out, nil
}
