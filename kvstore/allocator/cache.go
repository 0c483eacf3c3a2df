package allocator

import (
	"context"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
)

// table is what is known of the records of one store.
type table struct {
	byKey map[string]Record
	byID  map[ID]Record
}

func newTable() *table { return &table{map[string]Record{}, map[ID]Record{}} }

// put adds a record; those that had its key or its id go.
func (t *table) put(r Record) {
	if old, ok := t.byKey[r.Key]; ok && old.ID != r.ID {
		delete(t.byID, old.ID)
	}
	if old, ok := t.byID[r.ID]; ok && old.Key != r.Key {
		delete(t.byKey, old.Key)
	}
	t.byKey[r.Key], t.byID[r.ID] = r, r
}

// drop removes a record if it is still the one of its key, not one that was made after r was deleted.
func (t *table) drop(r Record) bool {
	now, ok := t.byKey[r.Key]
	if !ok || now.ID != r.ID || now.Rev > r.Rev {
		return false
	}
	delete(t.byKey, r.Key)
	delete(t.byID, r.ID)
	return true
}

// EventType is what happened to an id.
type EventType int

// Events. Synced comes once: what existed when the watch began has been delivered.
const (
	Upserted EventType = iota
	Deleted
	Synced
)

func (t EventType) String() string { return [...]string{"upsert", "delete", "sync"}[t] }

// Event is one change of what is known.
type Event struct {
	Type   EventType
	ID     ID
	Key    string
	Source string // name of the remote cache, "" for the main store
}

// cache is the tables of the main store and of the remote ones, and who wants to hear of changes.
//
// A table is replaced as a whole when a list is complete (double buffering): until then lookups see the former one, so that a store
// that comes back does not make ids vanish and appear again.
//
// The pool is told what the main table holds in the same step, so the two never disagree.
type cache struct {
	pool    *Pool
	mask    ID
	mu      sync.RWMutex
	tables  map[string]*table
	next    map[string]*table // being filled by a list
	watched map[string]bool   // remote sources
	rev     int64             // of the main store, up to which the watch has told everything
	ahead   map[string]Record // by key: in the main table on another word than the watch's, which has not come that far
	hearers map[*hearer]bool
	synced  bool
}

func newCache(pool *Pool, mask ID) *cache {
	return &cache{pool: pool, mask: mask, tables: map[string]*table{"": newTable()}, next: map[string]*table{"": newTable()}, watched: map[string]bool{}, ahead: map[string]Record{}, hearers: map[*hearer]bool{}}
}

// begin starts a list of the source.
func (c *cache) begin(source string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next[source] = newTable()
	if source == "" {
		c.rev = 0
		clear(c.ahead)
	}
}

// claim starts the only watch of a remote source; abort ends it and forgets what a list that was not completed brought.
func (c *cache) claim(source string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched[source] {
		return errs.Busy("remote store %q is being watched already", source)
	}
	c.watched[source] = true
	c.next[source] = newTable()
	return nil
}

func (c *cache) abort(source string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.next, source)
	delete(c.watched, source)
}

// known tells whether a record of the main store has the id. The caller holds the mutex.
func (c *cache) known(id ID) bool {
	if _, ok := c.tables[""].byID[id]; ok {
		return true
	}
	if next := c.next[""]; next != nil {
		_, ok := next.byID[id]
		return ok
	}
	return false
}

// account tells the pool about an id. The caller holds the mutex.
func (c *cache) account(source string, id ID) {
	switch {
	case source != "" || id&c.mask != c.mask:
	case c.known(id):
		c.pool.Use(id &^ c.mask)
	default:
		c.pool.Free(id &^ c.mask)
	}
}

// giveBack ends the lease of an id from the pool.
func (c *cache) giveBack(id ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool.Return(id&^c.mask, c.known(id))
}

// apply takes a batch over. kept reports whether a deleted record is to stay.
func (c *cache) apply(source string, b Batch, kept func(Record) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.next[source]
	t := next
	if t == nil {
		t = c.tables[source]
	}
	if t == nil {
		t = newTable()
		c.tables[source] = t
	}
	if source == "" {
		b.Deleted = append(b.Deleted, c.catchUp(b)...)
	}
	for _, r := range b.Updated {
		old, known := t.byID[r.ID]
		before := t.byKey[r.Key].ID
		t.put(r)
		c.account(source, r.ID)
		if before != 0 && before != r.ID {
			c.account(source, before)
		}
		if next == nil && (!known || old.Key != r.Key) {
			c.tell(Event{Upserted, r.ID, r.Key, source})
		}
	}
	for _, r := range b.Deleted {
		if !kept(r) && t.drop(r) {
			c.account(source, r.ID)
			if next == nil {
				c.tell(Event{Deleted, r.ID, r.Key, source})
			}
		}
	}
	if b.ListDone && next != nil {
		delete(c.next, source)
		c.swap(source, next, kept)
	}
}

