package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// lost queues the keys whose lease is gone; one that is being written is written once more.
func (s *SyncStore) lost(paths []string) {
	s.cfg.Log.Warn("a lease was lost, writing its values again", "prefix", s.cfg.Prefix, "keys", len(paths))
	s.m.count("lost", len(paths))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range paths {
		if it := s.items[path]; it != nil {
			s.enqueue(it)
		}
	}
}

func (s *SyncStore) work(ctx context.Context) {
	const first = 10 * time.Millisecond
	back := first
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		batch, txn := s.take()
		if len(batch) == 0 {
			continue
		}
		end := s.m.begin("write")
		err := s.send(ctx, txn)
		end(err)
		s.sent(batch, err)
		if err == nil {
			back = first
			continue
		}
		s.cfg.Log.Warn("values cannot be written, trying again", "prefix", s.cfg.Prefix, "keys", len(batch), "err", err, "retry", back)
		select {
		case <-ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)):
		}
		back = min(back*2, 5*time.Second)
	}
}

// take removes a batch from the queue and writes its transaction.
func (s *SyncStore) take() ([]*item, kvstore.Txn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var txn kvstore.Txn
	n, size := 0, 0
	for ; n < len(s.queue) && n < s.limit; n++ {
		it := s.queue[n]
		if size += len(it.path) + len(it.value); size > kvstore.MaxTxnBytes && n > 0 {
			break
		}
		it.queued, it.flying, it.dirty = false, true, false
		op := kvstore.Put(it.path, it.value)
		if it.absent {
			op = kvstore.Delete(it.path)
		}
		txn.Then = append(txn.Then, op)
	}
	batch := s.queue[:n:n]
	s.m.queued(-n)
	if s.queue = s.queue[n:]; len(s.queue) > 0 {
		s.poke()
	} else {
		s.queue = nil
	}
	return batch, txn
}

// send writes a transaction, its puts under leases of the pool.
func (s *SyncStore) send(ctx context.Context, txn kvstore.Txn) error {
	var puts []int
	var paths []string
	for i, op := range txn.Then {
		if op.Type == kvstore.OpPut {
			puts, paths = append(puts, i), append(paths, op.Key)
		}
	}
	var leases []kvstore.LeaseID
	var err error
	if !s.cfg.NoLease {
		if leases, err = s.pool.TakeAll(ctx, paths); err != nil {
			return err
		}
		for n, i := range puts {
			txn.Then[i].Lease = leases[n]
		}
	}
	_, err = s.cfg.Client.Txn(ctx, txn)
	if err == nil {
		s.m.count("put", len(puts))
		s.m.count("deleted", len(txn.Then)-len(puts))
	}
	if errors.Is(err, kvstore.ErrLeaseExpired) {
		if rerr := s.pool.Refused(ctx, leases); rerr != nil {
			return rerr
		}
		return errs.Classify(errs.UnavailableClass, err) // nothing is wrong with the values
	}
	return err
}

// sent takes the outcome of a transaction.
func (s *SyncStore) sent(batch []*item, err error) {
	var run []func()
	s.mu.Lock()
	switch {
	case err == nil:
		s.limit = min(s.limit*2, s.most)
	case errors.Is(err, kvstore.ErrTooLarge) && len(batch) > fewest:
		s.most = max(len(batch)/2, fewest)
		s.limit = s.most
		s.failed++
	case !errs.Is(err, errs.UnavailableClass):
		s.limit = max(len(batch)/2, 1) // one value that the store refuses must not hold up the others
		s.failed++
	default:
		s.failed++
	}
	for _, it := range batch {
		it.flying = false
		if err != nil || it.dirty {
			s.enqueue(it)
		}
		if err != nil {
			continue
		}
		delete(s.before, it.path)
		if it.path == s.cfg.Canary {
			run, s.onSync = s.onSync, nil
		}
		if it.dirty {
			continue
		}
		for _, done := range it.done {
			close(done)
		}
		if it.done = nil; it.absent {
			delete(s.items, it.path)
			s.pool.Give(it.path) // before anybody can want it again
		}
	}
	s.sing()
	s.mu.Unlock()
	for _, f := range run {
		f()
	}
}
