package world

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
)

// Export is a resource that this machine shows to others. Kind, Name and To name it: a machine has one of each.
type Export struct {
	Kind string // what it is, for example "ssh-host-key"
	Name string
	To   string // the one machine that it is for; "" or names.Everyone: all. Not a secret from the others.
	Data string // at most names.MaxValue bytes
}

// ExportKey names an export of this machine.
type ExportKey struct {
	Kind, Name, To string
}

// Limits of one call, and of one transaction of it.
const (
	MaxExports = 20_000 // resources in one call
	maxChanges = 500    // of resources in one transaction: two keys each
)

// indexRecord is the value of exporters/<from>/<to>/<kind>/<name>. It is written together with the export and never without.
type indexRecord struct {
	V   int    `json:"v"`
	Set string `json:"set,omitempty"`
	Sum string `json:"sum"` // of the data: telling whether it changed needs no read of it
}

func sum(data string) string {
	s := sha256.Sum256([]byte(data))
	return base64.RawStdEncoding.EncodeToString(s[:16])
}

// ResExport exports resources, beside those that this machine exports already. unchanged is true when all of them were there with the same
// data, and then nobody gets an event; it is false when something changed and on an error (the contract that mgmt's documentation gives).
//
// Up to 500 changed resources with 900 KiB are one transaction; more are several, so that somebody may see the first without the last,
// and after an error some may be there. Calling it again is always right.
func (w *World) ResExport(ctx context.Context, list []Export) (unchanged bool, err error) {
	return w.export(ctx, "", list, false)
}

// ResReplace exports resources as a named set and takes back what this machine exported in that set before and that is not in the list: also what
// an earlier run of the program left. Other sets of this machine are not touched, but a resource has one set, the last that exported it.
// ResExport's set is "". Otherwise as ResExport.
func (w *World) ResReplace(ctx context.Context, set string, list []Export) (unchanged bool, err error) {
	return w.export(ctx, set, list, true)
}

// ResDelete takes exports of this machine back. unchanged is true when none of them was there.
func (w *World) ResDelete(ctx context.Context, list []ExportKey) (unchanged bool, err error) {
	want := make(map[string]*wanted, len(list))
	for _, k := range list {
		e := Export{Kind: k.Kind, Name: k.Name, To: k.To}
		if err := e.check(); err != nil {
			return false, err
		}
		want[w.indexKey(e)] = nil
	}
	unchanged, err = w.converge(ctx, func(ctx context.Context) (map[string]kvstore.KeyValue, map[string]*wanted, error) {
		have, err := w.ownOf(ctx, slices.Sorted(maps.Keys(want)))
		return have, want, err
	})
	return unchanged, inCall(err, "take back exports")
}

// check completes and validates an export.
func (e *Export) check() error {
	if e.To == "" {
		e.To = names.Everyone
	}
	if e.To != names.Everyone {
		if _, err := names.ParseMachine(e.To); err != nil {
			return fmt.Errorf("export %q %q: %w", e.Kind, e.Name, err)
		}
	}
	if err := names.Check("kind of an export", e.Kind); err != nil {
		return err
	}
	if err := names.Check("name of an export", e.Name); err != nil {
		return err
	}
	return names.CheckValue(fmt.Sprintf("export %q %q", e.Kind, e.Name), len(e.Data))
}

// wanted is how an export shall be; nil: not at all.
type wanted struct {
	data  string
	index []byte
}

func (w *World) export(ctx context.Context, set string, list []Export, replace bool) (bool, error) {
	if len(list) > MaxExports {
		return false, errs.TooLarge("%d resources in one call, at most %d are allowed", len(list), MaxExports)
	}
	if set != "" {
		if err := names.Check("set of exports", set); err != nil {
			return false, err
		}
	}
	want := make(map[string]*wanted, len(list))
	for _, e := range list {
		if err := e.check(); err != nil {
			return false, err
		}
		key := w.indexKey(e)
		if want[key] != nil {
			return false, errs.Invalid("export %q %q to %q is in the list twice", e.Kind, e.Name, e.To)
		}
		index, err := json.Marshal(indexRecord{V: 1, Set: set, Sum: sum(e.Data)})
		if err != nil {
			return false, err
		}
		want[key] = &wanted{e.Data, index}
	}
	unchanged, err := w.converge(ctx, func(ctx context.Context) (map[string]kvstore.KeyValue, map[string]*wanted, error) {
		if !replace {
			have, err := w.ownOf(ctx, slices.Sorted(maps.Keys(want)))
			return have, want, err
		}
		have, err := w.own(ctx)
		all := maps.Clone(want)
		for key, kv := range have {
			if _, r, ok := w.indexed(kv); ok && r.Set == set && want[key] == nil {
				all[key] = nil
			}
		}
		return have, all, err
	})
	return unchanged, inCall(err, "export")
}

