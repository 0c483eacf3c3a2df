package doublewrite_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
	"github.com/shoal-project/shoal/kvstore/allocator/doublewrite"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/test/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type side struct {
	*allocator.KV
	faults *kvtest.Faults
	client *kvstore.Client
}

// on runs a test whose stores are of one kind, for each kind.
func on(t *testing.T, test func(*testing.T, func() side)) {
	for name, open := range map[string]func(testing.TB) kvstore.Backend{"mem": backends.Mem, "etcd": backends.Etcd} {
		t.Run(name, func(t *testing.T) { test(t, func() side { return newSide(t, open(t)) }) })
	}
}

func newSide(t *testing.T, store kvstore.Backend) side {
	t.Helper()
	f := kvtest.NewFaults(store)
	c := kvstore.New(f, kvstore.Config{})
	kv, err := allocator.NewKV(allocator.KVConfig{Client: c, Prefix: "/ids/", Node: "n"})
	must(t, err)
	t.Cleanup(func() { kv.Close(); c.Close() })
	return side{kv, f, c}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

func open(t *testing.T, primary, shadow allocator.Backend, strict bool) (*doublewrite.Backend, *allocator.Allocator) {
	t.Helper()
	b, err := doublewrite.New(doublewrite.Config{Primary: primary, Shadow: shadow, Strict: strict})
	must(t, err)
	a, err := allocator.New(allocator.Config{Backend: b})
	must(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return b, a
}

func settled(b *doublewrite.Backend) func() bool {
	return func() bool { n, _ := b.Dirty(); return n == 0 }
}

// From one store to the other and back, with ids in use all the time.
func TestMove(t *testing.T) { on(t, testMove) }

func testMove(t *testing.T, next func() side) {
	old, fresh := next(), next()
	first, err := allocator.New(allocator.Config{Backend: old.KV})
	must(t, err)
	ids := map[string]allocator.ID{}
	for i := range 50 {
		key := fmt.Sprint("k", i)
		al, err := first.Allocate(t.Context(), key)
		must(t, err)
		ids[key] = al.ID
	}
	first.Close()
	for _, step := range []struct {
		name            string
		primary, shadow side
	}{{"old first", old, fresh}, {"new first", fresh, old}, {"back", old, fresh}} {
		b, a := open(t, step.primary, step.shadow, false)
		step.shadow.faults.Fail(func(op string) error {
			if op == "txn" {
				return kvstore.ErrNoQuorum
			}
			return nil
		})
		for key, id := range ids {
			if al, err := a.Allocate(t.Context(), key); err != nil || al.ID != id {
				t.Errorf("%s: %s is %d, not %d: %v", step.name, key, al.ID, id, err)
			}
		}
		key := "new with " + step.name
		al, err := a.Allocate(t.Context(), key)
		must(t, err)
		ids[key] = al.ID
		step.shadow.faults.Fail(nil)
		wait(t, "the shadow has caught up", settled(b))
		rep, err := doublewrite.Compare(t.Context(), step.primary, step.shadow)
		if err != nil || !rep.Clean() || rep.OnlyShadow != 0 || rep.Same != len(ids) {
			t.Errorf("%s: %+v %v", step.name, rep, err)
		}
		b.ReadShadow(true)
		if id, err := a.GetNoCache(t.Context(), key); id != al.ID || err != nil {
			t.Errorf("%s: the shadow says %d %v", step.name, id, err)
		}
		a.Close()
		b.Close()
	}
	// references went along: neither store's collector takes anything
	for _, s := range []side{old, fresh} {
		col, err := allocator.NewCollector(allocator.CollectorConfig{KV: s.KV})
		must(t, err)
		for range 2 {
			if st, err := col.Run(t.Context()); err != nil || st.Alive != len(ids) || st.Deleted != 0 {
				t.Errorf("%+v %v", st, err)
			}
		}
	}
}

func TestReleaseFollows(t *testing.T) { on(t, testReleaseFollows) }

func testReleaseFollows(t *testing.T, next func() side) {
	p, s := next(), next()
	b, a := open(t, p, s, false)
	for range 20 {
		_, err := a.Allocate(t.Context(), "k")
		must(t, err)
		_, err = a.Release(t.Context(), "k")
		must(t, err)
	}
	wait(t, "the shadow has caught up", settled(b))
	for _, side := range []side{p, s} {
		r, err := side.client.Range(t.Context(), kvstore.Range{Key: "/ids/refs/", End: kvstore.PrefixEnd("/ids/refs/")})
		if err != nil || len(r.KVs) != 0 {
			t.Errorf("references are left: %v %v", r.KVs, err)
		}
	}
}

func TestConflictsAreCountedAndCompared(t *testing.T) { on(t, testConflictsAreCountedAndCompared) }

func testConflictsAreCountedAndCompared(t *testing.T, next func() side) {
	p, s := next(), next()
	_, err := s.Claim(t.Context(), []allocator.Claim{{Key: "k", ID: 70000}, {Key: "only", ID: 70001}})
	must(t, err)
	b, a := open(t, p, s, false)
	_, err = a.Allocate(t.Context(), "k")
	must(t, err)
	wait(t, "the conflict is seen", func() bool { n, c := b.Dirty(); return n == 0 && c == 1 })
	rep, err := doublewrite.Compare(t.Context(), p, s)
	if err != nil || rep.Clean() || rep.Different != 1 || rep.OnlyShadow != 1 || fmt.Sprint(rep.Examples) != "[k only]" {
		t.Errorf("%+v %v", rep, err)
	}
}

// Strict: what the shadow does not take is given up in the primary.
func TestStrictRollsBack(t *testing.T) { on(t, testStrictRollsBack) }

func testStrictRollsBack(t *testing.T, next func() side) {
	p, s := next(), next()
	_, a := open(t, p, s, true)
	_, err := a.Allocate(t.Context(), "good")
	must(t, err)
	if _, ok, err := s.Get(t.Context(), "good"); !ok || err != nil {
		t.Errorf("the shadow does not have it: %v", err)
	}
	broken := errors.New("broken")
	s.faults.Fail(func(op string) error {
		if op == "txn" {
			return broken
		}
		return nil
	})
	if _, err := a.Allocate(t.Context(), "k"); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	wait(t, "the reference is given up", func() bool {
		r, err := p.client.Range(t.Context(), kvstore.Range{Key: "/ids/refs/k/", End: kvstore.PrefixEnd("/ids/refs/k/")})
		return err == nil && len(r.KVs) == 0
	})
	s.faults.Fail(nil)
	_, err = a.Allocate(t.Context(), "k")
	must(t, err)
}
