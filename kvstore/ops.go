package kvstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// Each operation takes, last, compares that must hold for it to happen: [Lock.Held], so that a holder who lost his lock changes nothing and
// learns nothing. When one does not hold the call fails with ErrLockLost. Each write returns whether it changed something, the
// revision at which that was so, and an error; a missing key is no error.

// Txn does what [Backend] says, within the call timeout, after a check of its size.
func (c *Client) Txn(ctx context.Context, t Txn) (TxnResult, error) {
	if err := CheckTxn(t); err != nil {
		return TxnResult{}, err
	}
	ctx, cancel := c.timeout(ctx)
	defer cancel()
	return c.Backend.Txn(ctx, t)
}

// guarded does t if held holds too. When that is why t did not happen the error is ErrLockLost: the reads for finding out are part of
// the transaction, so "somebody else was there first" and "the lock was lost" are never mistaken for each other.
func (c *Client) guarded(ctx context.Context, t Txn, held []Compare) (TxnResult, error) {
	if len(held) == 0 {
		return c.Txn(ctx, t)
	}
	own := len(t.Else)
	t.If = append(slices.Clip(t.If), held...)
	t.Else = slices.Clip(t.Else)
	for _, h := range held {
		t.Else = append(t.Else, Get(h.Key))
	}
	r, err := c.Txn(ctx, t)
	if err != nil || r.Succeeded {
		return r, err
	}
	for i, h := range held {
		if !h.holds(r.Results[own+i].KVs) {
			return TxnResult{}, fmt.Errorf("%w: %s", ErrLockLost, h.Key)
		}
	}
	r.Results = r.Results[:own]
	return r, nil
}

// Get reads one key, linearizably. ok is false when there is none.
func (c *Client) Get(ctx context.Context, key string, held ...Compare) (kv KeyValue, ok bool, err error) {
	var found []KeyValue
	if len(held) > 0 {
		var r TxnResult
		if r, err = c.guarded(ctx, Txn{Then: []Op{Get(key)}}, held); err == nil {
			found = r.Results[0].KVs
		}
	} else {
		ctx, cancel := c.timeout(ctx)
		defer cancel()
		var r RangeResult
		r, err = c.Range(ctx, Range{Key: key})
		found = r.KVs
	}
	if err != nil || len(found) == 0 {
		return KeyValue{}, false, err
	}
	return found[0], true, nil
}

// Update writes a key, whether it exists or not; changed is true unless there is an error.
func (c *Client) Update(ctx context.Context, key string, value []byte, lease LeaseID, held ...Compare) (changed bool, rev int64, err error) {
	r, err := c.guarded(ctx, Txn{Then: []Op{{Type: OpPut, Key: key, Value: value, Lease: lease}}}, held)
	return err == nil, r.Revision, err
}

// CreateOnly writes a key that must not exist; created is false when it does.
func (c *Client) CreateOnly(ctx context.Context, key string, value []byte, lease LeaseID, held ...Compare) (created bool, rev int64, err error) {
	r, err := c.guarded(ctx, Txn{If: []Compare{Missing(key)}, Then: []Op{{Type: OpPut, Key: key, Value: value, Lease: lease}}}, held)
	return r.Succeeded, r.Revision, err
}

// UpdateIfDifferent writes a key unless it has this value under this lease already; then changed is false and rev the key's ModRevision.
// It looks and writes atomically: between the two nobody else's write is lost.
func (c *Client) UpdateIfDifferent(ctx context.Context, key string, value []byte, lease LeaseID, held ...Compare) (changed bool, rev int64, err error) {
	kv, ok, err := c.Get(ctx, key, held...)
	for err == nil {
		if ok && kv.Lease == lease && bytes.Equal(kv.Value, value) {
			return false, kv.ModRevision, nil
		}
		var r TxnResult
		r, err = c.guarded(ctx, Txn{
			If:   []Compare{Unchanged(key, kv.ModRevision)}, // 0 of a missing one
			Then: []Op{{Type: OpPut, Key: key, Value: value, Lease: lease}},
			Else: []Op{Get(key)},
		}, held)
		if err != nil || r.Succeeded {
			return err == nil, r.Revision, err
		}
		kv, ok = KeyValue{}, len(r.Results[0].KVs) > 0
		if ok {
			kv = r.Results[0].KVs[0]
		}
	}
	return false, 0, err
}

// UpdateIfUnchanged writes a key that was last written at revision was. Otherwise nothing happens: ErrNotFound when the key has gone,
// ErrConflict when it has been written since.
func (c *Client) UpdateIfUnchanged(ctx context.Context, key string, was int64, value []byte, lease LeaseID, held ...Compare) (changed bool, rev int64, err error) {
	r, err := c.guarded(ctx, Txn{
		If:   []Compare{Unchanged(key, was)},
		Then: []Op{{Type: OpPut, Key: key, Value: value, Lease: lease}},
		Else: []Op{Get(key)},
	}, held)
	switch {
	case err != nil || r.Succeeded:
		return err == nil, r.Revision, err
	case len(r.Results[0].KVs) == 0:
		return false, r.Revision, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	return false, r.Revision, fmt.Errorf("%w: %s", ErrConflict, key)
}

// Remove deletes a key; changed is false when there was none.
func (c *Client) Remove(ctx context.Context, key string, held ...Compare) (changed bool, rev int64, err error) {
	r, err := c.guarded(ctx, Txn{Then: []Op{Delete(key)}}, held)
	if err != nil {
		return false, 0, err
	}
	return r.Results[0].Deleted > 0, r.Revision, nil
}

// RemovePrefix deletes all keys with the prefix, at one revision, and returns how many there were.
func (c *Client) RemovePrefix(ctx context.Context, prefix string, held ...Compare) (n, rev int64, err error) {
	r, err := c.guarded(ctx, Txn{Then: []Op{{Type: OpDelete, Key: prefix, End: PrefixEnd(prefix)}}}, held)
	if err != nil {
		return 0, 0, err
	}
	return r.Results[0].Deleted, r.Revision, nil
}

// ListPrefix returns all keys with the prefix, in byte order, as they were at the revision that it returns. [Client.List] holds only a page
// of them at a time.
func (c *Client) ListPrefix(ctx context.Context, prefix string, held ...Compare) ([]KeyValue, Header, error) {
	var out []KeyValue
	h, err := c.List(ctx, prefix, func(kvs []KeyValue) error { out = append(out, kvs...); return nil }, held...)
	return out, h, err
}

// Head returns the store's cluster id and newest revision, linearizably.
func (c *Client) Head(ctx context.Context) (Header, error) {
	ctx, cancel := c.timeout(ctx)
	defer cancel()
	r, err := c.Range(ctx, Range{Key: "\x00", CountOnly: true})
	return r.Header, err
}
