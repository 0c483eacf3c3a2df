package state

import (
	"context"
	"encoding/json"
	"iter"
	"strings"

	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Item is a value with its key and the revision of its last change.
type Item[T any] struct {
	Key   string
	Value T
	Rev   int64
}

// Table is a set of values of one type under one key prefix. Safe for concurrent use.
type Table[T any] struct {
	db   *DB
	data *data[T]
}

// data is a table's part of the cache, guarded by DB.mu.
type data[T any] struct {
	db      *DB
	name    string // with the slash
	version int
	cells   *btree.BTree[*cell[T]]
	hooks   map[*func(Change[T])]struct{}
	indexes []*Index[T]
}

// cell is one decoded row. Immutable; its item is shared with all readers.
type cell[T any] struct {
	item Item[T]
	raw  []byte
	err  error  // why it could not be decoded
	sum  []byte // what item.Value encoded to, when the database verifies
}

// NewTable declares a table; name has no slash. version is the schema version that this build writes, ≥ 1. Declaring a
// table again with the same type returns the same one, with another type a second view of the same keys.
func NewTable[T any](db *DB, name string, version int) *Table[T] {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, f := range db.tables[name] {
		if d, ok := f.(*data[T]); ok {
			return &Table[T]{db, d}
		}
	}
	d := &data[T]{db: db, name: name + "/", version: version, hooks: map[*func(Change[T])]struct{}{},
		cells: btree.New(32, func(a, b *cell[T]) bool { return a.item.Key < b.item.Key })}
	db.rows.AscendGreaterOrEqual(&row{key: d.name}, func(r *row) bool {
		key, ok := strings.CutPrefix(r.key, d.name)
		if ok {
			d.set(key, r)
		}
		return ok
	})
	db.tables[name] = append(db.tables[name], d)
	return &Table[T]{db, d}
}

func decode[T any](raw []byte, version int) (T, error) {
	var e envelope[T]
	err := json.Unmarshal(raw, &e)
	if err != nil && schemaVersion(raw) > version {
		err = errs.Unsupported("written by a newer version (schema %d, this one knows %d): %w", schemaVersion(raw), version, err)
	}
	return e.Data, err
}

// set implements feed.
func (d *data[T]) set(key string, now *row) func() {
	var c *cell[T]
	var old *cell[T]
	if now == nil {
		old, _ = d.cells.Delete(&cell[T]{item: Item[T]{Key: key}})
	} else {
		c = &cell[T]{item: Item[T]{Key: key, Rev: now.rev}, raw: now.raw}
		if c.item.Value, c.err = decode[T](now.raw, d.version); c.err != nil {
			d.db.log.Error("a value in the database cannot be read", "key", now.key, "err", c.err)
		}
		old, _ = d.cells.ReplaceOrInsert(c)
	}
	if d.db.verify {
		d.verify(old, c)
	}
	ch := Change[T]{Key: key, Old: visible(old), New: visible(c)}
	for _, x := range d.indexes {
		x.change(ch)
	}
	if len(d.hooks) == 0 || ch.Old == nil && ch.New == nil {
		return nil
	}
	calls := make([]func(Change[T]), 0, len(d.hooks))
	for h := range d.hooks {
		calls = append(calls, *h)
	}
	return func() {
		for _, f := range calls {
			f(ch)
		}
	}
}

func visible[T any](c *cell[T]) *Item[T] {
	if c == nil || c.err != nil {
		return nil
	}
	return &c.item
}

func (d *data[T]) verify(old, now *cell[T]) {
	if old != nil && old.err == nil {
		if b, err := json.Marshal(old.item.Value); err != nil || string(b) != string(old.sum) {
			panic("state: a shared value of " + d.name + old.item.Key + " was changed in place; use Get or Modify to change it\nwas " + string(old.sum) + "\nis  " + string(b))
		}
	}
	if now != nil && now.err == nil {
		now.sum, _ = json.Marshal(now.item.Value)
	}
}

// Get returns a private copy of the item under key; NotFound when there is none.
func (t *Table[T]) Get(key string) (Item[T], error) {
	c, ok := t.lookup(key)
	if !ok {
		return Item[T]{}, errs.NotFound("%s%s not found", t.data.name, key)
	}
	v, err := decode[T](c.raw, t.data.version)
	return Item[T]{key, v, c.item.Rev}, err
}

// Peek returns the shared item under key; ok is false when there is none. It costs nothing; do not change what it leads to.
func (t *Table[T]) Peek(key string) (item *Item[T], ok bool) {
	c, _ := t.lookup(key)
	item = visible(c)
	return item, item != nil
}

func (t *Table[T]) lookup(key string) (*cell[T], bool) {
	t.db.mu.RLock()
	defer t.db.mu.RUnlock()
	return t.data.cells.Get(&cell[T]{item: Item[T]{Key: key}})
}

// List returns all items whose key starts with prefix, sorted by key. Their values are shared: do not change what they lead
// to. Items that this build cannot decode are left out.
func (t *Table[T]) List(prefix string) []Item[T] {
	t.db.mu.RLock()
	defer t.db.mu.RUnlock()
	var out []Item[T]
	if prefix == "" {
		out = make([]Item[T], 0, t.data.cells.Len())
	}
	t.data.ascend(prefix, func(it *Item[T]) { out = append(out, *it) })
	return out
}

// All is List without copying the values: the items of one moment, sorted by key, shared.
func (t *Table[T]) All(prefix string) iter.Seq[*Item[T]] {
	return func(yield func(*Item[T]) bool) {
		t.db.mu.RLock()
		var all []*Item[T]
		t.data.ascend(prefix, func(it *Item[T]) { all = append(all, it) })
		t.db.mu.RUnlock()
		for _, it := range all {
			if !yield(it) {
				return
			}
		}
	}
}

func (d *data[T]) ascend(prefix string, f func(*Item[T])) {
	d.cells.AscendGreaterOrEqual(&cell[T]{item: Item[T]{Key: prefix}}, func(c *cell[T]) bool {
		if !strings.HasPrefix(c.item.Key, prefix) {
			return false
		}
		if c.err == nil {
			f(&c.item)
		}
		return true
	})
}

func (t *Table[T]) op(key string, rev int64) Op {
	return Op{key: t.data.name + key, mustRev: rev, version: t.data.version}
}

func (t *Table[T]) write(key string, v T, rev int64) Op {
	o := t.op(key, rev)
	o.val, o.err = json.Marshal(envelope[T]{t.data.version, v})
	return o
}

// present makes an item without a revision, which cannot have been read, a conflict instead of a creation.
func present(rev int64) int64 { return max(rev, 1) }

// CreateOp writes v under key, which must not exist.
func (t *Table[T]) CreateOp(key string, v T) Op { return t.write(key, v, 0) }

// PutOp writes v under key whether it exists or not.
func (t *Table[T]) PutOp(key string, v T) Op { return t.write(key, v, anyRev) }

// UpdateOp writes item.Value, provided that the item has not changed since item.Rev.
func (t *Table[T]) UpdateOp(item Item[T]) Op { return t.write(item.Key, item.Value, present(item.Rev)) }

// DeleteOp deletes item, provided that it has not changed since item.Rev.
func (t *Table[T]) DeleteOp(item Item[T]) Op {
	o := t.op(item.Key, present(item.Rev))
	o.del = true
	return o
}

// CheckOp writes nothing; the transaction happens only if the item has not changed since item.Rev.
func (t *Table[T]) CheckOp(item Item[T]) Op {
	o := t.op(item.Key, present(item.Rev))
	o.check = true
	return o
}

// AbsentOp writes nothing; the transaction happens only if there is nothing under key.
func (t *Table[T]) AbsentOp(key string) Op {
	o := t.op(key, 0)
	o.check = true
	return o
}

// Create writes v under key, which must not exist (Exists).
func (t *Table[T]) Create(ctx context.Context, key string, v T) (Item[T], error) {
	rev, err := t.db.Txn(ctx, t.CreateOp(key, v))
	return Item[T]{key, v, rev}, err
}

// Put writes v under key whether it exists or not.
func (t *Table[T]) Put(ctx context.Context, key string, v T) (Item[T], error) {
	rev, err := t.db.Txn(ctx, t.PutOp(key, v))
	return Item[T]{key, v, rev}, err
}

// PutLeased is Put under a lease.
func (t *Table[T]) PutLeased(ctx context.Context, key string, v T, lease kvstore.LeaseID) (Item[T], error) {
	rev, err := t.db.Txn(ctx, t.PutOp(key, v).Leased(lease))
	return Item[T]{key, v, rev}, err
}

// Update writes item.Value back; Conflict when the item changed since item.Rev.
func (t *Table[T]) Update(ctx context.Context, item Item[T]) (Item[T], error) {
	rev, err := t.db.Txn(ctx, t.UpdateOp(item))
	if err == nil {
		item.Rev = rev
	}
	return item, err
}

// Modify reads, changes and writes the item under key, again when somebody else was faster. change gets a private copy and
// may be called several times; its error ends Modify.
func (t *Table[T]) Modify(ctx context.Context, key string, change func(*T) error) (Item[T], error) {
	for {
		item, err := t.Get(key)
		if err != nil {
			return item, err
		}
		if err := change(&item.Value); err != nil {
			return item, err
		}
		out, err := t.Update(ctx, item)
		if !errs.IsConflict(err) || ctx.Err() != nil {
			return out, err
		}
	}
}

// Delete removes the item under key; NotFound when there is none.
func (t *Table[T]) Delete(ctx context.Context, key string) error {
	for {
		c, ok := t.lookup(key)
		if !ok {
			return errs.NotFound("%s%s not found", t.data.name, key)
		}
		_, err := t.db.Txn(ctx, t.DeleteOp(Item[T]{Key: key, Rev: c.item.Rev}))
		if !errs.IsConflict(err) || ctx.Err() != nil {
			return err
		}
	}
}
