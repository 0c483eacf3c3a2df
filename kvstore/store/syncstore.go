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

// Limits of one value.
const (
	MaxName  = 1024
	MaxValue = 512 << 10
)

// fewest is the number of keys that no store refuses for being too many.
const fewest = 16

// item is a key that is to be written or was. The store's mutex guards it.
type item struct {
	path   string
	value  []byte
	absent bool // to be deleted
	queued bool
	flying bool // in a transaction under way
	dirty  bool // changed since it was taken for that transaction
	done   []chan struct{}
}

// SyncStore writes values: the newest one of each name, several names in a transaction, again and again until it works. The order
// between names is not kept. What is wanted is kept in memory only; keys of a former process that nobody wants any more go with its lease.
// Safe for concurrent use.
type SyncStore struct {
	cfg  SyncConfig
	pool *kvstore.LeasePool
	wake chan struct{}
	m    *metrics
	over chan struct{} // closed when Run has ended

	mu      sync.Mutex
	running bool
	items   map[string]*item // by path
	queue   []*item
	most    int             // keys that the store takes in a transaction, as far as it has said
	limit   int             // keys in the next transaction; less than most after a refusal
	before  map[string]bool // paths that have to be written before the canary; nil: Synced was not called
	onSync  []func()
	failed  int64
}

// NewSyncStore returns a store that wants nothing yet.
func NewSyncStore(cfg SyncConfig) (*SyncStore, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &SyncStore{cfg: cfg, wake: make(chan struct{}, 1), over: make(chan struct{}), items: map[string]*item{}, most: cfg.MaxBatch, limit: cfg.MaxBatch}
	var err error
	if s.m, err = newMetrics(cfg.Metrics, kvstore.Scope(cfg.Prefix)); err != nil {
		cfg.Log.Error("the store's metrics cannot be registered", "prefix", cfg.Prefix, "err", err)
	}
	s.pool = cfg.Client.NewPool(kvstore.PoolConfig{TTL: cfg.TTL})
	s.pool.Observe("", s.lost)
	return s, nil
}

// Upsert wants name to have a value. It never waits; a value that is wanted already costs nothing.
func (s *SyncStore) Upsert(name string, value []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return errs.TooLarge("value of %.40q: %d bytes are allowed, it has %d", name, MaxValue, len(value))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.cfg.Prefix + name
	it := s.items[path]
	if it == nil {
		it = &item{path: path}
		s.items[path] = it
	} else if !it.absent && bytes.Equal(it.value, value) {
		return nil
	}
	it.value, it.absent = bytes.Clone(value), false
	s.enqueue(it)
	return nil
}

// Delete wants name to be gone, if it was wanted before.
func (s *SyncStore) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[s.cfg.Prefix+name]; it != nil && !it.absent {
		it.value, it.absent = nil, true
		s.enqueue(it)
	}
}

// Rewrite writes a wanted value again although it has not changed: somebody else deleted it.
func (s *SyncStore) Rewrite(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it := s.items[s.cfg.Prefix+name]; it != nil {
		s.enqueue(it)
	}
}

// Flush waits until what is wanted of name has been written. When Run ends first, or has ended, it fails with kvstore.ErrClosed.
func (s *SyncStore) Flush(ctx context.Context, name string) error {
	s.mu.Lock()
	it := s.items[s.cfg.Prefix+name]
	if it == nil || !it.queued && !it.flying {
		s.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	it.done = append(it.done, done)
	s.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-s.over:
		return fmt.Errorf("write %.40q: %w", name, kvstore.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("write %.40q: %w", name, context.Cause(ctx))
	}
}

// Synced has the canary written when all that is wanted now has been; then the callbacks run, once. A second call is an error.
func (s *SyncStore) Synced(callbacks ...func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cfg.Canary == "":
		return errs.Invalid("the store of %s has no canary", s.cfg.Prefix)
	case s.before != nil:
		return errs.Conflict("the store of %s was said to be synced before", s.cfg.Prefix)
	}
	s.before, s.onSync = map[string]bool{}, callbacks
	for path, it := range s.items {
		if it.queued || it.flying {
			s.before[path] = true
		}
	}
	s.sing()
	return nil
}

// sing queues the canary when nothing stands before it. The caller holds the mutex.
func (s *SyncStore) sing() {
	if s.before == nil || len(s.before) > 0 || s.items[s.cfg.Canary] != nil {
		return
	}
	it := &item{path: s.cfg.Canary, value: []byte(time.Now().UTC().Format(time.RFC3339))}
	s.items[it.path] = it
	s.enqueue(it)
}

// Pending is the number of keys that are still to be written, Failures that of transactions that did not work.
func (s *SyncStore) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.queue)
	for _, it := range s.items {
		if it.flying {
			n++
		}
	}
	return n
}

// Failures is the number of transactions that had to be repeated.
func (s *SyncStore) Failures() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// enqueue has an item written. The caller holds the mutex.
func (s *SyncStore) enqueue(it *item) {
	switch {
	case it.flying:
		it.dirty = true
		return
	case it.queued:
		return
	}
	it.queued = true
	s.queue = append(s.queue, it)
	s.m.queued(1)
	s.poke()
}

func (s *SyncStore) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends. It is called once.
func (s *SyncStore) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errs.Busy("the store of %s runs already", s.cfg.Prefix)
	}
	s.running = true
	s.mu.Unlock()
	var wg sync.WaitGroup
	for range s.cfg.Workers {
		wg.Go(func() { s.work(ctx) })
	}
	wg.Wait()
	close(s.over)
	s.pool.Close()
	s.mu.Lock()
	s.m.queued(-len(s.queue)) // nobody writes it any more
	s.mu.Unlock()
	return context.Cause(ctx)
}
