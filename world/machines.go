package world

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// MachineInfo is what is known of a machine.
type MachineInfo struct {
	Name string
	// URLs are where its member of the database is reached.
	URLs []string
	// Key is the key that it signs deploys with; "" for none.
	Key string
	// Grace is how long its exports stay visible after it was last up.
	Grace time.Duration
	// Up says that it is there now, Hidden that it has been away for longer than Grace.
	Up, Hidden bool
}

// machineRecord is the value of machines/<machine>.
type machineRecord struct {
	V     int      `json:"v"`
	URLs  []string `json:"urls,omitempty"`
	Key   string   `json:"key,omitempty"`
	Grace int64    `json:"grace"` // seconds
}

// Announce says, until the client is closed, that this machine is up, and writes its record. What it exports from then on is hidden when it has been
// away for Options.Grace, and shown again when it is back; a machine that was never announced stays visible for ever. Returns when the store knows.
//
// After a crash the machine counts as down within Options.SessionTTL. A lost lease is written anew by itself.
func (w *World) Announce(ctx context.Context) (*Presence, error) {
	r := machineRecord{V: 1, URLs: slices.Clone(w.o.AdvertiseURLs), Grace: int64(w.o.Grace / time.Second)}
	if w.o.Signer != nil {
		r.Key = w.o.Signer.Key()
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// The lease is renewed every third of its time, so it is up to a third shorter than its time when the machine dies.
	grace := w.kv.NewPool(kvstore.PoolConfig{TTL: w.o.Grace * 3 / 2})
	p := &Presence{w: w, alive: w.kv.NewPool(kvstore.PoolConfig{TTL: w.o.SessionTTL})}
	// The record last: until it is there nothing is hidden.
	if _, _, err := grace.Put(ctx, w.ns.Key(treeGrace, w.Machine()), nil); err != nil {
		return nil, inCall(err, "announce %s", w.Machine())
	}
	if _, _, err := p.alive.Put(ctx, w.ns.Key(treeAlive, w.Machine()), nil); err != nil {
		return nil, inCall(err, "announce %s", w.Machine())
	}
	if _, _, err := w.kv.UpdateIfDifferent(ctx, w.ns.Key(treeMachines, w.Machine()), value, 0); err != nil {
		return nil, inCall(err, "announce %s", w.Machine())
	}
	return p, nil
}

// Presence is a machine that is up.
type Presence struct {
	w     *World
	alive *kvstore.LeasePool
}

// Leave says that the machine goes down; its exports stay for the grace period, which begins when the client is closed.
func (p *Presence) Leave(ctx context.Context) error {
	_, _, err := p.alive.Remove(ctx, p.w.ns.Key(treeAlive, p.w.Machine()))
	return inCall(err, "leave")
}

// Machines returns the machines that were announced, by name, as they were at one revision.
func (w *World) Machines(ctx context.Context) ([]MachineInfo, error) {
	var out []MachineInfo
	err := w.atOnce(ctx, func(s *snapshot) (err error) {
		out, err = w.machines(ctx, s)
		return err
	})
	return out, inCall(err, "list machines")
}

// WatchMachines tells of machines that come, go, or change.
func (w *World) WatchMachines(ctx context.Context) (*watch.Watch, error) {
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeMachines)), watch.Prefix(w.ns.Prefix(treeAlive)), watch.Prefix(w.ns.Prefix(treeGrace)))
}

func (w *World) machines(ctx context.Context, s *snapshot) ([]MachineInfo, error) {
	var out []MachineInfo
	err := s.list(ctx, w.ns.Prefix(treeMachines), func(kv kvstore.KeyValue) error {
		var r machineRecord
		p, ok := w.ns.Split(kv.Key)
		if !ok || len(p) != 2 || json.Unmarshal(kv.Value, &r) != nil {
			w.log.Debug("no record of a machine", "key", kv.Key)
			return nil
		}
		out = append(out, MachineInfo{Name: p[1], URLs: r.URLs, Key: r.Key, Grace: time.Duration(r.Grace) * time.Second, Hidden: true})
		return nil
	})
	for tree, set := range map[string]func(*MachineInfo){
		treeAlive: func(m *MachineInfo) { m.Up = true }, treeGrace: func(m *MachineInfo) { m.Hidden = false },
	} {
		if err != nil {
			return nil, err
		}
		err = s.list(ctx, w.ns.Prefix(tree), func(kv kvstore.KeyValue) error {
			p, ok := w.ns.Split(kv.Key)
			if i := slices.IndexFunc(out, func(m MachineInfo) bool { return ok && len(p) == 2 && m.Name == p[1] }); i >= 0 {
				set(&out[i])
			}
			return nil
		})
	}
	slices.SortFunc(out, func(a, b MachineInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// hidden returns the machines whose exports nobody shall see.
func (w *World) hidden(ctx context.Context, s *snapshot) (map[string]bool, error) {
	ms, err := w.machines(ctx, s)
	out := map[string]bool{}
	for _, m := range ms {
		if m.Hidden {
			out[m.Name] = true
		}
	}
	return out, err
}

// Forget deletes what a machine left behind: its exports, its entries in string maps, its record. Class Busy when it is up, in which case
// nothing, or not everything, is deleted. It is several transactions; calling it again after a crash finishes it.
func (w *World) Forget(ctx context.Context, machine string) error {
	m, err := names.ParseMachine(machine)
	if err != nil {
		return err
	}
	down := kvstore.Missing(w.ns.Key(treeAlive, m.String()))
	var keys []string
	err = w.atOnce(ctx, func(s *snapshot) error {
		keys = keys[:0]
		if err := s.list(ctx, w.ns.Prefix(treeExporters, m.String()), func(kv kvstore.KeyValue) error {
			if e, ok := w.indexKeyParts(kv.Key); ok {
				keys = append(keys, w.exportKey(e.To, e.Kind, m.String(), e.Name))
			}
			keys = append(keys, kv.Key)
			return nil
		}); err != nil {
			return err
		}
		return s.list(ctx, w.ns.Prefix(treeStringMaps), func(kv kvstore.KeyValue) error {
			if _, of, ok := w.mapEntry(kv.Key); ok && of == m.String() {
				keys = append(keys, kv.Key)
			}
			return nil
		})
	})
	if err != nil {
		return inCall(err, "forget machine %s", m)
	}
	keys = append(keys, w.ns.Key(treeGrace, m.String()), w.ns.Key(treeMachines, m.String()))
	for part := range slices.Chunk(keys, maxChanges) {
		t := kvstore.Txn{If: []kvstore.Compare{down}}
		for _, k := range part {
			t.Then = append(t.Then, kvstore.Delete(k))
		}
		r, err := w.kv.Txn(ctx, t)
		if err == nil && !r.Succeeded {
			err = errs.Busy("it is up")
		}
		if err != nil {
			return fmt.Errorf("forget machine %s: %w", m, kvstore.Hint(err))
		}
	}
	return nil
}
