package allocator

import (
	"context"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Restore implements Backend. What is complete costs conditions only, no write.
func (k *KV) Restore(ctx context.Context, held []Record) ([]Claimed, error) {
	out := make([]Claimed, len(held))
	err := k.chunks(len(held), opsPerClaim, func(i int) int { return len(held[i].Key) }, func(from, to int) error {
		return k.withLeases(ctx, to-from, func(i int) string { return held[from+i].Key }, func(leases []kvstore.LeaseID) error {
			return wrap("restore references", k.restoreTxn(ctx, leases, held[from:to], out[from:to]))
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// restoreTxn looks at the records and writes what is missing under the condition that nothing has changed in between.
// When something has, the chunk is cut in halves: one record that changes all the time holds up no other.
func (k *KV) restoreTxn(ctx context.Context, leases []kvstore.LeaseID, held []Record, out []Claimed) error {
	const attempts = 8 // for one record alone
	for range attempts {
		ok, err := k.restoreOnce(ctx, leases, held, out)
		if err != nil || ok {
			return err
		}
		if n := len(held); n > 1 {
			if err := k.restoreTxn(ctx, leases[:n/2], held[:n/2], out[:n/2]); err != nil {
				return err
			}
			return k.restoreTxn(ctx, leases[n/2:], held[n/2:], out[n/2:])
		}
	}
	return errs.Busy("restore key %.40q: it changed %d times meanwhile", held[0].Key, attempts)
}

func (k *KV) restoreOnce(ctx context.Context, leases []kvstore.LeaseID, held []Record, out []Claimed) (ok bool, err error) {
	var t kvstore.Txn
	var reads []kvstore.Op
	for i, h := range held {
		key, id, ref := k.key(h.Key), k.id(h.ID), k.ref(h.Key)
		t.If = append(t.If, kvstore.Unchanged(key, h.Rev), kvstore.Unchanged(id, h.Rev),
			kvstore.Compare{Key: ref, Target: kvstore.TargetLease, Equal: int64(leases[i])})
		reads = append(reads, kvstore.Get(key), kvstore.Get(id), kvstore.Get(ref))
	}
	r, err := k.c.Txn(ctx, t)
	if err == nil && !r.Succeeded {
		t.Else = reads // only now: mostly nothing is missing
		r, err = k.c.Txn(ctx, t)
	}
	if err != nil {
		return false, err
	}
	if r.Succeeded {
		for i, h := range held {
			out[i] = Claimed{Record: h}
		}
		return true, nil
	}
	fix := kvstore.Txn{}
	var written []int
	for i, h := range held {
		var record bool
		if out[i], record, err = k.plan(&fix, leases[i], h, r.Results[opsPerClaim*i:]); err != nil {
			return false, err
		}
		if record {
			written = append(written, i)
		}
	}
	if len(fix.Then) == 0 {
		return true, nil
	}
	if r, err = k.c.Txn(ctx, fix); err != nil || !r.Succeeded {
		return false, err
	}
	for _, i := range written {
		out[i].Rev = r.Revision
	}
	return true, nil
}

// plan compares what the store has (record, id, reference) with what is held and adds to fix what has to be written. record says that
// the record is among it.
func (k *KV) plan(fix *kvstore.Txn, lease kvstore.LeaseID, h Record, res []kvstore.OpResult) (c Claimed, record bool, err error) {
	keyPath, idPath := k.key(h.Key), k.id(h.ID)
	var keyRev, idRev int64
	if kvs := res[0].KVs; len(kvs) > 0 {
		now, err := k.record(kvs[0])
		if err != nil {
			return Claimed{}, false, err
		}
		if now.ID != h.ID {
			return Claimed{now, Conflict}, false, nil
		}
		keyRev = now.Rev
	}
	if kvs := res[1].KVs; len(kvs) > 0 {
		if string(kvs[0].Value) != h.Key {
			return Claimed{Record{Key: string(kvs[0].Value), ID: h.ID, Rev: kvs[0].ModRevision}, Conflict}, false, nil
		}
		idRev = kvs[0].ModRevision
	}
	record = keyRev == 0 || keyRev != idRev
	ref := res[2].KVs
	if !record && len(ref) > 0 && ref[0].Lease == lease {
		return Claimed{Record: Record{h.Key, h.ID, keyRev}}, false, nil
	}
	fix.If = append(fix.If, kvstore.Unchanged(keyPath, keyRev), kvstore.Unchanged(idPath, idRev))
	if record {
		fix.Then = append(fix.Then, kvstore.Put(keyPath, recordValue(h.Key, h.ID)), kvstore.Put(idPath, []byte(h.Key)))
	}
	fix.Then = append(fix.Then, k.putRef(h.Key, h.ID, lease))
	return Claimed{Record: Record{h.Key, h.ID, keyRev}}, record, nil
}
