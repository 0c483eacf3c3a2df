package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Limits of one value.
const (
	MaxName  = 1024
	MaxValue = 512 << 10
)

// SyncConfig is what a SyncStore needs. Client and Prefix have no default.
type SyncConfig struct {
	Client *kvstore.Client
	Prefix string // ends with a slash; the key of a value is Prefix and its name
	// Canary is the whole key that Synced writes; "" when Synced is not used. See Manager.
	Canary string
	// TTL is how long the keys live on after this process; 0 means 15 minutes. With NoLease they live for ever.
	TTL     time.Duration
	NoLease bool
	Workers int // transactions under way at a time; 0 means 2
	// MaxBatch is how many keys are written together; 0 means 128, which every etcd takes. When the store takes fewer, so many are.
	MaxBatch int
	// Metrics says where writes are measured, under the prefix's kvstore.Scope; nil costs nothing. Stores may share it.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

func (c *SyncConfig) fill() error {
	if c.Client == nil {
		return errs.Invalid("a store needs a client")
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return err
	}
	if strings.HasPrefix(c.Canary, c.Prefix) {
		return errs.Invalid("canary %q: it must not be one of the values under %q", c.Canary, c.Prefix)
	}
	if c.TTL <= 0 {
		c.TTL = 15 * time.Minute
	}
	if c.Workers <= 0 {
		c.Workers = 2
	}
	if c.MaxBatch <= 0 {
		c.MaxBatch = 128
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func checkPrefix(p string) error {
	if !strings.HasSuffix(p, "/") {
		return errs.Invalid("prefix %q: it must end with a slash", p)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return errs.Invalid("name %.40q: 1 to %d bytes are allowed", name, MaxName)
	}
	return nil
}

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
