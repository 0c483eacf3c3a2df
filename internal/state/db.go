package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// Options are the optional parts of a database.
type Options struct {
	Log    *slog.Logger
	Prefix string // "" means DefaultPrefix; ends with a slash
	// Hub is the stream to follow, of a prefix of Prefix and of the same client, which stays the caller's; nil means one of the database's own.
	Hub *kvstore.Hub
	// Timeout bounds each write and each wait for the cache; 0 means 10 s.
	Timeout time.Duration
}

// DB is one key-value store seen as tables. Safe for concurrent use.
type DB struct {
	kv      *kvstore.Client
	log     *slog.Logger
	prefix  string
	timeout time.Duration
	watcher *kvstore.Watcher // nil in memory
	hub     *kvstore.Hub
	verify  bool // panic when a shared value was changed; in memory
	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing feeds the cache any more

	mu      sync.RWMutex
	rows    *btree.BTree[*row] // everything, by key
	tables  map[string][]feed
	rev     int64 // up to which rows is complete; 0 before the first list and after a reset
	waiters map[*waiter]struct{}
	err     error // why the feed ended
}

// row is one key of the store. Immutable.
type row struct {
	key string // without the database's prefix: table/key
	raw []byte
	rev int64
}

// feed is a typed table as the cache sees it.
type feed interface {
	// set changes one key and returns what is to be called without the lock, or nil. now is nil when the key was deleted.
	// It is called with DB.mu held.
	set(key string, now *row) func()
}

type waiter struct {
	rev int64
	ch  chan error
}

func newDB(kv *kvstore.Client, o Options) *DB {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return &DB{kv: kv, log: o.Log, prefix: o.Prefix, timeout: o.Timeout, cancel: func() {}, done: make(chan struct{}),
		rows:   btree.New(32, func(a, b *row) bool { return a.key < b.key }),
		tables: map[string][]feed{}, waiters: map[*waiter]struct{}{}}
}

// NewMemory returns a database that lives in this process only; for tests of other rooms. It has no goroutine and needs no
// Close. It panics when it finds that a shared value was changed in place.
func NewMemory() *DB {
	store := mem.New()
	db := newDB(kvstore.New(store, kvstore.Config{}), Options{})
	db.verify, db.rev = true, 1
	store.OnCommit(func(r kvstore.WatchResponse) {
		if err := db.apply(kvstore.Batch{Events: r.Events, Revision: r.Revision}); err != nil {
			panic(err)
		}
	})
	return db
}

// Open follows the store behind kv and returns when all of it is in memory, or ctx ends. The client stays the caller's, to be closed after
// the database.
func Open(ctx context.Context, kv *kvstore.Client, o Options) (*DB, error) {
	if o.Prefix != "" && !strings.HasSuffix(o.Prefix, "/") {
		return nil, fmt.Errorf("open the database: prefix %q must end with a slash", o.Prefix)
	}
	db := newDB(kv, o)
	release := func() {}
	if db.hub = o.Hub; db.hub == nil {
		db.hub = kv.NewHub(kvstore.HubConfig{Prefix: db.prefix})
		release = db.hub.Close
	}
	var err error
	if db.watcher, err = db.hub.NewWatcher(db.prefix); err != nil {
		return nil, fmt.Errorf("open the database: %w", err) // a hub of our own has the prefix
	}
	db.watcher.Resync()
	wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	db.cancel = cancel
	go func() {
		defer close(db.done)
		defer release()
		err := db.watcher.Run(wctx, db.apply)
		db.fail(err)
		if wctx.Err() == nil {
			db.log.Error("the database is not followed any more", "err", err)
		}
	}()
	if err := db.WaitRev(ctx, 1); err != nil {
		db.Close()
		return nil, fmt.Errorf("open the database: read it for the first time: %w", err)
	}
	return db, nil
}

// Close stops following the store. Reads go on to return what is known; writes fail.
func (db *DB) Close() {
	db.cancel()
	if db.watcher != nil {
		<-db.done
	}
}

// Hub returns the stream that feeds the cache, for whoever follows other keys below its prefix; nil in memory. It ends with the database, unless
// Options brought it.
func (db *DB) Hub() *kvstore.Hub { return db.hub }

// Rev returns the revision up to which reads see everything; 0 while the store is being read anew.
func (db *DB) Rev() int64 {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.rev
}

// Lists counts how often the whole store had to be read: 1, and one more for each compaction that overtook the watch or restored server.
func (db *DB) Lists() int64 {
	if db.watcher == nil {
		return 0
	}
	return db.watcher.Lists()
}

// apply brings a batch of the watcher into the cache.
func (db *DB) apply(b kvstore.Batch) error {
	var calls []func()
	db.mu.Lock()
	if b.Reset {
		db.rev = 0
		db.wake(errs.Unavailable("the database was restored to another state meanwhile"))
	}
	for _, e := range b.Events {
		key := strings.TrimPrefix(e.KV.Key, db.prefix)
		var now *row
		if e.Type != kvstore.Deleted {
			now = &row{key: key, raw: e.KV.Value, rev: e.KV.ModRevision}
			db.rows.ReplaceOrInsert(now)
		} else {
			db.rows.Delete(&row{key: key})
		}
		name, rest, _ := strings.Cut(key, "/")
		for _, f := range db.tables[name] {
			if c := f.set(rest, now); c != nil {
				calls = append(calls, c)
			}
		}
	}
	if b.Revision > 0 {
		db.rev = b.Revision
		db.wake(nil)
	}
	db.mu.Unlock()
	for _, c := range calls {
		c()
	}
	return nil
}

// wake releases the waiters whose revision is reached, with err all of them.
func (db *DB) wake(err error) {
	for w := range db.waiters {
		if err != nil || db.rev >= w.rev {
			w.ch <- err
			delete(db.waiters, w)
		}
	}
}

func (db *DB) fail(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.err = err
	db.wake(errs.Unavailable("the database is not followed any more: %w", err))
}

// WaitRev returns when reads see everything up to revision rev.
func (db *DB) WaitRev(ctx context.Context, rev int64) error {
	db.mu.Lock()
	if db.rev >= rev {
		db.mu.Unlock()
		return nil
	}
	if db.err != nil {
		defer db.mu.Unlock()
		return errs.Unavailable("the database is not followed any more: %w", db.err)
	}
	w := &waiter{rev: rev, ch: make(chan error, 1)}
	db.waiters[w] = struct{}{}
	db.mu.Unlock()
	// The revision may be that of a key outside the prefix: then nothing comes unless it is asked for.
	t := time.NewTimer(2 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case err := <-w.ch:
			return err
		case <-ctx.Done():
			db.mu.Lock()
			delete(db.waiters, w)
			db.mu.Unlock()
			return errs.Unavailable("wait for revision %d of the database: %w", rev, ctx.Err())
		case <-t.C:
			if db.watcher != nil {
				if err := db.watcher.RequestProgress(ctx); err != nil {
					db.log.Debug("request progress", "err", err)
				}
			}
			t.Reset(20 * time.Millisecond)
		}
	}
}

// Linearizable waits until reads see everything that was written, by anybody, before the call.
func (db *DB) Linearizable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	h, err := db.kv.Head(ctx)
	if err != nil {
		return fmt.Errorf("ask the database for its revision: %w", err)
	}
	return db.WaitRev(ctx, h.Revision)
}

// lookup returns the row under table/key.
func (db *DB) lookup(key string) (*row, bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.rows.Get(&row{key: key})
}

var errRetry = errors.New("retry")
