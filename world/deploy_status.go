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
	"github.com/shoal-project/shoal/world/watch"
)

// DeployState is how far a machine is with a deploy.
type DeployState string

// The states. A machine that has said nothing yet is pending.
const (
	DeployPending DeployState = "pending"
	DeployRunning DeployState = "running"
	DeployDone    DeployState = "done"
	DeployFailed  DeployState = "failed"
)

// maxReason bounds the reason of a failure, in bytes; a longer one is cut.
const maxReason = 4 << 10

// DeployStatus is what a machine says of a deploy.
type DeployStatus struct {
	Deploy  uint64      `json:"-"`
	Machine string      `json:"-"`
	State   DeployState `json:"state"`
	Reason  string      `json:"reason,omitempty"` // of a failure
	Since   time.Time   `json:"since"`            // by the machine's clock; zero while it has said nothing
}

func (w *World) statusKey(id uint64, machine string) string {
	return w.ns.Key(treeDeploys, "status", padded(id), machine)
}

// SetDeployStatus says how far this machine is with a deploy. changed is false, and nobody gets an event, when it has said so already. Class Invalid
// for an unknown state and for a failure without a reason or a reason without a failure, NotFound for a deploy that is not there.
func (w *World) SetDeployStatus(ctx context.Context, id uint64, state DeployState, reason string) (changed bool, err error) {
	switch state {
	case DeployPending, DeployRunning, DeployDone, DeployFailed:
	default:
		return false, errs.Invalid("state %q of a deploy: allowed are pending, running, done and failed", state)
	}
	if (state == DeployFailed) != (reason != "") {
		return false, errs.Invalid("a deploy that failed needs a reason, and only such a one has it")
	}
	key := w.statusKey(id, w.Machine())
	value, err := json.Marshal(DeployStatus{State: state, Reason: cut(reason, maxReason), Since: w.o.Clock.Now().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return false, err
	}
	for {
		changed, again, err := w.setStatus(ctx, id, key, value)
		if !again || err != nil {
			return changed, inCall(err, "status of deploy %d", id)
		}
	}
}

// setStatus writes a status if the deploy is there, at the same revision, and the status differs. again: something changed meanwhile.
func (w *World) setStatus(ctx context.Context, id uint64, key string, value []byte) (changed, again bool, err error) {
	r, err := w.kv.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Get(w.recordKey(id)), kvstore.Get(key)}})
	if err != nil {
		return false, false, err
	}
	rec, have := r.Results[0].KVs, r.Results[1].KVs
	if len(rec) == 0 {
		return false, false, w.noDeploy(ctx, id)
	}
	var rev int64
	if len(have) > 0 {
		var old, now DeployStatus
		rev = have[0].ModRevision
		if json.Unmarshal(have[0].Value, &old) == nil && json.Unmarshal(value, &now) == nil && old.State == now.State && old.Reason == now.Reason {
			return false, false, nil
		}
	}
	r, err = w.kv.Txn(ctx, kvstore.Txn{
		If:   []kvstore.Compare{kvstore.Unchanged(w.recordKey(id), rec[0].ModRevision), kvstore.Unchanged(key, rev)},
		Then: []kvstore.Op{kvstore.Put(key, value)},
	})
	return r.Succeeded, !r.Succeeded, err
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) <= n {
		return s
	}
	const dots = "…"
	return strings.ToValidUTF8(s[:n-len(dots)], "") + dots
}

// DeployStatus returns how far each machine is with a deploy, by name: each that has said something, and those that are announced and
// have not as pending. As it was at one revision.
func (w *World) DeployStatus(ctx context.Context, id uint64) ([]DeployStatus, error) {
	var out []DeployStatus
	err := w.atOnce(ctx, func(s *snapshot) error {
		out = nil
		found := false
		if err := s.list(ctx, w.recordKey(id), func(kv kvstore.KeyValue) error { found = found || kv.Key == w.recordKey(id); return nil }); err != nil {
			return err
		}
		if !found {
			return w.noDeploy(ctx, id)
		}
		said := map[string]bool{}
		err := s.list(ctx, w.ns.Prefix(treeDeploys, "status", padded(id)), func(kv kvstore.KeyValue) error {
			st := DeployStatus{Deploy: id}
			p, ok := w.ns.Split(kv.Key)
			if !ok || len(p) != 4 || json.Unmarshal(kv.Value, &st) != nil {
				return nil // not ours
			}
			st.Machine = p[3]
			said[st.Machine] = true
			out = append(out, st)
			return nil
		})
		if err != nil {
			return err
		}
		ms, err := w.machines(ctx, s)
		for _, m := range ms {
			if !said[m.Name] {
				out = append(out, DeployStatus{Deploy: id, Machine: m.Name, State: DeployPending})
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("status of deploy %d: %w", id, kvstore.Hint(err))
	}
	slices.SortFunc(out, func(a, b DeployStatus) int { return strings.Compare(a.Machine, b.Machine) })
	return out, nil
}

// WatchDeployStatus tells of what may change DeployStatus's answer.
func (w *World) WatchDeployStatus(ctx context.Context, id uint64) (*watch.Watch, error) {
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeDeploys, "status", padded(id))), watch.Prefix(w.ns.Prefix(treeMachines)))
}
