package store

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// SharedConfig is what a Shared store needs.
type SharedConfig[T any] struct {
	SyncConfig
	// Decode makes a value of what stands under a name; required. What it refuses is left out with a warning.
	Decode   func(name string, data []byte) (T, error)
	OnUpdate func(name string, v T)
	OnDelete func(name string, last T)
	// SyncInterval is how often the own values are compared with what stands in the store; 0 means 5 minutes.
	SyncInterval time.Duration
	// DeleteDelay is how long a value of somebody else stays after its deletion, in case it comes back.
	DeleteDelay time.Duration
}

// Shared is a set of values of which each member owns some and sees all. The own ones are put back when somebody deletes them, when the lease is
// lost, and when a comparison from time to time finds them missing or changed.
type Shared[T any] struct {
	cfg   SharedConfig[T]
	out   *SyncStore
	ready chan struct{} // closed after the first list

	mu    sync.RWMutex
	local map[string][]byte
	seen  map[string]shared[T]
}

// shared is a value as it stands, or stood, in the store.
type shared[T any] struct {
	v    T
	data []byte
	// gone is when it was deleted; the zero time while it exists.
	gone time.Time
}

// NewShared returns a store; nothing happens before Run.
func NewShared[T any](cfg SharedConfig[T]) (*Shared[T], error) {
	if cfg.Decode == nil {
		return nil, errs.Invalid("a shared store needs to know how to decode")
	}
	out, err := NewSyncStore(cfg.SyncConfig)
	if err != nil {
		return nil, err
	}
	cfg.SyncConfig = out.cfg // with the defaults
	if cfg.SyncInterval <= 0 {
		cfg.SyncInterval = 5 * time.Minute
	}
	if cfg.OnUpdate == nil {
		cfg.OnUpdate = func(string, T) {}
	}
	if cfg.OnDelete == nil {
		cfg.OnDelete = func(string, T) {}
	}
	return &Shared[T]{cfg: cfg, out: out, ready: make(chan struct{}), local: map[string][]byte{}, seen: map[string]shared[T]{}}, nil
}

// Update makes a value one of the own ones and waits until it is written. When ctx ends first it is still going to be.
func (s *Shared[T]) Update(ctx context.Context, name string, data []byte) error {
	if _, err := s.cfg.Decode(name, data); err != nil {
		return fmt.Errorf("value of %.40q: %w", name, err)
	}
	if err := s.out.Upsert(name, data); err != nil {
		return err
	}
	s.mu.Lock()
	s.local[name] = bytes.Clone(data)
	s.mu.Unlock()
	return s.out.Flush(ctx, name)
}

// Delete gives an own value up and waits until it is deleted. Without one it does nothing.
func (s *Shared[T]) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	if _, own := s.local[name]; own {
		delete(s.local, name)
		if e, ok := s.seen[name]; ok { // no delay: it does not come back
			e.gone = time.Now().Add(-s.cfg.DeleteDelay)
			s.seen[name] = e
		}
	}
	s.mu.Unlock()
	s.out.Delete(name)
	return s.out.Flush(ctx, name)
}

// DeleteAll gives all own values up. Without it they live on under the lease after Run.
func (s *Shared[T]) DeleteAll(ctx context.Context) error {
	s.mu.RLock()
	var names []string
	for name := range s.local {
		names = append(names, name)
	}
	s.mu.RUnlock()
	for _, name := range names {
		s.out.Delete(name)
	}
	for _, name := range names {
		if err := s.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Ready waits until all existing values are known. When Run ends first it fails with kvstore.ErrClosed.
func (s *Shared[T]) Ready(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.out.over:
		return fmt.Errorf("wait for the list of %s: %w", s.cfg.Prefix, kvstore.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("wait for the list of %s: %w", s.cfg.Prefix, context.Cause(ctx))
	}
}

// All returns a copy of the map of values, the own ones as they stand in the store.
func (s *Shared[T]) All() map[string]T {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]T, len(s.seen))
	for name, e := range s.seen {
		out[name] = e.v
	}
	return out
}

// Run follows the store and writes the own values until ctx ends. It is called once. One goroutine does what observers see.
func (s *Shared[T]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { cancel(s.out.Run(ctx)) })
	batches := make(chan kvstore.Batch)
	wg.Go(func() {
		cancel(s.cfg.Client.NewWatcher(s.cfg.Prefix).Run(ctx, func(b kvstore.Batch) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}))
	})
	tick := time.NewTicker(s.cfg.SyncInterval)
	defer tick.Stop()
	late := time.NewTimer(time.Hour)
	defer late.Stop()
	listed := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case b := <-batches:
			s.apply(b)
			if b.ListDone && !listed {
				listed = true
				close(s.ready)
			}
		case <-tick.C:
			s.compare()
		case <-late.C:
		}
		late.Reset(s.bury(time.Now()))
	}
}

func (s *Shared[T]) apply(b kvstore.Batch) {
	for _, ev := range b.Events {
		name := ev.KV.Key[len(s.cfg.Prefix):]
		s.mu.Lock()
		_, own := s.local[name]
		old, known := s.seen[name]
		if ev.Type == kvstore.Deleted {
			if known && old.gone.IsZero() {
				old.gone = time.Now()
				s.seen[name] = old
			}
			s.mu.Unlock()
			if own {
				s.out.Rewrite(name)
			}
			continue
		}
		s.mu.Unlock()
		v, err := s.cfg.Decode(name, ev.KV.Value)
		if err != nil {
			s.out.m.count("unreadable", 1)
			s.cfg.Log.Warn("value is unreadable, leaving it out", "key", ev.KV.Key, "err", err)
			continue
		}
		s.mu.Lock()
		s.seen[name] = shared[T]{v: v, data: ev.KV.Value}
		s.mu.Unlock()
		s.out.m.count("updated", 1)
		s.cfg.OnUpdate(name, v)
	}
}

// bury reports deletions whose delay is over, and returns when the next one will be. An own value that was deleted by
// somebody else comes back and is not reported.
func (s *Shared[T]) bury(now time.Time) time.Duration {
	next := time.Hour
	dead := map[string]T{}
	s.mu.Lock()
	for name, e := range s.seen {
		if _, own := s.local[name]; own || e.gone.IsZero() {
			continue
		}
		if left := e.gone.Add(s.cfg.DeleteDelay).Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		dead[name] = e.v
		delete(s.seen, name)
	}
	s.mu.Unlock()
	for name, v := range dead {
		s.out.m.count("gone", 1)
		s.cfg.OnDelete(name, v)
	}
	return next
}

// compare writes again what is missing or different in the store.
func (s *Shared[T]) compare() {
	s.mu.RLock()
	var wrong []string
	for name, data := range s.local {
		if e, ok := s.seen[name]; !ok || !e.gone.IsZero() || !bytes.Equal(e.data, data) {
			wrong = append(wrong, name)
		}
	}
	s.mu.RUnlock()
	for _, name := range wrong {
		s.out.Rewrite(name)
	}
}
