package state

import (
	"context"
	"slices"
	"sort"
	"sync"
)

// Change is one change of an item. Old is nil when it was created, New when it was deleted. The items are shared.
type Change[T any] struct {
	Key      string
	Old, New *Item[T]
}

// OnChange has f called for each change, in order, until cancel is called; several changes of one item that came while the cache was
// being fed are one, and an item that came and went meanwhile is none; f may still run once at that time. f is called
// by what feeds the cache, after readers can see the change (a write may have returned already): it must be quick, must not write to the database and must not wait. For anything more there is [Table.Watch].
func (t *Table[T]) OnChange(f func(Change[T])) (cancel func()) {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	t.data.hooks[&f] = struct{}{}
	return func() {
		t.db.mu.Lock()
		defer t.db.mu.Unlock()
		delete(t.data.hooks, &f)
	}
}

// Watch calls f for each item whose key starts with prefix, as created, and then for each change, until ctx ends or f
// returns an error, and returns why. f runs in the caller's goroutine, may write and may be slow: several changes of one item
// that happened meanwhile are handed over as one. Changes of one item come in order, those of different items in the order of their first change.
func (t *Table[T]) Watch(ctx context.Context, prefix string, f func(Change[T]) error) error {
	var mu sync.Mutex
	var queue []string
	queued := map[string]bool{}
	signal := make(chan struct{}, 1)
	push := func(key string) {
		mu.Lock()
		defer mu.Unlock()
		if !queued[key] {
			queued[key] = true
			queue = append(queue, key)
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	cancel := t.OnChange(func(c Change[T]) {
		if len(c.Key) >= len(prefix) && c.Key[:len(prefix)] == prefix {
			push(c.Key)
		}
	})
	defer cancel()
	for it := range t.All(prefix) {
		push(it.Key)
	}
	told := map[string]*Item[T]{}
	for {
		mu.Lock()
		todo := queue
		queue = nil
		clear(queued)
		mu.Unlock()
		for _, key := range todo {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			now, _ := t.Peek(key)
			old := told[key]
			if now == old {
				continue
			}
			if now == nil {
				delete(told, key)
			} else {
				told[key] = now
			}
			if err := f(Change[T]{Key: key, Old: old, New: now}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-signal:
		}
	}
}

// Index finds the items of a table by what a function says of their values.
type Index[T any] struct {
	data  *data[T]
	keys  func(*Item[T]) []string
	items map[string]map[string]*Item[T] // by index key, then by item key
}

// NewIndex declares an index: keys returns the values under which an item is found, for example its image or the networks
// of its NICs. keys must be a pure function of the item and must not change it.
func NewIndex[T any](t *Table[T], keys func(*Item[T]) []string) *Index[T] {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	x := &Index[T]{data: t.data, keys: keys, items: map[string]map[string]*Item[T]{}}
	t.data.ascend("", func(it *Item[T]) { x.change(Change[T]{Key: it.Key, New: it}) })
	t.data.indexes = append(t.data.indexes, x)
	return x
}

// change is called with DB.mu held.
func (x *Index[T]) change(c Change[T]) {
	if c.Old != nil {
		for _, k := range x.keys(c.Old) {
			if delete(x.items[k], c.Key); len(x.items[k]) == 0 {
				delete(x.items, k)
			}
		}
	}
	if c.New != nil {
		for _, k := range x.keys(c.New) {
			if x.items[k] == nil {
				x.items[k] = map[string]*Item[T]{}
			}
			x.items[k][c.Key] = c.New
		}
	}
}

// List returns the items found under k, sorted by their keys, shared.
func (x *Index[T]) List(k string) []*Item[T] {
	x.data.db.mu.RLock()
	out := make([]*Item[T], 0, len(x.items[k]))
	for _, it := range x.items[k] {
		out = append(out, it)
	}
	x.data.db.mu.RUnlock()
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// Keys returns all keys of the index, sorted.
func (x *Index[T]) Keys() []string {
	x.data.db.mu.RLock()
	defer x.data.db.mu.RUnlock()
	out := make([]string, 0, len(x.items))
	for k := range x.items {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
