package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// failing is told the number of a stream, from 1 on, and how many of its parts went before, and ends the stream with an error.
type failing func(ctx context.Context, r *ranges, stream, sent int) error

// ranges is a server that knows of etcd's API ranges and watches only, whose streams of a range fail where fail says; where that is nil, it
// is a server from before etcd 3.7.
type ranges struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedWatchServer
	fail           failing
	streams, pages atomic.Int64
	heard          chan struct{} // from the client, for each part: what is sent is not lost in a connection that is cut

	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

const (
	rangeKeys = 5000
	rangePart = 100 // keys of a message
)

// Accept implements net.Listener.
func (r *ranges) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.mu.Lock()
		r.conns = append(r.conns, c)
		r.mu.Unlock()
	}
	return c, err
}

// cut breaks all connections, in the middle of whatever is on them.
func (r *ranges) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func rangeKey(i int) string { return fmt.Sprintf("/r/%05d", i) }

// answer has the keys from req.Key on.
func (r *ranges) answer(req *etcdserverpb.RangeRequest) *etcdserverpb.RangeResponse {
	res := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 7, Revision: 42}}
	for i := range rangeKeys {
		if k := rangeKey(i); k >= string(req.Key) && (k < string(req.RangeEnd)) {
			res.Kvs = append(res.Kvs, &mvccpb.KeyValue{Key: []byte(k), Value: []byte(k), CreateRevision: 1, ModRevision: int64(i + 1), Version: 1})
		}
	}
	res.Count = int64(len(res.Kvs))
	if n := int(req.Limit); n > 0 && n < len(res.Kvs) {
		res.Kvs, res.More = res.Kvs[:n], true
	}
	return res
}

func (r *ranges) Range(_ context.Context, req *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	if len(req.RangeEnd) > 0 && !req.CountOnly {
		r.pages.Add(1)
	}
	return r.answer(req), nil
}

