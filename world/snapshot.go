package world

import (
	"context"
	"errors"

	"github.com/shoal-project/shoal/kvstore"
)

// page is how many keys a read asks for at a time.
const page = 1000

// snapshot reads several ranges as they were at one revision, that of the first read. Not for concurrent use.
type snapshot struct {
	kv  *kvstore.Client
	rev int64
}

// list calls each with all keys with the prefix, in order.
func (s *snapshot) list(ctx context.Context, prefix string, each func(kvstore.KeyValue) error) error {
	r := kvstore.Range{Key: prefix, End: kvstore.PrefixEnd(prefix), Limit: page}
	for {
		r.Revision, r.Serializable = s.rev, s.rev != 0
		res, err := s.kv.Range(ctx, r)
		if r.Serializable && errors.Is(err, kvstore.ErrFuture) { // the local copy lags
			r.Serializable = false
			res, err = s.kv.Range(ctx, r)
		}
		if err != nil {
			return err
		}
		if s.rev == 0 {
			s.rev = res.Revision
		}
		for _, kv := range res.KVs {
			if err := each(kv); err != nil {
				return err
			}
		}
		if !res.More {
			return nil
		}
		r.Key = res.KVs[len(res.KVs)-1].Key + "\x00"
	}
}

// atOnce calls read with a snapshot, and again with a new one when the revision was forgotten meanwhile.
func (w *World) atOnce(ctx context.Context, read func(*snapshot) error) error {
	for try := 0; ; try++ {
		err := read(&snapshot{kv: w.kv})
		if !errors.Is(err, kvstore.ErrCompacted) || try == 2 {
			return err
		}
	}
}
