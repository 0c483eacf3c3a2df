package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-project/shoal/kvstore"
)

// codec is the codec of one call of KV.Range or KV.RangeStream. The generated code makes three objects of each key, which is most of
// what a long list costs; here an answer stays as it came, and keys and values are cut from blocks as it is read.
type codec struct{ answer *mem.Reader }

var _ encoding.CodecV2 = (*codec)(nil)

// Name implements encoding.CodecV2: on the wire it is the usual one.
func (*codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (*codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode a request: %T is no message", v)
	}
	b, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal implements encoding.CodecV2: it keeps the answer, over one that came before and was not read.
func (c *codec) Unmarshal(data mem.BufferSlice, _ any) error {
	c.close()
	c.answer = data.Reader()
	return nil
}

// close gives back what was not read.
func (c *codec) close() {
	if c.answer != nil {
		_ = c.answer.Close() // never fails
		c.answer = nil
	}
}

// block is how much is taken from the heap at a time. What is kept of a block keeps all of it, so it is not large.
const block = 32 << 10

// decoder reads answers of etcd (RangeResponse of its rpc.proto). It keeps nothing of what it reads from.
type decoder struct {
	in      *mem.Reader
	keys    *strings.Builder // never grown, so that what was cut from it stays
	values  []byte
	scratch []byte
	parts   int // keys after which emit is called; 0: never
	emit    func(kvstore.RangeResult) error
}

var errMalformed = errors.New("malformed answer of the database")

// field reads the tag of a field before end (in bytes that remain) and, of a number, its value, of anything else its length.
func (d *decoder) field(end int) (num uint64, typ byte, n uint64, err error) {
	tag, err := binary.ReadUvarint(d.in)
	if err != nil {
		return 0, 0, 0, errMalformed
	}
	num, typ = tag>>3, byte(tag&7)
	switch typ {
	case wireVarint, wireBytes:
		n, err = binary.ReadUvarint(d.in)
	case wireFixed64:
		n = 8
	case wireFixed32:
		n = 4
	default: // groups, which etcd has none of
		err = errMalformed
	}
	if err != nil || num == 0 || num > 1<<29-1 || d.in.Remaining() < end || typ != wireVarint && n > uint64(d.in.Remaining()-end) {
		return 0, 0, 0, errMalformed
	}
	return num, typ, n, nil
}

// How a field is written, of the protocol buffers' encoding.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func (d *decoder) skip(typ byte, n uint64) error {
	if typ == wireVarint {
		return nil
	}
	_, err := d.in.Discard(int(n))
	return err
}

// response reads a RangeResponse that ends where end bytes remain into res.
func (d *decoder) response(end int, res *kvstore.RangeResult) error {
	for d.in.Remaining() > end {
		num, typ, n, err := d.field(end)
		if err != nil {
			return err
		}
		switch {
		case num == 1 && typ == wireBytes:
			err = d.header(d.in.Remaining()-int(n), res)
		case num == 2 && typ == wireBytes:
			var kv kvstore.KeyValue
			if kv, err = d.keyValue(d.in.Remaining() - int(n)); err == nil {
				res.KVs = append(res.KVs, kv)
				if len(res.KVs) == d.parts {
					err = d.emit(*res)
					res.KVs = res.KVs[:0]
				}
			}
		case num == 3 && typ == wireVarint:
			res.More = n != 0
		case num == 4 && typ == wireVarint:
			res.Count = int64(n)
		default:
			err = d.skip(typ, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stream reads a RangeStreamResponse: what it holds is handed over to the end.
func (d *decoder) stream(res *kvstore.RangeResult) error {
	for d.in.Remaining() > 0 {
		num, typ, n, err := d.field(0)
		switch {
		case err != nil:
		case num == 1 && typ == wireBytes:
			err = d.response(d.in.Remaining()-int(n), res)
		default:
			err = d.skip(typ, n)
		}
		if err != nil {
			return err
		}
	}
	if len(res.KVs) == 0 {
		return nil
	}
	err := d.emit(*res)
	res.KVs = res.KVs[:0]
	return err
}

func (d *decoder) header(end int, res *kvstore.RangeResult) error {
	for d.in.Remaining() > end {
		num, typ, n, err := d.field(end)
		switch {
		case err != nil:
			return err
		case num == 1 && typ == wireVarint:
			res.Cluster = n
		case num == 3 && typ == wireVarint:
			res.Revision = int64(n)
		default:
			if err := d.skip(typ, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *decoder) keyValue(end int) (kv kvstore.KeyValue, err error) {
	for d.in.Remaining() > end {
		num, typ, n, err := d.field(end)
		switch {
		case err != nil:
			return kv, err
		case num == 1 && typ == wireBytes:
			kv.Key, err = d.key(int(n))
		case num == 5 && typ == wireBytes:
			kv.Value, err = d.value(int(n))
		case num == 2 && typ == wireVarint:
			kv.CreateRevision = int64(n)
		case num == 3 && typ == wireVarint:
			kv.ModRevision = int64(n)
		case num == 4 && typ == wireVarint:
			kv.Version = int64(n)
		case num == 6 && typ == wireVarint:
			kv.Lease = kvstore.LeaseID(n)
		default:
			err = d.skip(typ, n)
		}
		if err != nil {
			return kv, err
		}
	}
	return kv, nil
}

// key cuts a key of n bytes, which are there.
func (d *decoder) key(n int) (string, error) {
	if d.keys == nil || d.keys.Cap()-d.keys.Len() < n {
		d.keys = new(strings.Builder)
		d.keys.Grow(max(n, min(block, d.in.Remaining())))
	}
	d.scratch = slices.Grow(d.scratch[:0], n)[:n]
	_, err := io.ReadFull(d.in, d.scratch)
	at := d.keys.Len()
	d.keys.Write(d.scratch)
	return d.keys.String()[at:], err
}

// value cuts a value of n bytes, which are there.
func (d *decoder) value(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if cap(d.values)-len(d.values) < n {
		d.values = make([]byte, 0, max(n, min(block, d.in.Remaining())))
	}
	at := len(d.values)
	d.values = d.values[:at+n]
	_, err := io.ReadFull(d.in, d.values[at:])
	return d.values[at : at+n : at+n], err
}
