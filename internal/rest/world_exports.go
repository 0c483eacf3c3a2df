package rest

import (
	"context"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/watch"
)

// maxFilters bounds how many kinds one request may ask for.
const maxFilters = 100

// worldExportsGet collects what is exported to this machine, or with ?all=true to anybody. ?kind=, which may be repeated, ?name=, ?from= and ?to=
// filter.
func worldExportsGet(r *request) response {
	w, q := r.svc.World, r.query
	kinds := q["kind"]
	if len(kinds) > maxFilters {
		return fail(errs.Invalid("%d kinds were asked for, at most %d are allowed", len(kinds), maxFilters))
	}
	f := world.Filter{Name: q.Get("name"), From: q.Get("from"), To: q.Get("to")}
	filters := []world.Filter{}
	for _, k := range kinds {
		f.Kind = k
		filters = append(filters, f)
	}
	if len(kinds) == 0 {
		filters = append(filters, f)
	}
	read, open := w.ResCollect, func(ctx context.Context) (*watch.Watch, error) { return w.ResWatch(ctx, kinds...) }
	if q.Get("all") == "true" {
		read, open = w.ResList, w.ResListWatch
	}
	return r.live(open, func(ctx context.Context) (any, error) {
		all, err := read(ctx, filters)
		out := make([]api.WorldExport, 0, len(all))
		for _, e := range all {
			out = append(out, api.WorldExport{Kind: e.Kind, Name: e.Name, From: e.From, To: e.To, WorldData: data(e.Data), Revision: e.Revision})
		}
		return out, err
	})
}

func worldExportsPost(r *request) response {
	var post api.WorldExportsPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if post.Set != "" && !post.Replace {
		return fail(errs.Invalid("a set is for replacing: say replace too, or no set"))
	}
	list := make([]world.Export, 0, len(post.Exports))
	for _, e := range post.Exports {
		v, err := undata(e.WorldData)
		if err != nil {
			return fail(err)
		}
		list = append(list, world.Export{Kind: e.Kind, Name: e.Name, To: e.To, Data: v})
	}
	var unchanged bool
	var err error
	if post.Replace {
		unchanged, err = r.svc.World.ResReplace(r.Context(), post.Set, list)
	} else {
		unchanged, err = r.svc.World.ResExport(r.Context(), list)
	}
	return changedReply(!unchanged, err)
}

func worldExportsDelete(r *request) response {
	k := world.ExportKey{Kind: r.query.Get("kind"), Name: r.query.Get("name"), To: r.query.Get("to")}
	unchanged, err := r.svc.World.ResDelete(r.Context(), []world.ExportKey{k})
	return changedReply(!unchanged, err)
}
