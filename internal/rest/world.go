package rest

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/watch"
)

// worldEndpoints serve the World. Every list and object takes ?watch=true.
func worldEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/world", methods: methods{"GET": worldGet}},
		{path: "/1.0/world/strings", methods: methods{"GET": worldStringsGet}},
		{path: "/1.0/world/strings/{key}", methods: methods{"GET": worldStringGet, "PUT": worldStringPut, "DELETE": worldStringDelete}},
		{path: "/1.0/world/string-maps", methods: methods{"GET": worldMapsGet}},
		{path: "/1.0/world/string-maps/{key}", methods: methods{"GET": worldMapGet, "PUT": worldMapPut, "DELETE": worldMapDelete}},
		{path: "/1.0/world/members", methods: methods{"GET": worldMembersGet}},
		{path: "/1.0/world/machines", methods: methods{"GET": worldMachinesGet}},
		{path: "/1.0/world/machines/{name}", methods: methods{"DELETE": worldMachineDelete}},
		{path: "/1.0/world/exports", methods: methods{"GET": worldExportsGet, "POST": worldExportsPost, "DELETE": worldExportsDelete}},
		{path: "/1.0/world/deploys", methods: methods{"GET": worldDeploysGet, "POST": worldDeploysPost, "DELETE": worldDeploysDelete}},
		{path: "/1.0/world/deploys/{id}", methods: methods{"GET": worldDeployGet}},
		{path: "/1.0/world/deploys/{id}/payload", methods: methods{"GET": worldDeployPayload}},
		{path: "/1.0/world/deploys/{id}/status", methods: methods{"GET": worldDeployStatusGet, "PUT": worldDeployStatusPut}},
	}
}

func worldGet(r *request) response {
	w := r.svc.World
	id, err := w.GetMaxDeployID(r.Context())
	if err != nil {
		return fail(err)
	}
	ms, err := w.Machines(r.Context())
	if err != nil {
		return fail(err)
	}
	return reply(api.World{Machine: w.Machine(), Namespace: w.Namespace().String(), Deploy: id, Machines: len(ms)})
}

// data makes of a value what JSON can carry.
func data(s string) api.WorldData {
	if utf8.ValidString(s) {
		return api.WorldData{Value: s}
	}
	return api.WorldData{Value: base64.StdEncoding.EncodeToString([]byte(s)), Encoding: "base64"}
}

// undata is the inverse of data.
func undata(d api.WorldData) (string, error) {
	switch d.Encoding {
	case "":
		return d.Value, nil
	case "base64":
		b, err := base64.StdEncoding.DecodeString(d.Value)
		if err != nil {
			return "", errs.Invalid("Invalid value: %w", err)
		}
		return string(b), nil
	}
	return "", errs.Invalid("Invalid encoding %q: allowed are \"\" and \"base64\"", d.Encoding)
}

func worldStringsGet(r *request) response {
	return r.live(r.svc.World.StrListWatch, func(ctx context.Context) (any, error) {
		all, err := r.svc.World.StrList(ctx)
		out := make([]api.WorldString, 0, len(all))
		for _, s := range all {
			out = append(out, api.WorldString{Key: s.Key, WorldData: data(s.Value), Revision: s.Revision, Expires: s.Leased})
		}
		return out, err
	})
}

func worldStringGet(r *request) response {
	key := r.PathValue("key")
	watching, _ := r.watching() // a bad value is refused by live
	return r.live(func(ctx context.Context) (*watch.Watch, error) { return r.svc.World.StrWatch(ctx, key) },
		func(ctx context.Context) (any, error) {
			s, err := r.svc.World.StrEntry(ctx, key)
			if watching && r.svc.World.StrIsNotExist(err) {
				return nil, nil // a watch waits for it
			}
			return api.WorldString{Key: key, WorldData: data(s.Value), Revision: s.Revision, Expires: s.Leased}, err
		})
}

// stringPut reads what is to be set.
func (r *request) stringPut() (string, []world.SetOption, error) {
	var put api.WorldStringPut
	if err := r.decode(&put); err != nil {
		return "", nil, err
	}
	v, err := undata(put.WorldData)
	return v, []world.SetOption{world.TTL(time.Duration(put.TTL) * time.Second)}, err
}

func changedReply(changed bool, err error) response {
	if err != nil {
		return fail(err)
	}
	return reply(api.WorldChanged{Changed: changed})
}

func worldStringPut(r *request) response {
	v, opts, err := r.stringPut()
	if err != nil {
		return fail(err)
	}
	return changedReply(r.svc.World.StrSet(r.Context(), r.PathValue("key"), v, opts...))
}

func worldStringDelete(r *request) response {
	return changedReply(r.svc.World.StrDel(r.Context(), r.PathValue("key")))
}

func worldMapsGet(r *request) response {
	return r.live(r.svc.World.StrMapListWatch, func(ctx context.Context) (any, error) {
		all, err := r.svc.World.StrMapList(ctx)
		out := make([]api.WorldStringMap, 0, len(all))
		for _, key := range slices.Sorted(maps.Keys(all)) {
			out = append(out, stringMap(key, all[key]))
		}
		return out, err
	})
}

func stringMap(key string, entries map[string]string) api.WorldStringMap {
	m := api.WorldStringMap{Key: key, Entries: make(map[string]api.WorldData, len(entries))}
	for machine, v := range entries {
		m.Entries[machine] = data(v)
	}
	return m
}

func worldMapGet(r *request) response {
	key := r.PathValue("key")
	return r.live(func(ctx context.Context) (*watch.Watch, error) { return r.svc.World.StrMapWatch(ctx, key) },
		func(ctx context.Context) (any, error) {
			m, err := r.svc.World.StrMapGet(ctx, key)
			return stringMap(key, m), err
		})
}

func worldMapPut(r *request) response {
	v, opts, err := r.stringPut()
	if err != nil {
		return fail(err)
	}
	return changedReply(r.svc.World.StrMapSet(r.Context(), r.PathValue("key"), v, opts...))
}

func worldMapDelete(r *request) response {
	return changedReply(r.svc.World.StrMapDel(r.Context(), r.PathValue("key")))
}
