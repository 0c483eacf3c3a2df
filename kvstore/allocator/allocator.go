package allocator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
)

// Allocator is a node's view of the ids. Safe for concurrent use; no lock is held during a call to the backend.
//
// After a crash the node's references live until their leases end; a new allocator of the same node that allocates the same keys
// takes them over.
type Allocator struct {
	cfg   Config
	pool  *Pool
	cache *cache
	m     *metrics

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	listed chan struct{} // closed after the first list
	wake   chan struct{} // for the writers: queue is not empty
	sync   chan struct{} // for the keeper: suspects is not empty

	mu       sync.Mutex
	held     map[string]*entry
	queue    []*entry
	suspects map[string]Record // held keys whose records were seen to vanish
	stats    Stats
}

// Stats counts what has happened since New.
type Stats struct {
	Held      int   // keys in use on this node
	Known     int   // records of the main store
	Restored  int64 // records that were deleted or lost while in use here, and put back
	Conflicts int64 // ids in use here whose key or number belongs to somebody else: the store lost data. 0 is the only good value
}

// entry is a key that this node uses or wants to use. The allocator's mutex guards it.
type entry struct {
	key      string
	rec      Record
	refs     int   // users; 0 while a task is under way
	task     *task // nil when settled
	then     *task // claim that waits for the end of a release
	attempts int
	ask      Record // what the last refusal said about the key
	stale    bool   // the cache's word about the key proved wrong
	shaky    bool   // all references were checked while this one was being written: it is checked on its own
}

// task is one claim or release on its way to the store.
type task struct {
	release bool
	twice   bool // a reference may have been written after the release was sent: send it again
	waiters int  // callers who want a reference
	done    chan struct{}
	rec     Record
	isNew   bool
	err     error
}

