package world_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/names"
)

func TestStrings(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		w, ctx := machine(t, b, "h1"), t.Context()
		_, err := w.StrGet(ctx, "none")
		if !w.StrIsNotExist(err) || !w.StrIsNotExist(fmt.Errorf("wrapped: %w", err)) || !errs.IsNotFound(err) {
			t.Errorf("missing: %v", err)
		}
		if changed, err := w.StrDel(ctx, "none"); changed || err != nil {
			t.Errorf("delete of nothing: %v %v", changed, err)
		}
		for _, key := range hostile {
			for i, v := range []string{"", "1", "1", "2"} {
				before := head(t, w)
				changed, err := w.StrSet(ctx, key, v)
				if err != nil || changed != (i != 2) || (head(t, w) != before) != changed {
					t.Errorf("%q = %q: changed %v, revision %d to %d: %v", key, v, changed, before, head(t, w), err)
				}
				if got, err := w.StrGet(ctx, key); got != v || err != nil {
					t.Errorf("%q: %q, want %q: %v", key, got, v, err)
				}
			}
		}
		all, err := w.StrList(ctx)
		if err != nil || len(all) != len(hostile) {
			t.Errorf("list: %+v %v", all, err)
		}
		for _, key := range hostile {
			if changed, err := w.StrDel(ctx, key); !changed || err != nil {
				t.Errorf("delete %q: %v %v", key, changed, err)
			}
		}
		if all, err := w.StrList(ctx); err != nil || len(all) != 0 {
			t.Errorf("list: %+v %v", all, err)
		}
	})
}

// Bad input is refused with its reason and changes nothing.
func TestStringsRefuse(t *testing.T) {
	w, ctx := machine(t, backends.Mem(t), "h1"), t.Context()
	before := head(t, w)
	for _, key := range []string{"", "a\x00", "a\nb", "\xff", strings.Repeat("x", names.MaxName+1)} {
		_, e1 := w.StrSet(ctx, key, "")
		_, e2 := w.StrGet(ctx, key)
		_, e3 := w.StrDel(ctx, key)
		_, e4 := w.StrWatch(ctx, key)
		_, e5 := w.StrMapSet(ctx, key, "")
		_, e6 := w.StrMapGet(ctx, key)
		_, e7 := w.StrMapDel(ctx, key)
		_, e8 := w.StrMapWatch(ctx, key)
		for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8} {
			if !errs.Is(err, errs.InvalidInput) {
				t.Errorf("%q, call %d: %v", key, i+1, err)
			}
		}
	}
	for _, ttl := range []time.Duration{-time.Second, time.Millisecond, world.MaxTTL + 1} {
		if _, err := w.StrSet(ctx, "a", "", world.TTL(ttl)); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("ttl %v: %v", ttl, err)
		}
	}
	if _, err := w.StrSet(ctx, "a", strings.Repeat("x", names.MaxValue+1)); !errs.Is(err, errs.TooLargeClass) || !strings.Contains(err.Error(), fmt.Sprint(names.MaxValue)) {
		t.Errorf("too large: %v", err)
	}
	if now := head(t, w); now != before {
		t.Errorf("revision %d became %d", before, now)
	}
	if _, err := w.StrSet(ctx, "a", strings.Repeat("x", names.MaxValue)); err != nil {
		t.Errorf("the largest allowed: %v", err)
	}
}

