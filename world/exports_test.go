package world_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/names"
)

// collect returns what a machine sees as kind/name@from>to=data.
func collect(t testing.TB, w *world.World, filters ...world.Filter) []string {
	t.Helper()
	rs, err := w.ResCollect(t.Context(), filters)
	must(t, err)
	return resources(rs)
}

func resources(rs []world.Resource) []string {
	out := []string{}
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%s/%s@%s>%s=%s", r.Kind, r.Name, r.From, r.To, r.Data))
	}
	return out
}

var anything = world.Filter{}

func export(t testing.TB, w *world.World, list ...world.Export) (unchanged bool) {
	t.Helper()
	unchanged, err := w.ResExport(t.Context(), list)
	must(t, err)
	return unchanged
}

// The documented contract: true for no change, false for a change; no event for a value that is there.
func TestExport(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		for i, tt := range []struct {
			list      []world.Export
			unchanged bool
		}{
			{nil, true},
			{[]world.Export{{Kind: "k", Name: "a", Data: "1"}, {Kind: "k", Name: "b", To: "h2", Data: "1"}}, false},
			{[]world.Export{{Kind: "k", Name: "b", To: "h2", Data: "1"}, {Kind: "k", Name: "a", To: "*", Data: "1"}}, true},
			{[]world.Export{{Kind: "k", Name: "a", Data: "2"}}, false},
			{[]world.Export{{Kind: "k", Name: "a", Data: "2"}, {Kind: "k", Name: "c", Data: ""}}, false},
		} {
			before := head(t, one)
			if unchanged := export(t, one, tt.list...); unchanged != tt.unchanged {
				t.Errorf("export %d: unchanged %v", i, unchanged)
			}
			want := before + 1 // however many there are
			if tt.unchanged {
				want = before
			}
			if now := head(t, one); now != want {
				t.Errorf("export %d: revision %d became %d, want %d", i, before, now, want)
			}
		}
		if got, want := collect(t, two, anything), []string{"k/a@h1>*=2", "k/b@h1>h2=1", "k/c@h1>*="}; !slices.Equal(got, want) {
			t.Errorf("h2 sees %q", got)
		}
		if got, want := collect(t, one, anything), []string{"k/a@h1>*=2", "k/c@h1>*="}; !slices.Equal(got, want) {
			t.Errorf("h1 sees %q", got)
		}
		del := []world.ExportKey{{Kind: "k", Name: "a"}, {Kind: "k", Name: "b", To: "h2"}, {Kind: "k", Name: "none"}}
		if unchanged, err := two.ResDelete(ctx, del); !unchanged || err != nil {
			t.Errorf("delete of another's: %v %v", unchanged, err)
		}
		for _, want := range []bool{false, true} {
			if unchanged, err := one.ResDelete(ctx, del); unchanged != want || err != nil {
				t.Errorf("delete: unchanged %v, want %v: %v", unchanged, want, err)
			}
		}
		if got, want := collect(t, two, anything), []string{"k/c@h1>*="}; !slices.Equal(got, want) {
			t.Errorf("after the delete h2 sees %q", got)
		}
	})
}

// Any name survives, and stays within its place.
func TestExportHostile(t *testing.T) {
	w := machine(t, backends.Mem(t), "h1")
	var list []world.Export
	for _, kind := range hostile {
		for _, name := range hostile {
			list = append(list, world.Export{Kind: kind, Name: name, Data: kind + "|" + name})
		}
	}
	export(t, w, list...)
	for _, kind := range hostile {
		rs, err := w.ResCollect(t.Context(), []world.Filter{{Kind: kind}})
		if err != nil || len(rs) != len(hostile) {
			t.Fatalf("kind %q: %d found: %v", kind, len(rs), err)
		}
		for _, r := range rs {
			if r.Data != r.Kind+"|"+r.Name || r.Kind != kind {
				t.Errorf("%+v", r)
			}
		}
	}
	// What somebody else put there spoils nothing.
	for _, k := range []string{"*/a", "%2A/a", "%2A/a/b/c/d", "%2A//h1/x", "%2a/k/h1/n"} {
		_, _, err := w.KV().Update(t.Context(), w.Namespace().Prefix("exports")+k, nil, 0)
		must(t, err)
	}
	if got := collect(t, w, anything); len(got) != len(list) {
		t.Errorf("%d, want %d", len(got), len(list))
	}
}