// maxGets is how many keys are read one by one.
const maxGets = 200

// own reads the index of this machine's exports.
func (w *World) own(ctx context.Context) (map[string]kvstore.KeyValue, error) {
	have := map[string]kvstore.KeyValue{}
	_, err := w.kv.List(ctx, w.ns.Prefix(treeExporters, w.Machine()), func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			have[kv.Key] = kv
		}
		return nil
	})
	return have, err
}

// ownOf reads some keys of the index; many of them with all others, which costs the store a fifth.
func (w *World) ownOf(ctx context.Context, keys []string) (map[string]kvstore.KeyValue, error) {
	if len(keys) > maxGets {
		return w.own(ctx)
	}
	var t kvstore.Txn
	for _, k := range keys {
		t.Then = append(t.Then, kvstore.Get(k))
	}
	r, err := w.kv.Txn(ctx, t)
	if err != nil {
		return nil, err
	}
	have := make(map[string]kvstore.KeyValue, len(keys))
	for _, res := range r.Results {
		for _, kv := range res.KVs {
			have[kv.Key] = kv
		}
	}
	return have, nil
}

// maxTries is how often a change is tried when somebody else writes the same keys meanwhile.
const maxTries = 20

// converge brings this machine's exports from what read finds to what it says is wanted.
func (w *World) converge(ctx context.Context, read func(context.Context) (map[string]kvstore.KeyValue, map[string]*wanted, error)) (unchanged bool, err error) {
	unchanged = true
	for try := range maxTries {
		have, want, err := read(ctx)
		if err != nil {
			return false, err
		}
		parts := w.changes(have, want)
		done := true
		for _, t := range parts {
			unchanged = false
			r, err := w.kv.Txn(ctx, t)
			if err != nil {
				return false, err
			}
			if done = r.Succeeded; !done {
				break // somebody else is exporting as this machine: look again
			}
		}
		if done {
			return unchanged, nil
		}
		select {
		case <-time.After(time.Duration(rand.N(int64(try+1)*10)) * time.Millisecond):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return false, errs.Conflict("somebody else changes the exports of machine %s all the time; are there two of that name?", w.me)
}

// changes returns the transactions that lead from have to want, in the order of the keys.
func (w *World) changes(have map[string]kvstore.KeyValue, want map[string]*wanted) []kvstore.Txn {
	const room = kvstore.MaxTxnBytes - 16<<10
	var out []kvstore.Txn
	var t kvstore.Txn
	size := 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		e, _ := w.indexKeyParts(key)
		data := w.exportKey(e.To, e.Kind, w.Machine(), e.Name)
		kv, there := have[key]
		var ops []kvstore.Op
		n := len(key) + len(data)
		switch to := want[key]; {
		case to == nil && !there, to != nil && there && string(kv.Value) == string(to.index):
			continue
		case to == nil:
			ops = []kvstore.Op{kvstore.Delete(data), kvstore.Delete(key)}
		default:
			ops = []kvstore.Op{kvstore.Put(data, []byte(to.data)), kvstore.Put(key, to.index)}
			n += len(to.data) + len(to.index)
			if to.sameData(kv) {
				ops, n = ops[1:], n-len(to.data) // only its set is another
			}
		}
		if len(t.If) == maxChanges || len(t.If) > 0 && size+n > room {
			out, t, size = append(out, t), kvstore.Txn{}, 0
		}
		t.If, t.Then, size = append(t.If, kvstore.Unchanged(key, kv.ModRevision)), append(t.Then, ops...), size+n
	}
	if len(t.If) > 0 {
		out = append(out, t)
	}
	return out
}

// sameData says whether the export that an index entry stands for has the data already.
func (to *wanted) sameData(kv kvstore.KeyValue) bool {
	var r indexRecord
	return json.Unmarshal(kv.Value, &r) == nil && r.V == 1 && r.Sum == sum(to.data)
}

func (w *World) exportKey(to, kind, from, name string) string {
	return w.ns.Key(treeExports, to, kind, from, name)
}

func (w *World) indexKey(e Export) string {
	return w.ns.Key(treeExporters, w.Machine(), e.To, e.Kind, e.Name)
}

func (w *World) indexKeyParts(key string) (Export, bool) {
	p, ok := w.ns.Split(key)
	if !ok || len(p) != 5 {
		return Export{}, false
	}
	return Export{To: p[2], Kind: p[3], Name: p[4]}, true
}

// indexed reads an entry of an index.
func (w *World) indexed(kv kvstore.KeyValue) (Export, indexRecord, bool) {
	e, ok := w.indexKeyParts(kv.Key)
	var r indexRecord
	if !ok || json.Unmarshal(kv.Value, &r) != nil || r.V != 1 || strings.TrimSpace(r.Sum) == "" {
		return e, r, false
	}
	return e, r, true
}
