package store

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Watcher is where a WatchStore reads from; *kvstore.Client is one.
type Watcher interface {
	NewWatcher(prefix string) *kvstore.Watcher
}

// WatchConfig says what to do with values of type T. Decode has no default; observers may be nil.
type WatchConfig[T any] struct {
	// Decode makes a value of what stands under a name. What it refuses is left out with a warning, and a former value stays.
	Decode   func(name string, data []byte) (T, error)
	OnUpdate func(name string, v T)
	OnDelete func(name string, last T)
	// OnSync is called when the first list that this store ever made is complete.
	OnSync func()
	// Metrics says where events are counted, under the watched prefix's kvstore.Scope; nil costs nothing. Stores may share it.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// WatchStore follows a prefix. Watching may end and begin again, with another store and prefix too: then only what differs is reported.
// Its methods beside Watch and Drain may be called at any time.
type WatchStore[T any] struct {
	cfg WatchConfig[T]
	m   *metrics // of the watch under way; used by its goroutine

	mu      sync.RWMutex
	running bool
	synced  bool
	first   bool // OnSync has been called
	entries map[string]*entry[T]
}

type entry[T any] struct {
	v     T
	stale bool // not seen yet by the list under way
}

// NewWatchStore returns an empty store.
func NewWatchStore[T any](cfg WatchConfig[T]) (*WatchStore[T], error) {
	if cfg.Decode == nil {
		return nil, errs.Invalid("a watch store needs to know how to decode")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnUpdate == nil {
		cfg.OnUpdate = func(string, T) {}
	}
	if cfg.OnDelete == nil {
		cfg.OnDelete = func(string, T) {}
	}
	return &WatchStore[T]{cfg: cfg, entries: map[string]*entry[T]{}}, nil
}

// Watch follows the prefix, which ends with a slash, until ctx ends. What is known stays known when it returns.
func (w *WatchStore[T]) Watch(ctx context.Context, from Watcher, prefix string) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	if err := w.enter(); err != nil {
		return err
	}
	defer func() {
		w.mu.Lock()
		w.running, w.synced = false, false
		w.mu.Unlock()
	}()
	var err error
	if w.m, err = newMetrics(w.cfg.Metrics, kvstore.Scope(prefix)); err != nil {
		w.cfg.Log.Error("the store's metrics cannot be registered", "prefix", prefix, "err", err)
	}
	w.suspect()
	listed := w.m.begin("list")
	return from.NewWatcher(prefix).Run(ctx, func(b kvstore.Batch) error {
		w.apply(b, prefix)
		if b.ListDone && listed != nil {
			listed(nil)
			listed = nil
		}
		return nil
	})
}

func (w *WatchStore[T]) enter() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running {
		return errs.Busy("the store is being watched or drained already")
	}
	w.running = true
	return nil
}

// suspect marks all entries as not seen.
func (w *WatchStore[T]) suspect() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		e.stale = true
	}
}

func (w *WatchStore[T]) apply(b kvstore.Batch, prefix string) {
	if b.Reset {
		w.suspect()
	}
	for _, ev := range b.Events {
		name := ev.KV.Key[len(prefix):]
		if ev.Type == kvstore.Deleted {
			w.remove(name)
			continue
		}
		v, err := w.cfg.Decode(name, ev.KV.Value)
		w.mu.Lock()
		e := w.entries[name]
		if err != nil {
			if e != nil {
				e.stale = false
			}
			w.mu.Unlock()
			w.m.count("unreadable", 1)
			w.cfg.Log.Warn("value is unreadable, leaving it out", "key", ev.KV.Key, "err", err)
			continue
		}
		w.entries[name] = &entry[T]{v: v}
		w.mu.Unlock()
		w.m.count("updated", 1)
		w.cfg.OnUpdate(name, v)
	}
	if b.ListDone {
		w.listed()
	}
}

// listed reports what the list did not bring.
func (w *WatchStore[T]) listed() {
	w.mu.Lock()
	var gone []string
	for name, e := range w.entries {
		if e.stale {
			gone = append(gone, name)
		}
	}
	w.mu.Unlock()
	for _, name := range gone {
		w.remove(name)
	}
	w.mu.Lock()
	first := !w.first
	w.first, w.synced = true, true
	w.mu.Unlock()
	if first && w.cfg.OnSync != nil {
		w.cfg.OnSync()
	}
}

func (w *WatchStore[T]) remove(name string) {
	w.mu.Lock()
	e := w.entries[name]
	if delete(w.entries, name); e != nil {
		w.m.count("gone", 1)
	}
	w.mu.Unlock()
	if e != nil {
		w.cfg.OnDelete(name, e.v)
	}
}

// Drain forgets everything and reports it as deleted. It fails with class Busy while the store is watched.
func (w *WatchStore[T]) Drain() error {
	if err := w.enter(); err != nil {
		return err
	}
	w.suspect()
	w.mu.Lock()
	all := w.entries
	w.entries = map[string]*entry[T]{}
	w.mu.Unlock()
	for name, e := range all {
		w.cfg.OnDelete(name, e.v)
	}
	w.mu.Lock()
	w.running = false
	w.mu.Unlock()
	return nil
}

// Get returns the value of a name.
func (w *WatchStore[T]) Get(name string) (v T, ok bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if e := w.entries[name]; e != nil {
		return e.v, true
	}
	return v, false
}

// All returns a copy of the map of values.
func (w *WatchStore[T]) All() map[string]T {
	w.mu.RLock()
	defer w.mu.RUnlock()
	out := make(map[string]T, len(w.entries))
	for name, e := range w.entries {
		out[name] = e.v
	}
	return out
}

// Len returns the number of values.
func (w *WatchStore[T]) Len() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return len(w.entries)
}

// Synced tells whether the store is watched and its list was complete once since.
func (w *WatchStore[T]) Synced() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.synced
}