func TestExportRefuse(t *testing.T) {
	w, ctx := machine(t, backends.Mem(t), "h1"), t.Context()
	before := head(t, w)
	good := world.Export{Kind: "k", Name: "n"}
	for name, tt := range map[string]struct {
		e     world.Export
		class errs.Class
	}{
		"no kind": {world.Export{Name: "n"}, errs.InvalidInput}, "no name": {world.Export{Kind: "k"}, errs.InvalidInput},
		"target": {world.Export{Kind: "k", Name: "n", To: "a/b"}, errs.InvalidInput}, "twice": {good, errs.InvalidInput},
		"large": {world.Export{Kind: "k", Name: "m", Data: strings.Repeat("x", names.MaxValue+1)}, errs.TooLargeClass},
	} {
		if _, err := w.ResExport(ctx, []world.Export{good, tt.e}); !errs.Is(err, tt.class) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.ResReplace(ctx, "", []world.Export{good, tt.e}); !errs.Is(err, tt.class) {
			t.Errorf("replace, %s: %v", name, err)
		}
	}
	if _, err := w.ResExport(ctx, make([]world.Export, world.MaxExports+1)); !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("too many: %v", err)
	}
	if _, err := w.ResReplace(ctx, "a\n", nil); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("set: %v", err)
	}
	for _, f := range []world.Filter{{From: "a/b"}, {To: "h2"}, {Kind: "\xff"}, {Name: strings.Repeat("x", 600)}} {
		if _, err := w.ResCollect(ctx, []world.Filter{f}); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if now := head(t, w); now != before {
		t.Errorf("revision %d became %d", before, now)
	}
}

func TestCollectFilters(t *testing.T) {
	b := backends.Mem(t)
	me := machine(t, b, "me")
	var all []string
	for _, from := range []string{"h1", "h2"} {
		w := machine(t, b, from)
		for _, to := range []string{"*", "me", "else"} {
			for _, kind := range []string{"k", "kk"} {
				export(t, w, world.Export{Kind: kind, Name: "n", To: to}, world.Export{Kind: kind, Name: "m", To: to})
				if to != "else" {
					all = append(all, fmt.Sprintf("%s/n@%s>%s=", kind, from, to), fmt.Sprintf("%s/m@%s>%s=", kind, from, to))
				}
			}
		}
	}
	slices.Sort(all)
	with := func(parts ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
		})
	}
	for name, tt := range map[string]struct {
		filters []world.Filter
		want    []string
	}{
		"none":             {nil, nil},
		"empty":            {[]world.Filter{{}}, all},
		"kind":             {[]world.Filter{{Kind: "k"}}, with("k/", "")[:0:0]},
		"name":             {[]world.Filter{{Name: "n"}}, with("/n@")},
		"from":             {[]world.Filter{{From: "h2"}}, with("@h2>")},
		"to all":           {[]world.Filter{{To: "*"}}, with(">*=")},
		"to me":            {[]world.Filter{{To: "me"}}, with(">me=")},
		"kind and from":    {[]world.Filter{{Kind: "kk", From: "h1"}}, with("kk/", "@h1>")},
		"exactly one":      {[]world.Filter{{Kind: "kk", From: "h1", Name: "m", To: "me"}}, []string{"kk/m@h1>me="}},
		"several":          {[]world.Filter{{Kind: "kk", From: "h1", Name: "m", To: "me"}, {Kind: "kk", From: "h2", Name: "n", To: "*"}}, []string{"kk/m@h1>me=", "kk/n@h2>*="}},
		"overlapping":      {[]world.Filter{{Kind: "kk"}, {From: "h1"}, {}}, all},
		"of nobody":        {[]world.Filter{{From: "h3"}}, nil},
		"kind begins like": {[]world.Filter{{Kind: "kkk"}}, nil},
	} {
		if name == "kind" { // "k/" is within "kk/"
			for _, s := range all {
				if strings.HasPrefix(s, "k/") {
					tt.want = append(tt.want, s)
				}
			}
		}
		got := collect(t, me, tt.filters...)
		slices.Sort(got)
		if !slices.Equal(got, tt.want) && len(got)+len(tt.want) > 0 {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	rs, err := me.ResList(t.Context(), []world.Filter{{To: "else"}})
	if err != nil || len(rs) != 8 {
		t.Errorf("list: %d %v", len(rs), err)
	}
	if rs, err = me.ResList(t.Context(), []world.Filter{{}}); err != nil || len(rs) != 24 {
		t.Errorf("list: %d %v", len(rs), err)
	}
}

// counting counts the keys that are read.
type counting struct {
	kvstore.Backend
	keys atomic.Int64
}

func (c *counting) Range(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	res, err := c.Backend.Range(ctx, r)
	c.keys.Add(int64(len(res.KVs)))
	return res, err
}

// A kind is collected without a look at the others, on one page or on several.
func TestCollectReadsOneKind(t *testing.T) {
	c := &counting{Backend: backends.Mem(t)}
	w := machine(t, c, "h1")
	var list []world.Export
	for i := range 5000 {
		list = append(list, world.Export{Kind: fmt.Sprint("kind", i%10), Name: fmt.Sprint(i)}, world.Export{Kind: "many", Name: fmt.Sprint(i)})
	}
	export(t, w, list...)
	for kind, want := range map[string]int{"kind3": 500, "many": 5000} {
		c.keys.Store(0)
		if got := collect(t, w, world.Filter{Kind: kind}); len(got) != want || c.keys.Load() != int64(want) {
			t.Errorf("%s: %d found, %d keys read, want %d", kind, len(got), c.keys.Load(), want)
		}
	}
}

// A machine that starts again with fewer exports takes the rest back, without remembering what there was; other sets stay.
func TestReplace(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		list := func(names ...string) (out []world.Export) {
			for _, n := range names {
				out = append(out, world.Export{Kind: "k", Name: n, Data: "1"})
			}
			return out
		}
		other := machine(t, b, "h2")
		export(t, other, list("of h2")...)
		for i, tt := range []struct {
			set       string
			list      []world.Export
			unchanged bool
			want      string
		}{
			{"", list("a", "b", "c"), false, "a b c"},
			{"mesh", list("m"), false, "a b c m"},
			{"", list("b", "c"), false, "b c m"},
			{"", list("b", "c"), true, "b c m"},
			{"mesh", list("c", "m"), false, "b c m"}, // c changes its set
			{"", list("b"), true, "b c m"},           // which therefore stays
			{"mesh", nil, false, "b"},
			{"", nil, false, ""},
			{"", nil, true, ""},
		} {
			w := machine(t, b, "h1") // as after a restart
			before := head(t, w)
			unchanged, err := w.ResReplace(ctx, tt.set, tt.list)
			if err != nil || unchanged != tt.unchanged || (head(t, w) == before) != tt.unchanged {
				t.Errorf("step %d: unchanged %v: %v", i, unchanged, err)
			}
			var have []string
			for _, s := range collect(t, other, world.Filter{From: "h1"}) {
				have = append(have, s[2:3])
			}
			if got := strings.Join(have, " "); got != tt.want {
				t.Errorf("step %d: %q, want %q", i, got, tt.want)
			}
		}
		if got := collect(t, other, anything); len(got) != 1 {
			t.Errorf("h2 lost its own: %q", got)
		}
		left, _, err := other.KV().ListPrefix(ctx, other.Namespace().Prefix("exporters", "h1"))
		if err != nil || len(left) != 0 {
			t.Errorf("left in the index: %+v %v", left, err)
		}
	})
}