// catchUp compares what was learned ahead of the watch with what it brings. What was made and deleted again while the watch was
// broken is in no list and no event: that the watch has passed its revision without a word means that it is gone.
func (c *cache) catchUp(b Batch) (gone []Record) {
	c.rev = max(c.rev, b.Revision)
	for _, r := range b.Updated {
		delete(c.ahead, r.Key)
	}
	for key, r := range c.ahead {
		if r.Rev <= c.rev {
			delete(c.ahead, key)
			gone = append(gone, r)
		}
	}
	return gone
}

// swap makes next the table of the source and tells the difference.
func (c *cache) swap(source string, next *table, kept func(Record) bool) {
	old := c.tables[source]
	if old == nil {
		old = newTable()
	}
	c.tables[source] = next
	for id, r := range old.byID {
		if _, ok := next.byID[id]; ok {
			continue
		}
		if kept(r) {
			next.put(r)
			continue
		}
		c.account(source, id)
		c.tell(Event{Deleted, id, r.Key, source})
	}
	for id, r := range next.byID {
		if was, ok := old.byID[id]; !ok || was.Key != r.Key {
			c.tell(Event{Upserted, id, r.Key, source})
		}
	}
	if source == "" && !c.synced {
		c.synced = true
		c.tell(Event{Type: Synced})
	}
}

// put adds one record that this node has just made or found in the store.
func (c *cache) put(r Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Rev <= c.rev || c.ahead[r.Key].Rev >= r.Rev {
		return // the watch knows better
	}
	t := c.tables[""]
	if now, ok := t.byKey[r.Key]; ok && now.Rev >= r.Rev {
		return
	}
	if now, ok := t.byID[r.ID]; ok && now.Rev >= r.Rev {
		return
	}
	_, known := t.byID[r.ID]
	before := t.byKey[r.Key].ID
	t.put(r)
	c.account("", r.ID)
	if before != 0 && before != r.ID {
		c.account("", before)
	}
	c.ahead[r.Key] = r
	if !known {
		c.tell(Event{Upserted, r.ID, r.Key, ""})
	}
}

// remove forgets a source.
func (c *cache) remove(source string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tables[source]
	if !ok {
		return false
	}
	delete(c.tables, source)
	for id, r := range t.byID {
		c.tell(Event{Deleted, id, r.Key, source})
	}
	return true
}

func (c *cache) key(source, key string) (Record, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.tables[source]; t != nil {
		r, ok := t.byKey[key]
		return r, ok
	}
	return Record{}, false
}

func (c *cache) id(source string, id ID) (Record, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.tables[source]; t != nil {
		r, ok := t.byID[id]
		return r, ok
	}
	return Record{}, false
}

// sources returns the names of the remote tables.
func (c *cache) sources() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []string
	for s := range c.tables {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func (c *cache) len(source string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if t := c.tables[source]; t != nil {
		return len(t.byID)
	}
	return 0
}

// hearer collects changes for one watch. Of an id only the newest change is kept, so what waits is bounded by the number of
// ids and a slow watch holds up nobody.
type hearer struct {
	mu    sync.Mutex
	order []heard
	last  map[heard]Event
	wake  chan struct{}
}

type heard struct {
	source string
	id     ID
}

func (c *cache) tell(e Event) {
	for h := range c.hearers {
		h.add(e)
	}
}

func (h *hearer) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := heard{e.Source, e.ID}
	if _, ok := h.last[at]; !ok {
		h.order = append(h.order, at)
	}
	h.last[at] = e
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hearer) take() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Event, 0, len(h.order))
	for _, at := range h.order {
		out = append(out, h.last[at])
	}
	h.order, h.last = nil, map[heard]Event{}
	return out
}

// watch replays what is known and then calls fn with each change.
func (c *cache) watch(ctx context.Context, fn func([]Event) error) error {
	h := &hearer{last: map[heard]Event{}, wake: make(chan struct{}, 1)}
	c.mu.Lock()
	for source, t := range c.tables {
		for id, r := range t.byID {
			h.add(Event{Upserted, id, r.Key, source})
		}
	}
	if c.synced {
		h.add(Event{Type: Synced})
	}
	c.hearers[h] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.hearers, h)
		c.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.wake:
		}
		if ev := h.take(); len(ev) > 0 {
			if err := fn(ev); err != nil {
				return err
			}
		}
	}
}
