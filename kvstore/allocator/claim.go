package allocator

import (
	"context"
	"fmt"
	"strconv"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// opsPerClaim is how many operations a claim has at most: record, id and reference.
const opsPerClaim = 3

// smallClaim is up to how many claims a transaction carries the reads that explain a failure from the start. For more
// they would cost as much as the claims, for nothing: a failure is rare.
const smallClaim = 8

// Claim implements Backend. A chunk of claims is one transaction. When a condition does not hold, the other branch reads
// what the conditions were about, at the same revision: the claims that failed are answered from that, the innocent ones go into the next.
func (k *KV) Claim(ctx context.Context, claims []Claim) ([]Claimed, error) {
	out := make([]Claimed, len(claims))
	left := make([]int, len(claims))
	ops := 1
	for i, c := range claims {
		if err := CheckKey(c.Key); err != nil {
			return nil, err
		}
		if c.ID == 0 {
			return nil, errs.Invalid("claim of key %.40q without an id", c.Key)
		}
		if left[i] = i; c.Rev == 0 {
			ops = opsPerClaim
		}
	}
	for len(left) > 0 {
		var again []int
		err := k.chunks(len(left), ops, func(i int) int { return len(claims[left[i]].Key) }, func(from, to int) error {
			chunk := left[from:to]
			return k.withLeases(ctx, len(chunk), func(i int) string { return claims[chunk[i]].Key }, func(leases []kvstore.LeaseID) error {
				careful := to-from <= smallClaim
				ok, innocent, err := k.claimTxn(ctx, leases, claims, chunk, out, careful)
				if !ok && !careful && err == nil {
					_, innocent, err = k.claimTxn(ctx, leases, claims, chunk, out, true)
				}
				again = append(again, innocent...)
				return wrap("claim ids", err)
			})
		})
		if err != nil {
			return nil, err
		}
		left = again
	}
	for i, c := range out {
		if c.State != Done {
			k.pool.Give(claims[i].Key)
		}
	}
	return out, nil
}

// claimTxn tries the claims with the given indexes at once. It answers all of them; or, if careful, those that stood in the way, and
// returns the others.
func (k *KV) claimTxn(ctx context.Context, leases []kvstore.LeaseID, claims []Claim, which []int, out []Claimed, careful bool) (ok bool, innocent []int, err error) {
	r, err := k.c.Txn(ctx, k.compose(leases, claims, which, careful))
	if err != nil {
		return false, nil, err
	}
	if r.Succeeded {
		for _, i := range which {
			out[i] = Claimed{Record: Record(claims[i])}
			if out[i].Rev == 0 {
				out[i].Rev = r.Revision
			}
		}
		return true, nil, nil
	}
	if !careful {
		return false, nil, nil
	}
	at := 0
	for _, i := range which {
		c := claims[i]
		state, rec, err := k.judge(c, r.Results[at:])
		if at++; c.Rev == 0 {
			at++
		}
		switch {
		case err != nil:
			return false, nil, err
		case state == Done:
			innocent = append(innocent, i)
		default:
			out[i] = Claimed{rec, state}
		}
	}
	if len(innocent) == len(which) {
		return false, nil, fmt.Errorf("the store refused %d claims and none of them was in the way", len(which))
	}
	return false, innocent, nil
}

// compose writes the transaction of some claims, whose references get the leases in the same order.
func (k *KV) compose(leases []kvstore.LeaseID, claims []Claim, which []int, careful bool) kvstore.Txn {
	t := kvstore.Txn{If: make([]kvstore.Compare, 0, 2*len(which)), Then: make([]kvstore.Op, 0, opsPerClaim*len(which))}
	for n, i := range which {
		c := claims[i]
		key := k.key(c.Key)
		t.If = append(t.If, kvstore.Unchanged(key, c.Rev)) // 0: missing
		if careful {
			t.Else = append(t.Else, kvstore.Get(key))
		}
		if c.Rev == 0 {
			id := k.id(c.ID)
			t.If = append(t.If, kvstore.Missing(id))
			t.Then = append(t.Then, kvstore.Put(key, recordValue(c.Key, c.ID)), kvstore.Put(id, []byte(c.Key)))
			if careful {
				t.Else = append(t.Else, kvstore.Get(id))
			}
		}
		t.Then = append(t.Then, k.putRef(c.Key, c.ID, leases[n]))
	}
	return t
}

// judge says from what the store holds why a claim failed; Done means that it did not.
func (k *KV) judge(c Claim, res []kvstore.OpResult) (State, Record, error) {
	if len(res[0].KVs) > 0 {
		rec, err := k.record(res[0].KVs[0])
		if err != nil {
			return 0, Record{}, err
		}
		if c.Rev == rec.Rev {
			return Done, rec, nil
		}
		return Taken, rec, nil
	}
	if c.Rev != 0 {
		return Gone, Record{Key: c.Key}, nil
	}
	if len(res[1].KVs) > 0 {
		return IDTaken, Record{Key: string(res[1].KVs[0].Value), ID: c.ID, Rev: res[1].KVs[0].ModRevision}, nil
	}
	return Done, Record{}, nil
}

func (k *KV) putRef(key string, id ID, lease kvstore.LeaseID) kvstore.Op {
	return kvstore.Op{Type: kvstore.OpPut, Key: k.ref(key), Value: strconv.AppendUint(nil, uint64(id), 10), Lease: lease}
}
