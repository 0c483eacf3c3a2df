// Package session keeps a lease for as long as its owner lives: it grants one when it is first needed, notices when it is
// lost, and says so, because all keys under it are gone then and only their owner knows what they were.
package session

import (
	"context"
	"sync"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

// Granter makes leases; *kvstore.Client does.
type Granter interface {
	NewLease(ctx context.Context, ttl time.Duration) (*kvstore.Lease, error)
}

// Session is one lease after another. Safe for concurrent use; no lock is held during a call to the store.
type Session struct {
	from Granter
	ttl  time.Duration
	lost chan struct{}
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	cur      *kvstore.Lease
	granting chan struct{} // closed when the grant under way has ended
	closed   bool
}

// New returns a session that has no lease yet.
func New(from Granter, ttl time.Duration) *Session {
	return &Session{from: from, ttl: ttl, lost: make(chan struct{}, 1), stop: make(chan struct{})}
}

// Lost delivers a signal after a lease was lost: what was written under it has to be written again.
func (s *Session) Lost() <-chan struct{} { return s.lost }

// Lease returns the lease to write under; it grants one when there is none. One caller grants, the others wait for it.
func (s *Session) Lease(ctx context.Context) (kvstore.LeaseID, error) {
	for {
		s.mu.Lock()
		cur, wait := s.cur, s.granting
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, kvstore.ErrClosed
		case cur != nil:
			s.mu.Unlock()
			return cur.ID(), nil
		case wait == nil:
			wait = make(chan struct{})
			s.granting = wait
			s.mu.Unlock()
			if err := s.grant(ctx, wait); err != nil {
				return 0, err
			}
			continue
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (s *Session) grant(ctx context.Context, done chan struct{}) error {
	l, err := s.from.NewLease(ctx, s.ttl)
	s.mu.Lock()
	s.granting = nil
	close(done)
	if err != nil || s.closed {
		s.mu.Unlock()
		if l != nil {
			l.Release()
		}
		return err
	}
	defer s.mu.Unlock()
	s.cur = l // before anybody can look for its end: a lease that ends at once is dropped like any other
	s.wg.Go(func() {
		select {
		case <-l.Lost():
			s.Drop(l.ID())
		case <-s.stop:
		}
	})
	return nil
}

// Drop says that the store does not know the lease any more. It is harmless for one that was dropped before.
func (s *Session) Drop(id kvstore.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil || s.cur.ID() != id || s.closed {
		return
	}
	old := s.cur
	s.cur = nil
	s.wg.Go(old.Release)
	select {
	case s.lost <- struct{}{}:
	default:
	}
}

// Close stops the renewal; the keys live until the lease's time is up. It returns when nothing of the session runs any more.
func (s *Session) Close() {
	s.mu.Lock()
	cur, was := s.cur, s.closed
	s.closed = true
	if !was {
		close(s.stop)
	}
	s.mu.Unlock()
	if cur != nil && !was {
		cur.Release()
	}
	s.wg.Wait()
}

// Revoke ends the session and has its keys deleted at once.
func (s *Session) Revoke(ctx context.Context) error {
	s.mu.Lock()
	cur := s.cur
	s.mu.Unlock()
	s.Close()
	if cur == nil {
		return nil
	}
	return cur.Close(ctx)
}
