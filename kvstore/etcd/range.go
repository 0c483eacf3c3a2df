package etcd

import (
	"context"
	"errors"
	"io"
	"math"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoal-project/shoal/kvstore"
)

var _ kvstore.Streamer = (*Backend)(nil)

// Range implements kvstore.Backend.
func (b *Backend) Range(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return kvstore.RangeResult{}, err
	}
	defer done()
	if b.kv == nil {
		return b.local(ctx, r)
	}
	var c codec
	defer c.close()
	if _, err = b.kv.Range(ctx, request(r), grpc.ForceCodecV2(&c), grpc.MaxCallRecvMsgSize(math.MaxInt32)); err != nil {
		return kvstore.RangeResult{}, b.failed(clientv3.ContextError(ctx, err))
	}
	res := kvstore.RangeResult{KVs: r.Buf[:0]}
	d := decoder{in: c.answer}
	if err := d.response(0, &res); err != nil {
		return kvstore.RangeResult{}, err
	}
	return res, nil
}

func request(r kvstore.Range) *etcdserverpb.RangeRequest {
	req := &etcdserverpb.RangeRequest{Key: []byte(r.Key), Limit: r.Limit, Revision: r.Revision, CountOnly: r.CountOnly, Serializable: r.Serializable}
	if r.End != "" {
		req.RangeEnd = []byte(r.End)
		if r.Key == "" {
			req.Key = []byte{0} // the smallest key that there can be
		}
	}
	return req
}

// local reads from the member in this process, whose memory it shares.
func (b *Backend) local(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	opts := []clientv3.OpOption{clientv3.WithLimit(r.Limit), clientv3.WithRev(r.Revision)}
	if r.End != "" {
		opts = append(opts, clientv3.WithRange(r.End))
	}
	if r.CountOnly {
		opts = append(opts, clientv3.WithCountOnly())
	}
	if r.Serializable {
		opts = append(opts, clientv3.WithSerializable())
	}
	res, err := b.cl.Get(ctx, r.Key, opts...)
	if err != nil {
		return kvstore.RangeResult{}, b.failed(err)
	}
	return kvstore.RangeResult{Header: header(res.Header), KVs: convert(res.Kvs, r.Buf), More: res.More, Count: res.Count}, nil
}

// part is how many keys a stream hands over at a time.
const part = 1000

// RangeStream implements kvstore.Streamer, with etcd's RangeStream: there since 3.7, and not for a member in this process, which has nothing to send.
func (b *Backend) RangeStream(ctx context.Context, r kvstore.Range, each func(kvstore.RangeResult) error) (kvstore.Header, bool, error) {
	if b.kv == nil || b.pages.Load() {
		return kvstore.Header{}, false, nil
	}
	ctx, cancel := context.WithCancel(ctx) // gives the stream up when each fails
	defer cancel()
	ctx, done, err := b.call(ctx)
	if err != nil {
		return kvstore.Header{}, true, err
	}
	defer done()
	var c codec
	defer c.close()
	s, err := b.kv.RangeStream(ctx, request(r), grpc.ForceCodecV2(&c), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	d := decoder{parts: part, emit: each}
	res := kvstore.RangeResult{KVs: make([]kvstore.KeyValue, 0, part)}
	for err == nil {
		if _, err = s.Recv(); err != nil {
			break
		}
		d.in = c.answer
		if err := d.stream(&res); err != nil {
			return kvstore.Header{}, true, err
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return res.Header, true, nil
	case status.Code(err) == codes.Unimplemented:
		b.pages.Store(true)
		return kvstore.Header{}, false, nil
	}
	return kvstore.Header{}, true, b.failed(clientv3.ContextError(ctx, err))
}
