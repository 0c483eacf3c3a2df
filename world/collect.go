package world

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// Filter says which exports are wanted; an empty field means any.
type Filter struct {
	Kind, Name string
	From       string // the machine that exports it
	To         string // as it was exported: a machine's name, or names.Everyone
}

// Resource is an export as others see it.
type Resource struct {
	Kind, Name string
	From       string
	To         string // this machine, or names.Everyone
	Data       string
	Revision   int64 // of the store that wrote it
}

func (f Filter) matches(r Resource) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.Kind, r.Kind) && is(f.Name, r.Name) && is(f.From, r.From) && is(f.To, r.To)
}

// check reports, with class Invalid, a filter that nothing can match.
func (f Filter) check() error {
	for _, m := range []string{f.From, strings.TrimSuffix(f.To, names.Everyone)} {
		if m != "" {
			if _, err := names.ParseMachine(m); err != nil {
				return err
			}
		}
	}
	for what, s := range map[string]string{"kind of an export": f.Kind, "name of an export": f.Name} {
		if s != "" {
			if err := names.Check(what, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// ResCollect returns what others, and this machine, export to this machine or to all and at least one of the filters matches, by kind, name, machine
// and target. It is complete: all of it as it was at one revision. No filters match nothing, the empty filter everything. What
// machines export that have been away for longer than their grace period is left out, and so are keys that no World wrote. With a kind in each
// filter only those kinds are read. A Filter.To that is neither this machine nor names.Everyone is Invalid.
func (w *World) ResCollect(ctx context.Context, filters []Filter) ([]Resource, error) {
	for _, f := range filters {
		if f.To != "" && f.To != w.Machine() && f.To != names.Everyone {
			return nil, errs.Invalid("collect what is exported to %q: allowed are %q, %q and nothing for both", f.To, w.Machine(), names.Everyone)
		}
	}
	return w.collect(ctx, []string{w.Machine(), names.Everyone}, filters)
}

// ResList is ResCollect for those who look after the World: of all machines' exports to anybody, those of machines long gone too.
func (w *World) ResList(ctx context.Context, filters []Filter) ([]Resource, error) {
	return w.collect(ctx, nil, filters)
}

// collect reads what is exported to some machines, or with none to any.
func (w *World) collect(ctx context.Context, to []string, filters []Filter) ([]Resource, error) {
	for _, f := range filters {
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	var out []Resource
	err := w.atOnce(ctx, func(s *snapshot) error {
		out = nil
		hidden := map[string]bool{}
		var err error
		if to != nil {
			if hidden, err = w.hidden(ctx, s); err != nil {
				return err
			}
		}
		for _, p := range w.ranges(to, filters) {
			err := s.list(ctx, p, func(kv kvstore.KeyValue) error {
				r, ok := w.resource(kv)
				if ok && !hidden[r.From] && slices.ContainsFunc(filters, func(f Filter) bool { return f.matches(r) }) {
					out = append(out, r)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, inCall(err, "collect")
	}
	slices.SortFunc(out, func(a, b Resource) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return out, nil
}

// ranges returns the prefixes that have to be read for the filters, none within another.
func (w *World) ranges(to []string, filters []Filter) []string {
	var all []string
	for _, f := range filters {
		targets := to
		switch {
		case f.To != "":
			targets = []string{f.To}
		case to == nil:
			all = append(all, w.ns.Prefix(treeExports))
			continue
		}
		for _, t := range targets {
			parts := []string{treeExports, t}
			for _, p := range []string{f.Kind, f.From} { // in the order of the key, up to the first that may be any
				if p == "" {
					break
				}
				parts = append(parts, p)
			}
			all = append(all, w.ns.Prefix(parts...))
		}
	}
	slices.Sort(all)
	var out []string
	for _, p := range all {
		if len(out) == 0 || !strings.HasPrefix(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	return out
}

// resource reads a key of the exports.
func (w *World) resource(kv kvstore.KeyValue) (Resource, bool) {
	p, ok := w.ns.Split(kv.Key)
	if !ok || len(p) != 5 || slices.Contains(p, "") {
		w.log.Debug("no export", "key", kv.Key)
		return Resource{}, false
	}
	return Resource{To: p[1], Kind: p[2], From: p[3], Name: p[4], Data: string(kv.Value), Revision: kv.ModRevision}, true
}

// ResWatch tells of what may change ResCollect's answer for these kinds, none meaning all: exports that come, change and go, machines that
// reach the end of their grace period or come back. See package watch.
func (w *World) ResWatch(ctx context.Context, kinds ...string) (*watch.Watch, error) {
	targets := []watch.Target{watch.Prefix(w.ns.Prefix(treeGrace)), watch.Prefix(w.ns.Prefix(treeMachines))}
	for _, to := range []string{w.Machine(), names.Everyone} {
		if len(kinds) == 0 {
			targets = append(targets, watch.Prefix(w.ns.Prefix(treeExports, to)))
		}
		for _, k := range kinds {
			if err := names.Check("kind of an export", k); err != nil {
				return nil, err
			}
			targets = append(targets, watch.Prefix(w.ns.Prefix(treeExports, to, k)))
		}
	}
	return w.watch(ctx, targets...)
}

// ResListWatch tells of what may change ResList's answer.
func (w *World) ResListWatch(ctx context.Context) (*watch.Watch, error) {
	return w.watch(ctx, watch.Prefix(w.ns.Prefix(treeExports)))
}