// A collection is complete: all of one export call, at one revision, while it is being replaced.
func TestCollectIsOneSnapshot(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		version := func(v int) (list []world.Export) {
			for i := range 200 {
				list = append(list, world.Export{Kind: fmt.Sprint("k", i%3), Name: fmt.Sprint(i, "of", v%2), Data: fmt.Sprint(v), To: []string{"*", "h2"}[i%2]})
			}
			return list
		}
		_, err := one.ResReplace(t.Context(), "", version(0))
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for v := 1; ctx.Err() == nil; v++ {
				if _, err := one.ResReplace(ctx, "", version(v)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
		for range 50 {
			rs, err := two.ResCollect(t.Context(), []world.Filter{{Kind: "k0"}, {Kind: "k1"}, {Kind: "k2"}})
			must(t, err)
			for _, r := range rs {
				if r.Data != rs[0].Data || r.Revision != rs[0].Revision || len(rs) != 200 {
					t.Fatalf("%d resources, %+v beside %+v", len(rs), r, rs[0])
				}
			}
		}
		stop()
		wg.Wait()
	})
}

// Several programs export as one machine at the same time; nothing is lost.
func TestExportConcurrent(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		var wg sync.WaitGroup
		for p := range 4 {
			w := machine(t, b, "h1")
			wg.Go(func() {
				for i := range 10 {
					_, err := w.ResExport(t.Context(), []world.Export{{Kind: "shared", Name: "x", Data: fmt.Sprint(p, i)}, {Kind: "k", Name: fmt.Sprint(p, "-", i)}})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := collect(t, machine(t, b, "h2"), anything); len(got) != 41 {
			t.Errorf("%d: %q", len(got), got)
		}
	})
}

// An answer that was lost leaves the outcome open; the next call makes it right.
func TestExportLostAnswer(t *testing.T) {
	f := kvtest.NewFaults(backends.Mem(t))
	w := machine(t, f, "h1")
	var list []world.Export
	for i := range 1200 { // three transactions
		list = append(list, world.Export{Kind: "k", Name: fmt.Sprint(i), Data: "1"})
	}
	n := 0
	f.Fail(func(op string) error {
		if op == "txn after" {
			if n++; n == 2 { // one written, the second's answer is lost
				return kvstore.ErrNoQuorum
			}
		}
		return nil
	})
	if unchanged, err := w.ResExport(t.Context(), list); unchanged || !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("%v %v", unchanged, err)
	}
	f.Fail(nil)
	if got := len(collect(t, w, anything)); got != 1000 {
		t.Errorf("%d after the crash", got)
	}
	if unchanged := export(t, w, list...); unchanged || len(collect(t, w, anything)) != 1200 {
		t.Errorf("not completed")
	}
}

func TestResWatch(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		w, err := two.ResWatch(t.Context(), "k")
		must(t, err)
		defer w.Close()
		all, err := two.ResWatch(t.Context())
		must(t, err)
		defer all.Close()
		next(t, w)
		next(t, all)
		for _, e := range []world.Export{{Kind: "k", Name: "a"}, {Kind: "k", Name: "a", To: "h2"}, {Kind: "k", Name: "a", Data: "2"}} {
			export(t, one, e)
			next(t, w)
			next(t, all)
			export(t, one, e) // nothing new
		}
		export(t, one, world.Export{Kind: "kk", Name: "a"}, world.Export{Kind: "k", Name: "a", To: "h3"})
		next(t, all) // which came after whatever was before
		if len(w.C())+len(all.C()) != 0 {
			t.Error("woken by what did not change, another kind, or what is for another machine")
		}
	})
}

