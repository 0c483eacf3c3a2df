package mem

import (
	"context"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

// Grant implements kvstore.Backend. The time is kept as it is, not rounded to seconds.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (kvstore.LeaseID, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	id := kvstore.LeaseID(rand.Int64() | 1)
	l := &lease{ttl: ttl, until: time.Now().Add(ttl), keys: map[string]bool{}}
	l.timer = time.AfterFunc(ttl, func() { s.expire(id, l) })
	s.leases[id] = l
	return id, nil
}

// KeepAlive implements kvstore.Backend.
func (s *Store) KeepAlive(ctx context.Context, id kvstore.LeaseID) (time.Duration, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return 0, kvstore.ErrLeaseExpired
	}
	l.until = time.Now().Add(l.ttl)
	l.timer.Reset(l.ttl)
	return l.ttl, nil
}

// Revoke implements kvstore.Backend.
func (s *Store) Revoke(ctx context.Context, id kvstore.LeaseID) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.drop(id)
	return nil
}

// expire runs when a lease's timer fires; a renewal may have been faster.
func (s *Store) expire(id kvstore.LeaseID, l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leases[id] != l || time.Now().Before(l.until) {
		return
	}
	s.drop(id)
}

func (s *Store) drop(id kvstore.LeaseID) {
	l := s.leases[id]
	if l == nil {
		return
	}
	l.timer.Stop()
	delete(s.leases, id)
	keys := make([]string, 0, len(l.keys))
	for k := range l.keys {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var ev []kvstore.Event
	for _, k := range keys {
		ev = append(ev, s.remove(k))
	}
	s.commit(ev)
}
