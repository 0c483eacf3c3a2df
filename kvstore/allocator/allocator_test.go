package allocator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
	"github.com/shoal-project/shoal/test/backends"
)

func TestAllocateAndRelease(t *testing.T) { backends.Run(t, testAllocateAndRelease) }

func testAllocateAndRelease(t *testing.T, store kvstore.Backend) {
	a, b := newNode(t, store, "a"), newNode(t, store, "b")
	one := a.allocate(t, "web")
	if !one.New || !one.First || one.ID == 0 {
		t.Errorf("first allocation: %+v", one)
	}
	if two := a.allocate(t, "web"); two.ID != one.ID || two.New || two.First {
		t.Errorf("second user on the same node: %+v, first %+v", two, one)
	}
	if other := b.allocate(t, "web"); other.ID != one.ID || other.New || !other.First {
		t.Errorf("other node: %+v, first %+v", other, one)
	}
	if al := b.allocate(t, "db"); al.ID == one.ID {
		t.Errorf("two keys with id %d", al.ID)
	}
	wait(t, "a hears of db", func() bool { id, err := a.Get(t.Context(), "db"); return err == nil && id != 0 })
	if key, err := a.GetByID(t.Context(), one.ID); key != "web" || err != nil {
		t.Errorf("by id: %q %v", key, err)
	}
	if id, err := b.GetNoCache(t.Context(), "nothing"); id != 0 || err != nil {
		t.Errorf("unknown key: %d %v", id, err)
	}
	if last, err := a.Release(t.Context(), "web"); last || err != nil {
		t.Errorf("first release: %v %v", last, err)
	}
	if last, err := a.Release(t.Context(), "web"); !last || err != nil {
		t.Errorf("last release: %v %v", last, err)
	}
	if _, err := a.Release(t.Context(), "web"); !errs.IsNotFound(err) {
		t.Errorf("release without use: %v", err)
	}
	d := dump(t, store)
	if _, ok := d["refs/web/a"]; ok {
		t.Error("the reference of a is still there")
	}
	if ref := d["refs/web/b"]; ref.Lease == 0 || string(ref.Value) != fmt.Sprint(one.ID) {
		t.Errorf("reference of b: %+v", ref)
	}
	if again := a.allocate(t, "web"); again.ID != one.ID || again.New || !again.First {
		t.Errorf("allocated again: %+v, first %+v", again, one)
	}
}

func TestTransactionsPerCall(t *testing.T) {
	store := newStore(t)
	a, b := newNode(t, store, "a"), newNode(t, store, "b")
	many := keys("many", 1000)
	for _, tt := range []struct {
		name string
		node *node
		do   func() error
		want int64
	}{
		{"new key", a, func() error { _, err := a.Allocate(t.Context(), "k"); return err }, 1},
		{"used here", a, func() error { _, err := a.Allocate(t.Context(), "k"); return err }, 0},
		{"used elsewhere", b, func() error {
			wait(t, "b hears of k", func() bool { return b.Stats().Known == 1 })
			_, err := b.Allocate(t.Context(), "k")
			return err
		}, 1},
		{"not the last release", a, func() error { _, err := a.Release(t.Context(), "k"); return err }, 0},
		{"last release", a, func() error { _, err := a.Release(t.Context(), "k"); return err }, 1},
		{"1000 new keys", a, func() error { _, err := a.AllocateMany(t.Context(), many); return err }, 8},
		{"1000 keys of another node", b, func() error {
			wait(t, "b hears of all", func() bool { return b.Stats().Known == 1001 })
			_, err := b.AllocateMany(t.Context(), many)
			return err
		}, 8},
		{"1000 releases", b, func() error { return b.ReleaseMany(t.Context(), many) }, 8},
	} {
		before := tt.node.count.txns.Load()
		must(t, tt.do())
		if n := tt.node.count.txns.Load() - before; n > tt.want || n == 0 && tt.want > 0 {
			t.Errorf("%s: %d transactions, want %d", tt.name, n, tt.want)
		}
	}
}

// Any bytes make a key, and none of them reaches into another's range.
func TestKeysOfAnyBytes(t *testing.T) {
	store := newStore(t)
	a, b := newNode(t, store, "a"), newNode(t, store, "b/..")
	odd := []string{"foo", "foo/", "foo/a", "foo/bar", "/", "..", "a/../b", "foo;bar", "%2F", "%h", "\x00\xff", "é", " ", strings.Repeat("x", allocator.MaxKey), strings.Repeat("x", allocator.MaxKey-1) + "y"}
	seen := map[allocator.ID]string{}
	for _, key := range odd {
		al := a.allocate(t, key)
		if other, ok := seen[al.ID]; ok {
			t.Errorf("%q and %q have one id", other, key)
		}
		seen[al.ID] = key
		if got := b.allocate(t, key); got.ID != al.ID {
			t.Errorf("%q: %d and %d", key, al.ID, got.ID)
		}
		if got, ok, err := b.kv.GetByID(t.Context(), al.ID); err != nil || !ok || got.Key != key {
			t.Errorf("%q: by id %v %v %v", key, got, ok, err)
		}
	}
	must(t, a.ReleaseMany(t.Context(), odd))
	must(t, b.ReleaseMany(t.Context(), odd[1:]))
	col, err := allocator.NewCollector(allocator.CollectorConfig{KV: a.kv})
	must(t, err)
	_, err = col.Run(t.Context())
	must(t, err)
	s, err := col.Run(t.Context())
	if err != nil || s.Deleted != len(odd)-1 || s.Alive != 1 {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{"", strings.Repeat("x", allocator.MaxKey+1)} {
		if _, err := a.Allocate(t.Context(), bad); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("key of %d bytes: %v", len(bad), err)
		}
	}
}