func (r *ranges) RangeStream(req *etcdserverpb.RangeRequest, s grpc.ServerStreamingServer[etcdserverpb.RangeStreamResponse]) error {
	n := r.streams.Add(1)
	if r.fail == nil {
		return r.UnimplementedKVServer.RangeStream(req, s)
	}
	all := r.answer(req)
	for sent := 0; len(all.Kvs) > 0; sent++ {
		if err := r.fail(s.Context(), r, int(n), sent); err != nil {
			return err
		}
		part := min(rangePart, len(all.Kvs))
		if err := s.Send(&etcdserverpb.RangeStreamResponse{RangeResponse: &etcdserverpb.RangeResponse{Kvs: all.Kvs[:part]}}); err != nil {
			return err
		}
		select {
		case <-r.heard:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		all.Kvs = all.Kvs[part:]
	}
	return s.Send(&etcdserverpb.RangeStreamResponse{RangeResponse: all}) // etcd's last one has header and count
}

// Watch stands and brings nothing.
func (r *ranges) Watch(s etcdserverpb.Watch_WatchServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	if err := s.Send(&etcdserverpb.WatchResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 7, Revision: 42}, Created: true}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// hearing tells the server of each part that was taken.
type hearing struct {
	*etcd.Backend
	heard chan<- struct{}
}

func (h hearing) RangeStream(ctx context.Context, r kvstore.Range, each func(kvstore.RangeResult) error) (kvstore.Header, bool, error) {
	return h.Backend.RangeStream(ctx, r, func(part kvstore.RangeResult) error {
		err := each(part)
		h.heard <- struct{}{}
		return err
	})
}

// serveRanges returns the server and a client of it.
func serveRanges(t *testing.T, cfg kvstore.Config, fail failing) (*ranges, *kvstore.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &ranges{fail: fail, Listener: l, heard: make(chan struct{}, 1)}
	srv := grpc.NewServer()
	etcdserverpb.RegisterKVServer(srv, r)
	etcdserverpb.RegisterWatchServer(srv, r)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(r) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	b, err := etcd.Dial(etcd.Config{Endpoints: []string{"http://" + l.Addr().String()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := kvstore.New(hearing{b, r.heard}, cfg)
	t.Cleanup(func() { _ = c.Close() })
	return r, c
}

// list checks that what a list delivers are the first keys, each once, and returns how many.
func list(t *testing.T, c *kvstore.Client) (n int, err error) {
	t.Helper()
	h, err := c.List(t.Context(), "/r/", func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			if kv.Key != rangeKey(n) || string(kv.Value) != kv.Key || kv.ModRevision != int64(n+1) {
				t.Fatalf("key %d is %+v", n, kv)
			}
			n++
		}
		return nil
	})
	if err == nil && h != (kvstore.Header{Cluster: 7, Revision: 42}) {
		t.Errorf("header %+v", h)
	}
	return n, err
}

func TestStream(t *testing.T) {
	r, c := serveRanges(t, kvstore.Config{}, func(context.Context, *ranges, int, int) error { return nil })
	n, err := list(t, c)
	if n != rangeKeys || err != nil || r.streams.Load() != 1 || r.pages.Load() != 0 {
		t.Errorf("%d keys, %v; %d streams, %d pages", n, err, r.streams.Load(), r.pages.Load())
	}
}

// A server that cannot stream is asked for pages, and only once whether it can.
func TestStreamIsUnknown(t *testing.T) {
	r, c := serveRanges(t, kvstore.Config{}, nil)
	for i := range int64(3) {
		before := r.pages.Load()
		n, err := list(t, c)
		if n != rangeKeys || err != nil || r.streams.Load() != 1 || r.pages.Load() == before {
			t.Errorf("list %d: %d keys, %v; %d streams, %d pages", i, n, err, r.streams.Load(), r.pages.Load()-before)
		}
	}
}

// A stream whose server says nothing more is given up, there too.
func TestStreamStalls(t *testing.T) {
	gone := make(chan struct{})
	_, c := serveRanges(t, kvstore.Config{CallTimeout: 300 * time.Millisecond}, func(ctx context.Context, _ *ranges, _, sent int) error {
		if sent < 3 {
			return nil
		}
		<-ctx.Done()
		close(gone)
		return ctx.Err()
	})
	n, err := list(t, c)
	if n != 3*rangePart || !errs.Is(err, errs.UnavailableClass) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d keys, %v", n, err)
	}
	<-gone
}

// A connection that breaks in the middle of a list ends it with an error; what came is right, and nothing came twice, although etcd's
// client has a mind to call again by itself.
func TestStreamBreaks(t *testing.T) {
	for _, at := range []int{0, 1, 17, rangeKeys/rangePart - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			_, c := serveRanges(t, kvstore.Config{}, func(ctx context.Context, r *ranges, stream, sent int) error {
				if stream > 1 || sent < at {
					return nil
				}
				r.cut()
				<-ctx.Done()
				return ctx.Err()
			})
			n, err := list(t, c)
			if at == 0 && (n != rangeKeys || err != nil) { // nothing had come: it may be asked for again
				t.Errorf("%d keys, %v", n, err)
			}
			if at > 0 && (n != at*rangePart || !errs.Is(err, errs.UnavailableClass)) {
				t.Errorf("%d keys of %d before the break, %v", n, at*rangePart, err)
			}
			if n, err := list(t, c); n != rangeKeys || err != nil {
				t.Errorf("the next list: %d keys, %v", n, err)
			}
		})
	}
}

// A watcher goes on by itself: it has reported each key once when its list is done.
func TestStreamBreaksUnderAWatcher(t *testing.T) {
	r, c := serveRanges(t, kvstore.Config{}, func(ctx context.Context, r *ranges, stream, sent int) error {
		if stream > 3 || sent < 10*stream {
			return nil
		}
		r.cut()
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	times := map[string]int{}
	err := c.NewWatcher("/r/").Run(ctx, func(b kvstore.Batch) error {
		for _, e := range b.Events {
			if times[e.KV.Key]++; times[e.KV.Key] > 1 || e.Type != kvstore.Created {
				return fmt.Errorf("%v of %s, %d times", e.Type, e.KV.Key, times[e.KV.Key])
			}
		}
		if b.ListDone {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(times) != rangeKeys || r.streams.Load() < 4 {
		t.Errorf("%d keys after %d streams, %v", len(times), r.streams.Load(), err)
	}
}
