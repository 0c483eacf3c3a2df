package world

import (
	"context"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// StrMapSet sets this machine's entry in a string map; as StrSet otherwise. Nobody else's entry, and no string, is touched.
func (w *World) StrMapSet(ctx context.Context, key, value string, opts ...SetOption) (changed bool, err error) {
	if err := names.Check("string map key", key); err != nil {
		return false, err
	}
	changed, err = w.set(ctx, w.ns.Key(treeStringMaps, key, w.Machine()), value, opts)
	return changed, inCall(err, "set own entry of string map %q", key)
}

// StrMapGet returns the entries of a string map by machine, empty when there is none, as they were at one revision. Entries that were not
// written by a World are left out.
func (w *World) StrMapGet(ctx context.Context, key string) (map[string]string, error) {
	if err := names.Check("string map key", key); err != nil {
		return nil, err
	}
	out := map[string]string{}
	_, err := w.kv.List(ctx, w.ns.Prefix(treeStringMaps, key), func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			if _, m, ok := w.mapEntry(kv.Key); ok {
				out[m] = string(kv.Value)
			}
		}
		return nil
	})
	if err != nil {
		return nil, inCall(err, "string map %q", key)
	}
	return out, nil
}

// StrMapDel deletes this machine's entry; changed is false when there was none.
func (w *World) StrMapDel(ctx context.Context, key string) (changed bool, err error) {
	if err := names.Check("string map key", key); err != nil {
		return false, err
	}
	changed, _, err = w.kv.Remove(ctx, w.ns.Key(treeStringMaps, key, w.Machine()))
	return changed, inCall(err, "delete own entry of string map %q", key)
}

// StrMapWatch tells of changes of any entry of one string map; see package watch.
func (w *World) StrMapWatch(ctx context.Context, key string) (*watch.Watch, error) {
	if err := names.Check("string map key", key); err != nil {
		return nil, err
	}
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeStringMaps, key)))
}

// StrMapList returns all string maps by key, each with its entries by machine, as they were at one revision.
func (w *World) StrMapList(ctx context.Context) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	_, err := w.kv.List(ctx, w.ns.Prefix(treeStringMaps), func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			if key, m, ok := w.mapEntry(kv.Key); ok {
				if out[key] == nil {
					out[key] = map[string]string{}
				}
				out[key][m] = string(kv.Value)
			}
		}
		return nil
	})
	if err != nil {
		return nil, inCall(err, "list string maps")
	}
	return out, nil
}

// StrMapListWatch tells of changes of any string map.
func (w *World) StrMapListWatch(ctx context.Context) (*watch.Watch, error) {
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeStringMaps)))
}

// mapEntry reads the key of an entry.
func (w *World) mapEntry(key string) (of, machine string, ok bool) {
	p, ok := w.ns.Split(key)
	if !ok || len(p) != 3 || p[1] == "" {
		return "", "", false
	}
	if _, err := names.ParseMachine(p[2]); err != nil {
		return "", "", false
	}
	return p[1], p[2], true
}