// New returns an allocator that lists the records and follows them in the background.
func New(cfg Config) (*Allocator, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	pool, err := NewPool(cfg.Min, cfg.Max)
	if err != nil {
		return nil, err
	}
	a := &Allocator{cfg: cfg, pool: pool, cache: newCache(pool, cfg.PrefixMask), listed: make(chan struct{}),
		wake: make(chan struct{}, 1), sync: make(chan struct{}, 1), held: map[string]*entry{}, suspects: map[string]Record{}}
	if a.m, err = newMetrics(cfg.Metrics, cfg.Scope); err != nil {
		cfg.Log.Error("the allocator's metrics cannot be registered", "err", err)
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.wg.Go(a.follow)
	a.wg.Go(a.keep)
	for range writers {
		a.wg.Go(a.write)
	}
	return a, nil
}

// Close ends all background work and fails the calls under way with ErrClosed. It releases nothing: a restart keeps its ids.
func (a *Allocator) Close() {
	a.mu.Lock()
	a.cancel()
	a.mu.Unlock()
	a.wg.Wait()
}

// Ready waits until the existing records are known. Allocate does so itself.
func (a *Allocator) Ready(ctx context.Context) error {
	select {
	case <-a.listed:
		return nil
	case <-a.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("wait for the list of ids: %w", context.Cause(ctx))
	}
}

// join returns a context that ends, with ErrClosed as its cause, with the allocator too.
func (a *Allocator) join(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(a.ctx, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// ended makes ErrClosed of an error that came from the end of the allocator.
func (a *Allocator) ended(err error) error {
	if err != nil && a.ctx.Err() != nil {
		return ErrClosed
	}
	return err
}

// Allocation is what Allocate gives.
type Allocation struct {
	ID    ID
	New   bool // this call made the record: the key had no id before
	First bool // this call is the first user of the key on this node
}

// Allocate returns the id of a key and counts the caller among its users; Release is called once for each success. A key that is in
// use on this node costs nothing, a known one and a new one a transaction, shared with whatever else is wanted at the time.
// When ctx ends first the caller is no user, and what was written for it alone is taken back in the background.
func (a *Allocator) Allocate(ctx context.Context, key string) (al Allocation, err error) {
	end := a.m.begin("allocate")
	al, err = a.allocate(ctx, key)
	end(err)
	if err == nil && a.m != nil {
		a.m.allocated(al)
	}
	return al, err
}

func (a *Allocator) allocate(ctx context.Context, key string) (Allocation, error) {
	if err := CheckKey(key); err != nil {
		return Allocation{}, err
	}
	if err := a.Ready(ctx); err != nil {
		return Allocation{}, err
	}
	a.mu.Lock()
	al, t := a.acquire(key)
	a.mu.Unlock()
	if t == nil {
		return al, nil
	}
	rec, isNew, err := a.await(ctx, key, t)
	if err != nil {
		return Allocation{}, fmt.Errorf("allocate an id for %.40q: %w", key, err)
	}
	return Allocation{ID: rec.ID, New: isNew && al.First, First: al.First}, nil
}

// AllocateMany allocates each of the keys, in as few transactions as possible, or none.
func (a *Allocator) AllocateMany(ctx context.Context, keys []string) ([]Allocation, error) {
	end := a.m.begin("allocate_many")
	all, err := a.allocateMany(ctx, keys)
	end(err)
	a.m.allocated(all...)
	return all, err
}

func (a *Allocator) allocateMany(ctx context.Context, keys []string) ([]Allocation, error) {
	for _, key := range keys {
		if err := CheckKey(key); err != nil {
			return nil, err
		}
	}
	if err := a.Ready(ctx); err != nil {
		return nil, err
	}
	out := make([]Allocation, len(keys))
	tasks := make([]*task, len(keys))
	a.mu.Lock() // all of them before a writer takes the first
	for i, key := range keys {
		out[i], tasks[i] = a.acquire(key)
	}
	a.mu.Unlock()
	var first error
	var have []string
	for i, t := range tasks {
		if t != nil {
			rec, isNew, err := a.await(ctx, keys[i], t)
			if err != nil {
				first = errors.Join(first, fmt.Errorf("allocate an id for %.40q: %w", keys[i], err))
				if ctx.Err() != nil {
					first = err
				}
				continue
			}
			out[i].ID, out[i].New = rec.ID, isNew && out[i].First
		}
		have = append(have, keys[i])
	}
	if first != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, key := range have {
			_, _ = a.unref(key) // written in the background
		}
		return nil, first
	}
	return out, nil
}

// acquire makes the caller a user of the key at once, or returns the task that will. The caller holds the mutex.
func (a *Allocator) acquire(key string) (Allocation, *task) {
	e := a.held[key]
	switch {
	case e == nil:
		e = &entry{key: key}
		a.held[key] = e
		a.start(e, &task{waiters: 1, done: make(chan struct{})})
		return Allocation{First: true}, e.task
	case e.task == nil:
		e.refs++
		return Allocation{ID: e.rec.ID}, nil
	case !e.task.release:
		e.task.waiters++
		return Allocation{}, e.task
	case e.then == nil:
		e.then = &task{waiters: 1, done: make(chan struct{})}
		return Allocation{First: true}, e.then
	}
	e.then.waiters++
	return Allocation{}, e.then
}

// await waits for a claim. A caller that does not want to wait any longer is taken off the list of users.
func (a *Allocator) await(ctx context.Context, key string, t *task) (Record, bool, error) {
	select {
	case <-t.done:
		return t.rec, t.isNew, t.err
	case <-a.ctx.Done():
		return Record{}, false, ErrClosed
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-t.done:
		if t.err == nil {
			_ = a.drop(key)
		}
	default:
		t.waiters--
	}
	return Record{}, false, context.Cause(ctx)
}

// Release gives one use of a key up; last is true when it was the last one on this node. Then the reference is deleted: Release waits for that, but
// when it fails with ctx's error the deletion goes on in the background. Without a use it fails with class NotFound.
func (a *Allocator) Release(ctx context.Context, key string) (last bool, err error) {
	end := a.m.begin("release")
	defer func() { end(err) }()
	a.mu.Lock()
	t, err := a.unref(key)
	a.mu.Unlock()
	if err != nil || t == nil {
		return false, err
	}
	select {
	case <-t.done:
		return true, t.err
	case <-a.ctx.Done():
		return true, ErrClosed
	case <-ctx.Done():
		return true, fmt.Errorf("release %.40q: %w", key, context.Cause(ctx))
	}
}

// unref takes one user off a key. The caller holds the mutex.
func (a *Allocator) unref(key string) (*task, error) {
	if e := a.held[key]; e == nil || e.task != nil {
		return nil, errs.NotFound("key %.40q is not in use on this node", key)
	}
	return a.drop(key), nil
}

// drop takes one user off a held key and returns the release that follows from it. The caller holds the mutex.
func (a *Allocator) drop(key string) *task {
	e := a.held[key]
	if e.refs--; e.refs > 0 {
		return nil
	}
	t := &task{release: true, done: make(chan struct{})}
	a.start(e, t)
	return t
}

// ReleaseMany gives up one use of each of the keys; keys that are not in use are left out of account.
func (a *Allocator) ReleaseMany(ctx context.Context, keys []string) (err error) {
	end := a.m.begin("release_many")
	defer func() { end(err) }()
	var tasks []*task
	a.mu.Lock()
	for _, key := range keys {
		if t, _ := a.unref(key); t != nil {
			tasks = append(tasks, t)
		}
	}
	a.mu.Unlock()
	for _, t := range tasks {
		select {
		case <-t.done:
		case <-a.ctx.Done():
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("release %d keys: %w", len(keys), context.Cause(ctx))
		}
	}
	return nil
}

// Stats returns counters.
func (a *Allocator) Stats() Stats {
	a.mu.Lock()
	s := a.stats
	for _, e := range a.held {
		if e.refs > 0 {
			s.Held++
		}
	}
	a.mu.Unlock()
	s.Known = a.cache.len("")
	return s
}
