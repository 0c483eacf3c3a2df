package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// MaxOps bounds the operations of a transaction.
const MaxOps = 128

// Op is one write or check of a transaction.
type Op struct {
	key     string // table/key
	val     []byte
	del     bool
	check   bool  // compare only
	mustRev int64 // 0: must not exist; anyRev: whatever there is
	version int   // newest schema version that this table knows
	lease   kvstore.LeaseID
	guard   *kvstore.Compare
	err     error
}

const anyRev = -1

// Leased returns the write with a lease: the item goes when the lease ends.
func (o Op) Leased(id kvstore.LeaseID) Op { o.lease = id; return o }

// Guard makes the transaction depend on a compare of the store, such as kvstore.Lock.Held. When it does not hold the
// transaction fails with Conflict.
func Guard(c kvstore.Compare) Op { return Op{key: "a lock", check: true, guard: &c} }

// Txn applies all ops, at most MaxOps, or none, and returns the new revision. When it returns nil, reads of this DB see the
// result. Exists and Conflict name the key that stood in the way; by then reads see what is there instead. Unsupported: an item was written by
// a newer version. Unavailable: the outcome is unknown.
func (db *DB) Txn(ctx context.Context, ops ...Op) (int64, error) {
	if len(ops) > MaxOps {
		return 0, errs.TooLarge("a transaction of %d operations, at most %d are allowed", len(ops), MaxOps)
	}
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	for {
		rev, err := db.try(ctx, ops)
		if !errors.Is(err, errRetry) {
			return rev, err
		}
	}
}

// try runs the transaction once. errRetry: only items that may be anything had changed since the cache saw them.
func (db *DB) try(ctx context.Context, ops []Op) (int64, error) {
	t, err := db.plan(ops)
	if err != nil {
		return 0, err
	}
	res, err := db.kv.Txn(ctx, t)
	if err != nil {
		return 0, fmt.Errorf("write to the database: %w", kvstore.Hint(err))
	}
	// also after a failure: whoever tries again must read what was in the way
	if err := db.WaitRev(ctx, res.Revision); err != nil {
		if !res.Succeeded {
			return 0, err
		}
		return res.Revision, fmt.Errorf("written at revision %d, but: %w", res.Revision, err)
	}
	if res.Succeeded {
		return res.Revision, nil
	}
	return 0, db.refused(ops, t.If, res.Results)
}

// plan turns the operations into a transaction of the store.
func (db *DB) plan(ops []Op) (t kvstore.Txn, err error) {
	for _, o := range ops {
		if o.err != nil {
			return t, o.err
		}
		if o.guard != nil {
			t.If = append(t.If, *o.guard)
			t.Else = append(t.Else, kvstore.Get(o.guard.Key))
			continue
		}
		must := o.mustRev
		if r, ok := db.lookup(o.key); ok {
			if v := schemaVersion(r.raw); v > o.version && !o.check {
				return t, errs.Unsupported("%s was written by a newer version (schema %d, this one knows %d) and cannot be changed here", o.key, v, o.version)
			}
			if must == anyRev {
				must = r.rev
			}
		}
		key := db.prefix + o.key
		if must <= 0 {
			t.If = append(t.If, kvstore.Missing(key))
		} else {
			t.If = append(t.If, kvstore.Unchanged(key, must))
		}
		t.Else = append(t.Else, kvstore.Get(key))
		switch {
		case o.check:
		case o.del:
			t.Then = append(t.Then, kvstore.Delete(key))
		default:
			t.Then = append(t.Then, kvstore.Op{Type: kvstore.OpPut, Key: key, Value: o.val, Lease: o.lease})
		}
	}
	return t, nil
}

// refused finds out which compare did not hold. found has the keys compared, in the order of the ops.
func (db *DB) refused(ops []Op, cmps []kvstore.Compare, found []kvstore.OpResult) error {
	for i, o := range ops {
		var kv kvstore.KeyValue
		if len(found[i].KVs) > 0 {
			kv = found[i].KVs[0]
		}
		is := kv.ModRevision
		if cmps[i].Target == kvstore.TargetCreate {
			is = kv.CreateRevision
		}
		switch {
		case o.guard != nil && (o.guard.Target == kvstore.TargetMod || o.guard.Target == kvstore.TargetCreate) && is != o.guard.Equal:
			return errs.Conflict("%w (%s)", kvstore.ErrLockLost, o.guard.Key)
		case is == cmps[i].Equal || o.mustRev == anyRev || o.guard != nil:
		case o.mustRev == 0:
			return errs.Exists("%s already exists", o.key)
		default:
			return errs.Conflict("%s changed since it was read", o.key)
		}
	}
	return errRetry
}

// envelope is how a value is stored.
type envelope[T any] struct {
	Version int `json:"v"`
	Data    T   `json:"d"`
}

func schemaVersion(raw []byte) int {
	var e struct {
		Version int `json:"v"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return 0
	}
	return e.Version
}