// What a machine exports outlives it for the grace period, is hidden then, and comes back with it. One that was never announced stays.
func TestGrace(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		short := func(o *world.Options) { o.Grace, o.SessionTTL = 2*time.Second, time.Second }
		start := func() *world.World {
			w := machine(t, b, "h1", short, func(o *world.Options) { o.AdvertiseURLs = []string{"https://10.0.0.1:8443"} })
			_, err := w.Announce(ctx)
			must(t, err)
			return w
		}
		one, two := start(), machine(t, b, "h2")
		export(t, one, world.Export{Kind: "k", Name: "a"})
		export(t, machine(t, b, "h3"), world.Export{Kind: "k", Name: "b"})
		status := func() world.MachineInfo {
			t.Helper()
			ms, err := two.Machines(ctx)
			if err != nil || len(ms) != 1 {
				t.Fatalf("%+v %v", ms, err)
			}
			return ms[0]
		}
		if got, want := status(), (world.MachineInfo{Name: "h1", URLs: []string{"https://10.0.0.1:8443"}, Grace: 2 * time.Second, Up: true}); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
		if err := two.Forget(ctx, "h1"); !errs.Is(err, errs.BusyClass) || len(collect(t, two, anything)) != 2 {
			t.Errorf("forget a machine that is up: %v", err)
		}
		w, err := two.ResWatch(ctx, "k")
		must(t, err)
		defer w.Close()
		next(t, w)
		must(t, one.KV().Close()) // it dies
		until(t, "h1 is down", func() bool { return !status().Up })
		until(t, "h1 is hidden", func() bool { return slices.Equal(collect(t, two, anything), []string{"k/b@h3>*="}) })
		next(t, w)
		if !status().Hidden {
			t.Error("not said to be hidden")
		}
		if rs, err := two.ResList(ctx, []world.Filter{{}}); err != nil || len(rs) != 2 {
			t.Errorf("%+v %v", rs, err)
		}
		one = start()
		if got := collect(t, two, anything); len(got) != 2 {
			t.Errorf("it is back: %q", got)
		}
		next(t, w)
		_, err = one.StrMapSet(ctx, "m", "x")
		must(t, err)
		must(t, one.KV().Close())
		until(t, "h1 is down again", func() bool { return !status().Up })
		must(t, two.Forget(ctx, "h1"))
		if rs, err := two.ResList(ctx, []world.Filter{{}}); err != nil || !slices.Equal(resources(rs), []string{"k/b@h3>*="}) {
			t.Errorf("%+v %v", rs, err)
		}
		if m, err := two.StrMapGet(ctx, "m"); err != nil || len(m) != 0 {
			t.Errorf("%v %v", m, err)
		}
		if ms, err := two.Machines(ctx); err != nil || len(ms) != 0 {
			t.Errorf("%+v %v", ms, err)
		}
		must(t, two.Forget(ctx, "h1")) // again
	})
}

// A machine that says that it goes is down at once; its exports stay.
func TestLeave(t *testing.T) {
	b := backends.Mem(t)
	one, two := machine(t, b, "h1"), machine(t, b, "h2")
	p, err := one.Announce(t.Context())
	must(t, err)
	export(t, one, world.Export{Kind: "k", Name: "a"})
	w, err := two.WatchMachines(t.Context())
	must(t, err)
	defer w.Close()
	next(t, w)
	must(t, p.Leave(t.Context()))
	next(t, w)
	ms, err := two.Machines(t.Context())
	if err != nil || len(ms) != 1 || ms[0].Up || ms[0].Hidden || len(collect(t, two, anything)) != 1 {
		t.Errorf("%+v %v", ms, err)
	}
}
