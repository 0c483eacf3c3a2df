package world

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
)

// Draft is a deploy that is to be added.
type Draft struct {
	Payload string // at most names.MaxValue bytes
	ID      uint64 // must be the next number; 0: whatever that is
	Hash    string // see Deploy
	// PrevHash, when it is not empty, must be the Hash of the deploy before: somebody else's deploy is not overwritten unseen.
	PrevHash string
	Note     string
	// Content is the author's signature of ContentMessage; nil for none.
	Content *Signature

	rollbackOf uint64
}

func digest(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// AddDeploy adds the deploy with this number, which must be the next one; hash and prevHash as in Draft. Class Conflict, with the reason, when the number
// is taken or leaves a gap or the hash before is another: then nothing was added. All of it is checked in the transaction that adds it.
func (w *World) AddDeploy(ctx context.Context, id uint64, hash, prevHash, payload string) error {
	if id == 0 {
		return errs.Invalid("deploy 0 is the empty one that everybody begins with; the first has number 1")
	}
	_, err := w.Publish(ctx, Draft{Payload: payload, ID: id, Hash: hash, PrevHash: prevHash})
	return err
}

// follows reports why the deploy with this number cannot come after newest.
func follows(newest deployRef, id uint64, prevHash string) error {
	switch {
	case id <= newest.ID:
		return errs.Conflict("the number is taken: the newest deploy is %d", newest.ID)
	case id != newest.ID+1:
		return errs.Conflict("deploy %d is missing: the newest deploy is %d", id-1, newest.ID)
	case prevHash != "" && newest.ID == 0:
		return errs.Conflict("there is no deploy before it, so none with hash %q", prevHash)
	case prevHash != "" && newest.Hash == "":
		return errs.Conflict("deploy %d has no hash, so it is not %q", newest.ID, prevHash)
	case prevHash != "" && newest.Hash != prevHash:
		return errs.Conflict("the hash of deploy %d is %q, not %q", newest.ID, newest.Hash, prevHash)
	}
	return nil
}

// Publish adds a deploy and returns it. Who loses against others tries again, until ctx ends; only an ID that is not the next and
// a PrevHash that is not the one before are reasons to give up (class Conflict): then nothing was added.
func (w *World) Publish(ctx context.Context, dr Draft) (Deploy, error) {
	if err := dr.check(); err != nil {
		return Deploy{}, err
	}
	const most = 200 * time.Millisecond
	for back := 2 * time.Millisecond; ; back = min(back*2, most) {
		newest, rev, err := w.ref(ctx, w.headKey())
		if err == nil {
			err = follows(newest, cmp.Or(dr.ID, newest.ID+1), dr.PrevHash)
		}
		if err != nil {
			return Deploy{}, inCall(err, "add a deploy")
		}
		d, added, err := w.add(ctx, dr, newest, rev)
		if err != nil || added {
			return d, inCall(err, "add a deploy")
		}
		select {
		case <-time.After(mathrand.N(back)):
		case <-ctx.Done():
			return Deploy{}, inCall(context.Cause(ctx), "add a deploy")
		}
	}
}

// Rollback adds a deploy with the payload, hash and author's signature of an earlier one. Nothing is undone and no number reused.
func (w *World) Rollback(ctx context.Context, to uint64, note string) (Deploy, error) {
	d, payload, err := w.Deploy(ctx, to)
	if err != nil {
		return Deploy{}, fmt.Errorf("roll back: %w", err)
	}
	return w.Publish(ctx, Draft{Payload: payload, Hash: d.Hash, Note: note, Content: d.Content, rollbackOf: to})
}

func (dr Draft) check() error {
	if err := names.CheckValue("payload of the deploy", len(dr.Payload)); err != nil {
		return err
	}
	for what, s := range map[string]string{"hash of the deploy": dr.Hash, "hash of the deploy before": dr.PrevHash, "note of the deploy": dr.Note} {
		if err := checkDeployText(what, s); err != nil {
			return err
		}
	}
	return dr.Content.check()
}

// add writes a deploy after newest, which was read at revision rev. added is false, and nothing written, when somebody else was faster.
func (w *World) add(ctx context.Context, dr Draft, newest deployRef, rev int64) (d Deploy, added bool, err error) {
	d, record, err := w.seal(dr, newest)
	if err != nil {
		return d, false, err
	}
	head, err := json.Marshal(deployRef{ID: d.ID, Digest: d.Digest, Hash: d.Hash})
	if err != nil {
		return d, false, err
	}
	r, err := w.kv.Txn(ctx, kvstore.Txn{
		If: []kvstore.Compare{kvstore.Unchanged(w.headKey(), rev), kvstore.Missing(w.recordKey(d.ID))},
		Then: []kvstore.Op{
			kvstore.Put(w.headKey(), head), kvstore.Put(w.recordKey(d.ID), record), kvstore.Put(w.payloadKey(d.ID), []byte(dr.Payload)),
		},
		Else: []kvstore.Op{kvstore.Get(w.headKey()), kvstore.Get(w.recordKey(d.ID))},
	})
	switch {
	case errs.Is(err, errs.UnavailableClass) && ctx.Err() == nil:
		// The answer was lost: the record tells whether it is ours, by its nonce.
		kv, ok, gerr := w.kv.Get(ctx, w.recordKey(d.ID))
		if gerr != nil {
			return d, false, err
		}
		if ok && string(kv.Value) == string(record) {
			return d, true, nil
		}
		if ok {
			return d, false, nil
		}
		return d, false, err
	case err != nil:
		return d, false, err
	case r.Succeeded:
		return d, true, nil
	}
	if kvs := r.Results[0].KVs; len(r.Results[1].KVs) > 0 && (len(kvs) == 0 && rev == 0 || len(kvs) > 0 && kvs[0].ModRevision == rev) {
		return d, false, errs.Conflict("deploy %d is there but not the newest: the deploys were tampered with", d.ID)
	}
	return d, false, nil
}

// seal completes and signs a deploy and encodes its record.
func (w *World) seal(dr Draft, newest deployRef) (Deploy, []byte, error) {
	nonce := make([]byte, 12)
	rand.Read(nonce) // never fails
	d := Deploy{
		ID: newest.ID + 1, Hash: dr.Hash, Parent: newest.Digest, Payload: digest([]byte(dr.Payload)), Size: len(dr.Payload),
		Machine: w.Machine(), Created: w.o.Clock.Now().UTC().Truncate(time.Millisecond), RollbackOf: dr.rollbackOf, Note: dr.Note,
		Nonce: hex.EncodeToString(nonce), Content: dr.Content,
	}
	body, err := json.Marshal(d)
	if err != nil {
		return d, nil, err
	}
	d.Digest = digest(body)
	if w.o.Signer != nil {
		sig, err := w.o.Signer.Sign(recordMessage(d.Digest))
		if err != nil {
			return d, nil, fmt.Errorf("sign: %w", err)
		}
		d.Record = &Signature{Key: w.o.Signer.Key(), Sig: sig}
	}
	if err := w.verify(d); err != nil {
		return d, nil, err // nobody would take it
	}
	record, err := json.Marshal(deployRecord{V: 1, Body: body, Signature: d.Record})
	return d, record, err
}

// decodeDeploy reads a record and checks that it is the one of this number.
func decodeDeploy(value []byte, id uint64) (Deploy, error) {
	var r deployRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return Deploy{}, errs.Conflict("its record is unreadable: %w", err)
	}
	if r.V != 1 {
		return Deploy{}, errs.Unsupported("its record has version %d, this build knows 1", r.V)
	}
	var d Deploy
	if err := json.Unmarshal(r.Body, &d); err != nil {
		return Deploy{}, errs.Conflict("its record is unreadable: %w", err)
	}
	if d.ID != id {
		return Deploy{}, errs.Conflict("its record says that it is deploy %d", d.ID)
	}
	d.Digest, d.Record = digest(r.Body), r.Signature
	return d, nil
}
