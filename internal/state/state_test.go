package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		crashChild()
		return
	}
	goleak.VerifyTestMain(m)
}

type thing struct {
	Name string            `json:"name"`
	N    int               `json:"n,omitempty"`
	Tags []string          `json:"tags,omitempty"`
	Map  map[string]string `json:"map,omitempty"`
}

// openOn opens a database over a backend, with quick checks.
func openOn(t testing.TB, b kvstore.Backend) *state.DB {
	t.Helper()
	kv := kvstore.New(b, kvstore.Config{CheckInterval: 20 * time.Millisecond, Page: 100})
	db, err := state.Open(t.Context(), kv, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func etcdBackend(t testing.TB) kvstore.Backend {
	t.Helper()
	m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	b := etcd.New(m.Client())
	t.Cleanup(func() {
		b.Close()
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// each runs f on a database of each sort.
func each(t *testing.T, f func(t *testing.T, db *state.DB)) {
	t.Run("memory", func(t *testing.T) { f(t, state.NewMemory()) })
	t.Run("mem backend", func(t *testing.T) { f(t, openOn(t, mem.New())) })
	t.Run("etcd", func(t *testing.T) { f(t, openOn(t, etcdBackend(t))) })
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func names(items []state.Item[thing]) string {
	var out []string
	for _, it := range items {
		out = append(out, it.Key)
	}
	return strings.Join(out, " ")
}

func TestTable(t *testing.T) {
	each(t, func(t *testing.T, db *state.DB) {
		ctx := t.Context()
		tab := state.NewTable[thing](db, "things", 1)
		ok := must[state.Item[thing]](t)
		if _, err := tab.Get("a"); !errs.IsNotFound(err) {
			t.Errorf("get: %v", err)
		}
		a := ok(tab.Create(ctx, "a", thing{Name: "A"}))
		if _, err := tab.Create(ctx, "a", thing{}); !errs.IsExists(err) {
			t.Errorf("create again: %v", err)
		}
		got := ok(tab.Get("a"))
		if got.Value.Name != "A" || got.Rev != a.Rev || db.Rev() < a.Rev {
			t.Errorf("%+v, written at %d, cache at %d", got, a.Rev, db.Rev())
		}
		got.Value.N = 1
		b := ok(tab.Update(ctx, got))
		if _, err := tab.Update(ctx, got); !errs.IsConflict(err) {
			t.Errorf("stale update: %v", err)
		}
		if b.Rev <= a.Rev {
			t.Errorf("revisions %d %d", a.Rev, b.Rev)
		}
		if _, err := tab.Update(ctx, state.Item[thing]{Key: "none"}); !errs.IsConflict(err) {
			t.Errorf("update of nothing: %v", err)
		}
		ok(tab.Put(ctx, "b/1", thing{Name: "B"}))
		ok(tab.Put(ctx, "b/1", thing{Name: "B", N: 2}))
		ok(tab.Put(ctx, "b2", thing{}))
		ok(state.NewTable[thing](db, "thingsandmore", 1).Put(ctx, "x", thing{}))
		if got := names(tab.List("")); got != "a b/1 b2" {
			t.Errorf("list: %s", got)
		}
		if got := names(tab.List("b/")); got != "b/1" {
			t.Errorf("list b/: %s", got)
		}
		m := ok(tab.Modify(ctx, "a", func(v *thing) error { v.N++; return nil }))
		if m.Value.N != 2 {
			t.Errorf("modify: %+v", m)
		}
		no := errors.New("no")
		if _, err := tab.Modify(ctx, "a", func(*thing) error { return no }); !errors.Is(err, no) {
			t.Errorf("refused modify: %v", err)
		}
		if err := tab.Delete(ctx, "a"); err != nil {
			t.Error(err)
		}
		if err := tab.Delete(ctx, "a"); !errs.IsNotFound(err) {
			t.Errorf("delete again: %v", err)
		}
		if err := db.Linearizable(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestTxn(t *testing.T) {
	each(t, func(t *testing.T, db *state.DB) {
		ctx := t.Context()
		tab, other := state.NewTable[thing](db, "things", 1), state.NewTable[int](db, "numbers", 1)
		ok := must[state.Item[thing]](t)
		a := ok(tab.Create(ctx, "a", thing{Name: "A"}))
		rev, err := db.Txn(ctx, tab.CreateOp("b", thing{}), other.CreateOp("1", 1), tab.DeleteOp(a))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := other.Get("1"); err != nil || n.Value != 1 || n.Rev != rev || names(tab.List("")) != "b" {
			t.Errorf("%+v %v %s", n, err, names(tab.List("")))
		}
		b := ok(tab.Get("b"))
		for _, tt := range []struct {
			name string
			ops  []state.Op
			want errs.Class
			key  string
		}{
			{"exists", []state.Op{tab.CreateOp("c", thing{}), other.CreateOp("1", 2)}, errs.ExistsClass, "numbers/1"},
			{"conflict", []state.Op{tab.CreateOp("c", thing{}), tab.DeleteOp(a)}, errs.ConflictClass, "things/a"},
			{"check", []state.Op{tab.CreateOp("c", thing{}), tab.CheckOp(a)}, errs.ConflictClass, "things/a"},
			{"absent", []state.Op{tab.CreateOp("c", thing{}), tab.AbsentOp("b")}, errs.ExistsClass, "things/b"},
			{"one key twice", []state.Op{tab.CreateOp("c", thing{}), tab.CreateOp("c", thing{})}, errs.InvalidInput, ""},
			{"too many", make([]state.Op, state.MaxOps+1), errs.TooLargeClass, ""},
			{"guard", []state.Op{tab.CreateOp("c", thing{}), state.Guard(kvstore.Unchanged("lock", 7))}, errs.ConflictClass, "lock"},
		} {
			_, err := db.Txn(ctx, tt.ops...)
			if !errs.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.key) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if names(tab.List("")) != "b" {
				t.Errorf("%s: half of it happened: %s", tt.name, names(tab.List("")))
			}
		}
		if _, err := db.Txn(ctx, tab.CheckOp(b), tab.AbsentOp("c"), other.PutOp("2", 2), state.Guard(kvstore.Missing("lock"))); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrentModify(t *testing.T) {
	each(t, func(t *testing.T, db *state.DB) {
		tab := state.NewTable[thing](db, "things", 1)
		must[state.Item[thing]](t)(tab.Create(t.Context(), "a", thing{}))
		var wg sync.WaitGroup
		const workers, rounds = 8, 10
		for i := range workers {
			wg.Go(func() {
				for range rounds {
					if _, err := tab.Modify(t.Context(), "a", func(v *thing) error { v.N++; return nil }); err != nil {
						t.Error(err)
					}
					if _, err := tab.Put(t.Context(), "all", thing{N: i}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if it, err := tab.Get("a"); err != nil || it.Value.N != workers*rounds {
			t.Errorf("%+v %v", it, err)
		}
	})
}

func TestGetIsPrivate(t *testing.T) {
	db := state.NewMemory()
	tab := state.NewTable[thing](db, "things", 1)
	ok := must[state.Item[thing]](t)
	ok(tab.Create(t.Context(), "a", thing{Map: map[string]string{"k": "v"}}))
	it := ok(tab.Get("a"))
	it.Value.Map["k"] = "changed"
	if again := ok(tab.Get("a")); again.Value.Map["k"] != "v" {
		t.Errorf("a reader sees %q", again.Value.Map["k"])
	}
	tab.List("")[0].Value.Map["k"] = "changed"
	defer func() {
		if r := recover(); !strings.Contains(fmt.Sprint(r), "things/a") {
			t.Errorf("changing a shared value was not found: %v", r)
		}
	}()
	tab.Put(t.Context(), "a", thing{})
}

func TestNewerSchemaIsReadOnly(t *testing.T) {
	each(t, func(t *testing.T, db *state.DB) {
		ctx := t.Context()
		newer := state.NewTable[map[string]any](db, "things", 2)
		if _, err := newer.Create(ctx, "a", map[string]any{"name": "A", "later": true}); err != nil {
			t.Fatal(err)
		}
		if _, err := newer.Create(ctx, "strange", map[string]any{"name": 7}); err != nil {
			t.Fatal(err)
		}
		tab := state.NewTable[thing](db, "things", 1)
		it, err := tab.Get("a")
		if err != nil || it.Value.Name != "A" {
			t.Errorf("%+v %v", it, err)
		}
		if _, err := tab.Get("strange"); !errs.Is(err, errs.UnsupportedClass) || names(tab.List("")) != "a" {
			t.Errorf("%v, list %s", err, names(tab.List("")))
		}
		_, uerr := tab.Update(ctx, it)
		_, perr := tab.Put(ctx, "strange", thing{})
		for what, err := range map[string]error{"update": uerr, "put": perr, "delete": tab.Delete(ctx, "strange")} {
			if !errs.Is(err, errs.UnsupportedClass) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got, err := newer.Get("a"); err != nil || got.Rev != it.Rev {
			t.Errorf("the newer value was touched: %+v %v", got, err)
		}
	})
}

func TestOtherNodesWritesArrive(t *testing.T) {
	for name, b := range map[string]kvstore.Backend{"mem": mem.New(), "etcd": etcdBackend(t)} {
		t.Run(name, func(t *testing.T) {
			here, there := openOn(t, b), openOn(t, b)
			a, z := state.NewTable[thing](here, "things", 1), state.NewTable[thing](there, "things", 1)
			it, err := a.Create(t.Context(), "a", thing{Name: "A"})
			if err != nil {
				t.Fatal(err)
			}
			if err := there.Linearizable(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := z.Get("a"); err != nil || got.Rev != it.Rev {
				t.Errorf("after a linearizable read: %+v %v", got, err)
			}
			// a key outside the prefix moves the revision and no event comes
			if _, _, err := kvstore.New(b, kvstore.Config{}).CreateOnly(t.Context(), "/elsewhere", nil, 0); err != nil {
				t.Fatal(err)
			}
			if err := here.Linearizable(t.Context()); err != nil {
				t.Error(err)
			}
			late := state.NewTable[map[string]any](there, "things", 1)
			if got := late.List(""); len(got) != 1 {
				t.Errorf("a table declared late has %v", got)
			}
		})
	}
}

func TestIndex(t *testing.T) {
	db := openOn(t, mem.New())
	ctx := t.Context()
	tab := state.NewTable[thing](db, "things", 1)
	ok := must[state.Item[thing]](t)
	a := ok(tab.Create(ctx, "a", thing{Tags: []string{"x", "y"}}))
	x := state.NewIndex(tab, func(it *state.Item[thing]) []string { return it.Value.Tags })
	ok(tab.Create(ctx, "b", thing{Tags: []string{"y"}}))
	list := func(k string) (out string) {
		for _, it := range x.List(k) {
			out += it.Key
		}
		return out
	}
	if list("x") != "a" || list("y") != "ab" || list("z") != "" {
		t.Errorf("x %s y %s z %s", list("x"), list("y"), list("z"))
	}
	a.Value.Tags = []string{"z"}
	ok(tab.Update(ctx, a))
	if err := tab.Delete(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(x.Keys()); list("z") != "a" || got != "[z]" {
		t.Errorf("z %s, keys %s", list("z"), got)
	}
}

func TestWatch(t *testing.T) {
	each(t, func(t *testing.T, db *state.DB) {
		ctx := t.Context()
		tab := state.NewTable[thing](db, "things", 1)
		ok := must[state.Item[thing]](t)
		ok(tab.Create(ctx, "p/a", thing{N: 1}))
		ok(tab.Create(ctx, "q", thing{}))
		var log []string
		done := errors.New("done")
		err := tab.Watch(ctx, "p/", func(c state.Change[thing]) error {
			s := c.Key
			for _, it := range []*state.Item[thing]{c.Old, c.New} {
				if s += ":"; it != nil {
					s += fmt.Sprint(it.Value.N)
				}
			}
			log = append(log, s)
			switch len(log) {
			case 1: // writing from here is allowed; of several changes the last counts
				ok(tab.Put(ctx, "p/a", thing{N: 2}))
				ok(tab.Put(ctx, "p/a", thing{N: 3}))
				ok(tab.Put(ctx, "p/short", thing{}))
				return tab.Delete(ctx, "p/short")
			case 2:
				return tab.Delete(ctx, "p/a")
			}
			return done
		})
		if got := strings.Join(log, " "); !errors.Is(err, done) || got != "p/a::1 p/a:1:3 p/a:3:" {
			t.Errorf("%v: %s", err, got)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("default", "web")
	f.Add("a/b", "%2F")
	f.Add("", "\x00\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		key := state.Key(a, b)
		got := state.SplitKey(key)
		if len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("%q %q → %q → %q", a, b, key, got)
		}
		if !strings.HasPrefix(key, state.Prefix(a)) || strings.Count(key, "/") != 1 {
			t.Errorf("%q is not under %q", key, state.Prefix(a))
		}
	})
}

func FuzzSplitKey(f *testing.F) {
	f.Add("a/%zz//")
	f.Fuzz(func(t *testing.T, s string) {
		if n := len(state.SplitKey(s)); n != strings.Count(s, "/")+1 {
			t.Errorf("%q has %d parts", s, n)
		}
	})
}
