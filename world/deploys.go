package world

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// Deploy is one numbered state that the machines shall have: a payload, which the World does not look into, and where it stands in the chain.
type Deploy struct {
	ID uint64 `json:"id"` // 1, 2, 3, … without gaps
	// Hash says what the deploy was made from, for example a git commit; "" for nothing.
	Hash string `json:"hash,omitempty"`
	// Parent is the Digest of the deploy before; "" for the first.
	Parent string `json:"parent,omitempty"`
	// Payload is the SHA-256 of the payload in hexadecimal, Size its length in bytes.
	Payload string `json:"payload"`
	Size    int    `json:"size"`
	// Machine added it, at Created by its clock.
	Machine string    `json:"machine"`
	Created time.Time `json:"created"`
	// RollbackOf is the deploy whose payload this is; 0: it has its own.
	RollbackOf uint64 `json:"rollback_of,omitempty"`
	Note       string `json:"note,omitempty"`
	// Nonce makes two deploys of the same content different.
	Nonce string `json:"nonce"`
	// Content is the author's signature of what is deployed, wherever it stands in the chain; nil when there is none.
	Content *Signature `json:"content,omitempty"`

	// Digest is the SHA-256 of all fields above. Everything that came before is in it.
	Digest string `json:"-"`
	// Record is the signature of Digest by the machine that added it; nil when it has no key.
	Record *Signature `json:"-"`
}

// head is the value of deploys/head and deploys/floor.
type deployRef struct {
	ID     uint64 `json:"id"`
	Digest string `json:"digest"`
	Hash   string `json:"hash,omitempty"`
}

// deployRecord is the value of deploys/record/<id>. Body is what Digest is of, byte for byte.
type deployRecord struct {
	V         int             `json:"v"`
	Body      json.RawMessage `json:"body"`
	Signature *Signature      `json:"signature,omitempty"`
}

func (w *World) headKey() string  { return w.ns.Key(treeDeploys, "head") }
func (w *World) floorKey() string { return w.ns.Key(treeDeploys, "floor") }

// padded has ids sort as numbers.
func padded(id uint64) string { return fmt.Sprintf("%020d", id) }

func (w *World) recordKey(id uint64) string  { return w.ns.Key(treeDeploys, "record", padded(id)) }
func (w *World) payloadKey(id uint64) string { return w.ns.Key(treeDeploys, "payload", padded(id)) }

// ref reads a small key of the deploys; it is zero when there is none.
func (w *World) ref(ctx context.Context, key string) (deployRef, int64, error) {
	kv, ok, err := w.kv.Get(ctx, key)
	if err != nil || !ok {
		return deployRef{}, 0, err
	}
	var r deployRef
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return r, 0, fmt.Errorf("%s is not what a World wrote: %w", key, err)
	}
	return r, kv.ModRevision, nil
}

// GetMaxDeployID returns the number of the newest deploy, 0 when there is none. It reads one small key, linearizably.
func (w *World) GetMaxDeployID(ctx context.Context) (uint64, error) {
	r, _, err := w.ref(ctx, w.headKey())
	return r.ID, inCall(err, "newest deploy")
}

// GetDeploy returns the payload of a deploy, and only reads that one. Deploy 0 is the empty one that everybody begins with. Class NotFound
// for one that does not exist or was pruned.
func (w *World) GetDeploy(ctx context.Context, id uint64) (string, error) {
	if id == 0 {
		_, err := w.GetMaxDeployID(ctx) // it says whether the store is there
		return "", err
	}
	_, payload, err := w.Deploy(ctx, id)
	return payload, err
}

// Deploy returns a deploy with its payload. The payload is checked against the record, and the record's signatures, when there is a
// Verifier, against the keys that are trusted (class Denied).
func (w *World) Deploy(ctx context.Context, id uint64) (Deploy, string, error) {
	r, err := w.kv.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Get(w.recordKey(id)), kvstore.Get(w.payloadKey(id))}})
	if err != nil {
		return Deploy{}, "", inCall(err, "deploy %d", id)
	}
	rec, load := r.Results[0].KVs, r.Results[1].KVs
	if len(rec) == 0 || len(load) == 0 {
		return Deploy{}, "", w.noDeploy(ctx, id)
	}
	d, err := decodeDeploy(rec[0].Value, id)
	if err == nil && digest(load[0].Value) != d.Payload {
		err = errs.Conflict("its payload is not the one that was added")
	}
	if err == nil {
		err = w.verify(d)
	}
	if err != nil {
		return Deploy{}, "", inCall(err, "deploy %d", id)
	}
	return d, string(load[0].Value), nil
}

// noDeploy says why there is no deploy of this number.
func (w *World) noDeploy(ctx context.Context, id uint64) error {
	floor, _, err := w.ref(ctx, w.floorKey())
	if err == nil && id <= floor.ID {
		return errs.NotFound("deploy %d was pruned; the oldest left is %d", id, floor.ID+1)
	}
	if newest, err := w.GetMaxDeployID(ctx); err == nil {
		return errs.NotFound("deploy %d does not exist; the newest is %d", id, newest)
	}
	return errs.NotFound("deploy %d does not exist", id)
}