func TestStringMaps(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		get := func(key string) map[string]string {
			t.Helper()
			m, err := two.StrMapGet(ctx, key)
			must(t, err)
			return m
		}
		if m := get("none"); m == nil || len(m) != 0 {
			t.Errorf("missing map: %v", m)
		}
		for _, key := range hostile {
			// The trees are apart: a string of any name spoils no map, and no map another.
			for _, s := range []string{key, key + "/h1", key + "/h1/x", key + "/"} {
				if len(s) <= names.MaxName {
					_, err := one.StrSet(ctx, s, "string")
					must(t, err)
				}
			}
			for i, v := range []string{"1", "1", "2"} {
				before := head(t, one)
				changed, err := one.StrMapSet(ctx, key, v)
				if err != nil || changed != (i != 1) || (head(t, one) != before) != changed {
					t.Errorf("%q = %q: changed %v: %v", key, v, changed, err)
				}
			}
			_, err := two.StrMapSet(ctx, key, "of two")
			must(t, err)
			if m := get(key); !maps.Equal(m, map[string]string{"h1": "2", "h2": "of two"}) {
				t.Errorf("%q: %v", key, m)
			}
		}
		// What somebody else put there is left out.
		for _, k := range []string{"a/h1/x", "a/", "a/-", "a/%zz", "a/a%2fb"} {
			_, _, err := one.KV().Update(ctx, one.Namespace().Prefix("stringmaps")+k, []byte("x"), 0)
			must(t, err)
		}
		if m := get("a"); len(m) != 2 {
			t.Errorf("with foreign keys: %v", m)
		}
		all, err := one.StrMapList(ctx)
		if err != nil || len(all) != len(hostile) || len(all["a/b/c"]) != 2 {
			t.Errorf("list: %v %v", all, err)
		}
		if changed, err := one.StrMapDel(ctx, "a"); !changed || err != nil {
			t.Error(changed, err)
		}
		if changed, err := one.StrMapDel(ctx, "a"); changed || err != nil {
			t.Error(changed, err)
		}
		if m := get("a"); !maps.Equal(m, map[string]string{"h2": "of two"}) {
			t.Errorf("after delete: %v", m)
		}
	})
}

// A watch of one name is not woken by names that begin with it, nor by the other tree.
func TestStringWatch(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		ws, err := one.StrWatch(ctx, "key")
		must(t, err)
		defer ws.Close()
		wm, err := one.StrMapWatch(ctx, "key")
		must(t, err)
		defer wm.Close()
		all, err := one.StrListWatch(ctx)
		must(t, err)
		defer all.Close()
		next(t, ws)
		next(t, wm)
		next(t, all)
		for _, k := range []string{"key2", "key/a", "ke"} {
			_, err := two.StrSet(ctx, k, "x")
			must(t, err)
			_, err = two.StrMapSet(ctx, k, "x")
			must(t, err)
			next(t, all)
		}
		// These come last through the same streams: what was before has been seen when they are.
		sent, err := one.StrMapWatch(ctx, "sentinel")
		must(t, err)
		defer sent.Close()
		next(t, sent)
		_, err = two.StrSet(ctx, "sentinel", "x")
		must(t, err)
		_, err = two.StrMapSet(ctx, "sentinel", "x")
		must(t, err)
		next(t, all)
		next(t, sent)
		if len(ws.C())+len(wm.C()) != 0 {
			t.Error("woken by another name")
		}
		_, err = two.StrSet(ctx, "key", "x")
		must(t, err)
		next(t, ws)
		_, err = two.StrMapSet(ctx, "key", "x")
		must(t, err)
		next(t, wm)
	})
}

// A string with a time to live goes unless it is set again; setting it again makes no event and no second lease.
func TestTTL(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		w, ctx := machine(t, b, "h1"), t.Context()
		set := func(value string, ttl time.Duration) bool {
			t.Helper()
			changed, err := w.StrSet(ctx, "a", value, world.TTL(ttl))
			must(t, err)
			return changed
		}
		lease := func() kvstore.LeaseID {
			t.Helper()
			kv, _, err := w.KV().Get(ctx, w.Namespace().Key("strings", "a"))
			must(t, err)
			return kv.Lease
		}
		if !set("1", time.Hour) || lease() == 0 {
			t.Error("not leased")
		}
		first := lease()
		before := head(t, w)
		if set("1", time.Hour) || head(t, w) != before {
			t.Error("the same value again was a change")
		}
		if !set("2", time.Hour) || lease() != first {
			t.Error("a new value needed a new lease")
		}
		if !set("2", 3*time.Second) || lease() == first {
			t.Error("another time to live kept the lease")
		}
		if !set("2", 0) || lease() != 0 {
			t.Error("still leased")
		}
		set("3", 2*time.Second)
		until(t, "the string goes", func() bool {
			_, err := w.StrGet(ctx, "a")
			return errors.Is(err, world.ErrNotExist)
		})
		if !set("3", time.Minute) {
			t.Error("a string that went was there")
		}
	})
}
