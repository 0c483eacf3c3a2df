package allocator

import (
	"context"
	"fmt"

	"github.com/shoal-project/shoal/internal/errs"
)

// Get returns the id of a key: from memory, else from the store; 0 when the key has none. It makes nobody a user.
func (a *Allocator) Get(ctx context.Context, key string) (ID, error) {
	if r, ok := a.cache.key("", key); ok {
		return r.ID, nil
	}
	return a.GetNoCache(ctx, key)
}

// GetNoCache asks the store.
func (a *Allocator) GetNoCache(ctx context.Context, key string) (ID, error) {
	ctx, done := a.join(ctx)
	defer done()
	r, _, err := a.cfg.Backend.Get(ctx, key)
	return r.ID, a.ended(err)
}

// GetByID returns the key of an id: from memory, else from the store; "" when the id is free.
func (a *Allocator) GetByID(ctx context.Context, id ID) (string, error) {
	if r, ok := a.cache.id("", id); ok {
		return r.Key, nil
	}
	ctx, done := a.join(ctx)
	defer done()
	r, _, err := a.cfg.Backend.GetByID(ctx, id)
	return r.Key, a.ended(err)
}

// Lookup returns the id of a key from the main store or from a remote one that is watched. Only the main store is ever asked.
func (a *Allocator) Lookup(ctx context.Context, key string) (ID, error) {
	if r, ok := a.cache.key("", key); ok {
		return r.ID, nil
	}
	for _, s := range a.cache.sources() {
		if r, ok := a.cache.key(s, key); ok {
			return r.ID, nil
		}
	}
	return a.GetNoCache(ctx, key)
}

// LookupByID is Lookup for the key of an id.
func (a *Allocator) LookupByID(ctx context.Context, id ID) (string, error) {
	for _, s := range append([]string{""}, a.cache.sources()...) {
		if r, ok := a.cache.id(s, id); ok {
			return r.Key, nil
		}
	}
	return a.GetByID(ctx, id)
}

// ForEach calls fn with what is known of the main store and of the remote ones, in no order, until it returns false.
func (a *Allocator) ForEach(fn func(Event) bool) {
	a.cache.mu.RLock()
	var all []Event
	for source, t := range a.cache.tables {
		for id, r := range t.byID {
			all = append(all, Event{Upserted, id, r.Key, source})
		}
	}
	a.cache.mu.RUnlock()
	for _, e := range all {
		if !fn(e) {
			return
		}
	}
}

// Watch calls fn with all ids that are known, then with a Synced event once the main store's list is complete, then with changes, until ctx
// ends or fn fails. A slow fn holds up nobody; it gets the newest change of each id.
func (a *Allocator) Watch(ctx context.Context, fn func([]Event) error) error {
	ctx, done := a.join(ctx)
	defer done()
	return a.cache.watch(ctx, fn)
}

// WatchRemote follows the records of another store under a name until ctx ends, so that Lookup and Watch see them. onSync is called when its first
// list is complete. What was known under that name before, by an earlier watch, stays visible until then, and what is known
// stays when the watch ends: a connection that comes back changes only what changed. One watch per name at a time.
func (a *Allocator) WatchRemote(ctx context.Context, name string, b Backend, onSync func()) error {
	if name == "" {
		return errs.Invalid("a remote store needs a name")
	}
	ctx, done := a.join(ctx)
	defer done()
	if err := a.cache.claim(name); err != nil {
		return err
	}
	defer a.cache.abort(name)
	synced := false
	err := b.Watch(ctx, func(batch Batch) error {
		if batch.Reset {
			a.cache.begin(name)
		}
		a.cache.apply(name, a.validate(name, batch), func(Record) bool { return false })
		if batch.ListDone && !synced {
			synced = true
			if onSync != nil {
				onSync()
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("watch ids of %s: %w", name, err)
}

// RemoveRemote forgets what is known under a name; its watch must have ended.
func (a *Allocator) RemoveRemote(name string) error {
	if name == "" || !a.cache.remove(name) {
		return errs.NotFound("remote store %q", name)
	}
	return nil
}