func TestRangeAndMask(t *testing.T) { backends.Run(t, testRangeAndMask) }

func testRangeAndMask(t *testing.T, store kvstore.Backend) {
	const mask = 7 << 16
	a := newNode(t, store, "a", func(c *allocator.Config, _ *allocator.KVConfig) { c.Min, c.Max, c.PrefixMask = 100, 109, mask })
	all, err := a.AllocateMany(t.Context(), keys("k", 10))
	must(t, err)
	for _, al := range all {
		if al.ID < mask+100 || al.ID > mask+109 {
			t.Errorf("id %#x", uint64(al.ID))
		}
	}
	if _, err := a.Allocate(t.Context(), "one more"); !errors.Is(err, allocator.ErrNoID) {
		t.Errorf("exhausted: %v", err)
	}
	if out, err := a.AllocateMany(t.Context(), []string{"k0", "x", "k1"}); !errors.Is(err, allocator.ErrNoID) || out != nil {
		t.Errorf("exhausted: %v %v", out, err)
	}
	if last, err := a.Release(t.Context(), "k0"); !last || err != nil {
		t.Errorf("the failed call is still a user: %v %v", last, err)
	}
	for _, tt := range []struct {
		name           string
		min, max, mask allocator.ID
	}{{"empty", 10, 9, 0}, {"mask in the range", 1, 0xffff, 0x18000}} {
		if _, err := allocator.New(allocator.Config{Backend: a.kv, Min: tt.min, Max: tt.max, PrefixMask: tt.mask}); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// Many callers of one key on one node are one reference, whatever order they come and go in.
func TestOneFlightPerKey(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	a.faults.Latency(time.Millisecond)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				al, err := a.Allocate(t.Context(), "k")
				if err != nil || al.ID == 0 {
					t.Errorf("%+v %v", al, err)
					return
				}
				if _, err := a.Release(t.Context(), "k"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if d := dump(t, store); len(d) != 2 {
		t.Errorf("left over: %v", d)
	}
	if s := a.Stats(); s.Held != 0 {
		t.Errorf("%+v", s)
	}
}

// A caller that gives up leaves nothing behind, also when its transaction happens later.
func TestGivingUp(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	must(t, a.Ready(t.Context()))
	hold, entered := make(chan struct{}), make(chan struct{}, 16)
	a.faults.Fail(func(op string) error {
		if op == "txn" {
			entered <- struct{}{}
			<-hold
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { _, err := a.Allocate(ctx, "k"); got <- err }()
	<-entered
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(hold)
	wait(t, "the reference is deleted", func() bool {
		d := dump(t, store)
		_, ref := d["refs/k/a"]
		_, rec := d["keys/k"]
		return rec && !ref
	})
}

// The store does what it was asked to and the answer is lost: nobody gets a second id, and no reference is left.
func TestLostAnswers(t *testing.T) { backends.Run(t, testLostAnswers) }

func testLostAnswers(t *testing.T, store kvstore.Backend) {
	a := newNode(t, store, "a")
	var mu sync.Mutex
	n := 0
	a.faults.Fail(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; (op == "txn after" || op == "txn") && n%3 == 0 {
			return fmt.Errorf("%w: lost", kvstore.ErrNoQuorum)
		}
		return nil
	})
	some := keys("k", 20)
	ids := map[allocator.ID]bool{}
	for _, key := range some {
		ids[a.allocate(t, key).ID] = true
	}
	for _, key := range some[:10] {
		a.release(t, key)
	}
	a.faults.Fail(nil)
	var recs, refs, nums int
	for path := range dump(t, store) {
		switch {
		case strings.HasPrefix(path, "keys/"):
			recs++
		case strings.HasPrefix(path, "refs/"):
			refs++
		case strings.HasPrefix(path, "ids/"):
			nums++
		}
	}
	if recs != 20 || nums != 20 || refs != 10 || len(ids) != 20 {
		t.Errorf("%d records, %d ids, %d references, %d different ids", recs, nums, refs, len(ids))
	}
}

// Attempts are bounded, and what may have been written by them is taken back when the store answers again.
func TestUnavailable(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a", func(c *allocator.Config, _ *allocator.KVConfig) { c.MaxAttempts = 3 })
	must(t, a.Ready(t.Context()))
	a.faults.Fail(func(op string) error {
		if op == "txn after" {
			return kvstore.ErrNoQuorum
		}
		return nil
	})
	if _, err := a.Allocate(t.Context(), "k"); !errors.Is(err, kvstore.ErrNoQuorum) {
		t.Errorf("%v", err)
	}
	a.faults.Fail(nil)
	wait(t, "the reference is deleted", func() bool { _, ok := dump(t, store)["refs/k/a"]; return !ok })
	if al := a.allocate(t, "k"); al.New {
		t.Errorf("%+v", al)
	}
}

func TestClose(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	a.allocate(t, "kept")
	a.faults.Fail(func(op string) error {
		if op == "txn" {
			return kvstore.ErrNoQuorum
		}
		return nil
	})
	got := make(chan error, 1000)
	for i := range 1000 {
		go func() { _, err := a.Allocate(t.Context(), fmt.Sprint(i)); got <- err }()
	}
	a.stop()
	for range 1000 {
		if err := <-got; err == nil {
			t.Error("allocated without a store")
		}
	}
	if _, err := a.Allocate(t.Context(), "late"); !errors.Is(err, allocator.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, ok := dump(t, store)["refs/kept/a"]; !ok {
		t.Error("closing gave up what is in use")
	}
}
