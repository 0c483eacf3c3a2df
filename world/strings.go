package world

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// ErrNotExist is what is returned, wrapped, for a string that is not there.
var ErrNotExist = errs.NotFound("does not exist")

// Bounds of a time to live.
const (
	MinTTL = time.Second
	MaxTTL = 10 * 365 * 24 * time.Hour
)

// SetOption changes how a string is written.
type SetOption func(*setOptions)

type setOptions struct{ ttl time.Duration }

// TTL has the string go when it has not been set again for so long; whole seconds, rounded up, MinTTL to MaxTTL. Setting the same value
// again prolongs it without an event. The store may have a minimum of some seconds. 0: it stays.
func TTL(d time.Duration) SetOption { return func(o *setOptions) { o.ttl = d } }

// StringEntry is a string with its key.
type StringEntry struct {
	Key   string
	Value string
	// Revision of the store that wrote the value.
	Revision int64
	// Leased says that the string goes by itself unless it is set again.
	Leased bool
}

// StrSet sets a string; changed is false, and nobody gets an event, when it has this value already. A value has at most names.MaxValue bytes.
func (w *World) StrSet(ctx context.Context, key, value string, opts ...SetOption) (changed bool, err error) {
	if err := names.Check("string key", key); err != nil {
		return false, err
	}
	changed, err = w.set(ctx, w.ns.Key(treeStrings, key), value, opts)
	return changed, inCall(err, "set string %q", key)
}

// StrGet returns a string as it is now, linearizably; ErrNotExist, wrapped, when there is none.
func (w *World) StrGet(ctx context.Context, key string) (string, error) {
	e, err := w.StrEntry(ctx, key)
	return e.Value, err
}

// StrEntry is StrGet with what else is known of the string.
func (w *World) StrEntry(ctx context.Context, key string) (StringEntry, error) {
	if err := names.Check("string key", key); err != nil {
		return StringEntry{}, err
	}
	kv, ok, err := w.kv.Get(ctx, w.ns.Key(treeStrings, key))
	if err == nil && !ok {
		err = ErrNotExist
	}
	if err != nil {
		return StringEntry{}, inCall(err, "string %q", key)
	}
	return StringEntry{key, string(kv.Value), kv.ModRevision, kv.Lease != 0}, nil
}

// StrIsNotExist says whether an error of StrGet means that there is no such string.
func (w *World) StrIsNotExist(err error) bool { return errors.Is(err, ErrNotExist) }

// StrDel deletes a string; changed is false when there was none.
func (w *World) StrDel(ctx context.Context, key string) (changed bool, err error) {
	if err := names.Check("string key", key); err != nil {
		return false, err
	}
	changed, _, err = w.kv.Remove(ctx, w.ns.Key(treeStrings, key))
	return changed, inCall(err, "delete string %q", key)
}

// StrWatch tells of changes of one string; see package watch.
func (w *World) StrWatch(ctx context.Context, key string) (*watch.Watch, error) {
	if err := names.Check("string key", key); err != nil {
		return nil, err
	}
	return w.watch(ctx, watch.Key(w.ns.Key(treeStrings, key)))
}

// StrList returns all strings in the order of their keys, as they were at one revision. Keys that were not written by a World are left out.
func (w *World) StrList(ctx context.Context) ([]StringEntry, error) {
	var out []StringEntry
	_, err := w.kv.List(ctx, w.ns.Prefix(treeStrings), func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			if p, ok := w.ns.Split(kv.Key); ok && len(p) == 2 {
				out = append(out, StringEntry{p[1], string(kv.Value), kv.ModRevision, kv.Lease != 0})
			}
		}
		return nil
	})
	return out, inCall(err, "list strings")
}

// StrListWatch tells of changes of any string.
func (w *World) StrListWatch(ctx context.Context) (*watch.Watch, error) {
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeStrings)))
}

// set writes a key unless it has the value already, under a lease if it has a time to live.
func (w *World) set(ctx context.Context, key, value string, opts []SetOption) (changed bool, err error) {
	var o setOptions
	for _, f := range opts {
		f(&o)
	}
	if err := names.CheckValue("value", len(value)); err != nil {
		return false, err
	}
	if o.ttl == 0 {
		changed, _, err = w.kv.UpdateIfDifferent(ctx, key, []byte(value), 0)
		return changed, err
	}
	if o.ttl < MinTTL || o.ttl > MaxTTL {
		return false, errs.Invalid("time to live %v: must be %v to %v", o.ttl, MinTTL, MaxTTL)
	}
	return w.setLeased(ctx, key, value, (o.ttl + time.Second - 1).Truncate(time.Second))
}

// setLeased prolongs the lease that the key has if that is as long as ttl, else it gets one of its own.
func (w *World) setLeased(ctx context.Context, key, value string, ttl time.Duration) (changed bool, err error) {
	var granted kvstore.LeaseID // by this call
	defer func() {
		if granted != 0 { // not used: nothing hangs on it
			_ = w.kv.Revoke(context.WithoutCancel(ctx), granted) // else it runs out
		}
	}()
	for {
		kv, ok, err := w.kv.Get(ctx, key)
		if err != nil {
			return false, err
		}
		lease, err := w.prolong(ctx, kv.Lease, ttl)
		if err != nil {
			return false, err
		}
		if ok && lease != 0 && string(kv.Value) == value {
			return false, nil
		}
		if lease == 0 {
			if granted == 0 {
				if granted, err = w.kv.Grant(ctx, ttl); err != nil {
					return false, err
				}
			}
			lease = granted
		}
		r, err := w.kv.Txn(ctx, kvstore.Txn{
			If:   []kvstore.Compare{kvstore.Unchanged(key, kv.ModRevision)},
			Then: []kvstore.Op{{Type: kvstore.OpPut, Key: key, Value: []byte(value), Lease: lease}},
		})
		if errors.Is(err, kvstore.ErrLeaseExpired) {
			if lease == granted {
				granted = 0
			}
			continue
		}
		if lease == granted && (err != nil || r.Succeeded) {
			granted = 0 // used, or it cannot be known
		}
		if err != nil || r.Succeeded {
			return err == nil, err
		}
	}
}

// prolong renews a lease and returns it, or 0 when there is none, it is gone, or it is not for about ttl.
func (w *World) prolong(ctx context.Context, lease kvstore.LeaseID, ttl time.Duration) (kvstore.LeaseID, error) {
	if lease == 0 {
		return 0, nil
	}
	left, err := w.kv.KeepAlive(ctx, lease)
	switch {
	case errors.Is(err, kvstore.ErrLeaseExpired):
		return 0, nil
	case err != nil:
		return 0, err
	case left < ttl-time.Second || left > ttl+5*time.Second: // the store's minimum may be longer
		return 0, nil
	}
	return lease, nil
}

// inCall says what was being done when err happened; nil stays nil.
func inCall(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, kvstore.Hint(err))...)
}