// Deploys returns the records of all deploys that were not pruned, oldest first, without their payloads and as they were at one revision.
// The chain is checked: class Conflict when a record was changed, is missing or does not follow from the one before.
func (w *World) Deploys(ctx context.Context) ([]Deploy, error) {
	var out []Deploy
	err := w.atOnce(ctx, func(s *snapshot) error {
		out = nil
		var floor, newest deployRef
		for key, to := range map[string]*deployRef{w.headKey(): &newest, w.floorKey(): &floor} {
			err := s.list(ctx, key, func(kv kvstore.KeyValue) error {
				if kv.Key != key {
					return nil
				}
				return json.Unmarshal(kv.Value, to)
			})
			if err != nil {
				return err
			}
		}
		err := s.list(ctx, w.ns.Prefix(treeDeploys, "record"), func(kv kvstore.KeyValue) error {
			p, ok := w.ns.Split(kv.Key)
			if !ok || len(p) != 3 {
				return nil
			}
			id, err := strconv.ParseUint(p[2], 10, 64)
			if err != nil || p[2] != padded(id) {
				return nil // not ours
			}
			d, err := decodeDeploy(kv.Value, id)
			if err != nil {
				return fmt.Errorf("deploy %d: %w", id, err)
			}
			out = append(out, d)
			return nil
		})
		if err != nil {
			return err
		}
		return checkChain(floor, newest, out)
	})
	return out, inCall(err, "list deploys")
}

// checkChain reports the first break in a chain of deploys that begins after floor and ends with newest.
func checkChain(floor, newest deployRef, list []Deploy) error {
	at := floor
	for _, d := range list {
		if d.ID != at.ID+1 || d.Parent != at.Digest {
			return errs.Conflict("the chain is broken: deploy %d does not follow from deploy %d", d.ID, at.ID)
		}
		at = deployRef{ID: d.ID, Digest: d.Digest}
	}
	if at.ID != newest.ID || at.Digest != newest.Digest {
		return errs.Conflict("the chain is broken: it ends with deploy %d, the newest is %d", at.ID, newest.ID)
	}
	return nil
}

// GetDeploys returns the payloads of all deploys that were not pruned. It reads all of them: see Deploys.
func (w *World) GetDeploys(ctx context.Context) (map[uint64]string, error) {
	list, err := w.Deploys(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]string, len(list))
	for _, d := range list {
		payload, err := w.GetDeploy(ctx, d.ID)
		if errs.IsNotFound(err) {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, err
		}
		out[d.ID] = payload
	}
	return out, nil
}

// WatchDeploy tells of new deploys: read GetMaxDeployID after each event. See package watch.
func (w *World) WatchDeploy(ctx context.Context) (*watch.Watch, error) {
	return w.watch(ctx, watch.Key(w.headKey()))
}

// PruneDeploys deletes all but the newest keep deploys, with their status, and returns how many. The newest always stays, and the chain can
// still be checked from the first that is left. Deploys go oldest first, some at a time; a crash leaves the rest for the next call.
func (w *World) PruneDeploys(ctx context.Context, keep int) (n int, err error) {
	if keep < 1 {
		return 0, errs.Invalid("keep %d deploys: at least 1 has to stay", keep)
	}
	for {
		m, err := w.pruneSome(ctx, uint64(keep))
		n += m
		if err != nil || m == 0 {
			return n, inCall(err, "prune deploys")
		}
	}
}

// pruneBatch is how many deploys go in one transaction.
const pruneBatch = 100

func (w *World) pruneSome(ctx context.Context, keep uint64) (int, error) {
	newest, _, err := w.ref(ctx, w.headKey())
	if err != nil {
		return 0, err
	}
	floor, rev, err := w.ref(ctx, w.floorKey())
	if err != nil || newest.ID <= keep || floor.ID >= newest.ID-keep {
		return 0, err
	}
	upTo := min(newest.ID-keep, floor.ID+pruneBatch)
	kv, ok, err := w.kv.Get(ctx, w.recordKey(upTo))
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, w.noDeploy(ctx, upTo)
	}
	last, err := decodeDeploy(kv.Value, upTo)
	if err != nil {
		return 0, err
	}
	value, err := json.Marshal(deployRef{ID: upTo, Digest: last.Digest})
	if err != nil {
		return 0, err
	}
	t := kvstore.Txn{If: []kvstore.Compare{kvstore.Unchanged(w.floorKey(), rev)}, Then: []kvstore.Op{kvstore.Put(w.floorKey(), value)}}
	for _, leaf := range []string{"record", "payload", "status"} {
		// Everything before the first key that stays; nothing sorts before number 0.
		t.Then = append(t.Then, kvstore.Op{Type: kvstore.OpDelete, Key: w.ns.Prefix(treeDeploys, leaf), End: w.ns.Key(treeDeploys, leaf, padded(upTo+1))})
	}
	r, err := w.kv.Txn(ctx, t)
	if err != nil || !r.Succeeded {
		return 0, err // somebody else prunes
	}
	return int(upTo - floor.ID), nil
}

// checkDeployText reports what cannot be a hash or note of a deploy.
func checkDeployText(what, s string) error {
	if s == "" {
		return nil
	}
	return names.Check(what, s)
}
