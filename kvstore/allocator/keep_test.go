package allocator_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/test/backends"
)

func remove(t *testing.T, store kvstore.Backend, paths ...string) {
	t.Helper()
	var ops []kvstore.Op
	for _, p := range paths {
		ops = append(ops, kvstore.Delete(prefix+p))
	}
	_, err := store.Txn(t.Context(), kvstore.Txn{Then: ops})
	must(t, err)
}

// What is in use comes back, whatever of it got lost.
func TestLostRecordsComeBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose []string // id is replaced by the number
		sync bool     // else the loss is noticed by itself
	}{
		{"reference", []string{"refs/k/a"}, true},
		{"id", []string{"ids/id"}, true},
		{"record", []string{"keys/k"}, false},
		{"record and id", []string{"keys/k", "ids/id"}, false},
		{"all", []string{"keys/k", "ids/id", "refs/k/a"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newStore(t)
			a, b := newNode(t, store, "a"), newNode(t, store, "b")
			al := a.allocate(t, "k")
			wait(t, "both know", func() bool { return a.Stats().Known == 1 && b.Stats().Known == 1 })
			lose := append([]string(nil), tt.lose...)
			for i, p := range lose {
				if p == "ids/id" {
					lose[i] = fmt.Sprintf("ids/%d", al.ID)
				}
			}
			remove(t, store, lose...)
			if tt.sync {
				must(t, a.Sync(t.Context()))
			}
			wait(t, "everything is back", func() bool { return len(dump(t, store)) == 3 })
			if got := b.allocate(t, "k"); got.ID != al.ID {
				t.Errorf("id %d became %d", al.ID, got.ID)
			}
			if got := a.allocate(t, "k"); got.ID != al.ID || got.First {
				t.Errorf("%+v, was %+v", got, al)
			}
		})
	}
}

// A release that crosses a sync leaves no reference.
func TestSyncDoesNotRevive(t *testing.T) { backends.Run(t, testSyncDoesNotRevive) }

func testSyncDoesNotRevive(t *testing.T, store kvstore.Backend) {
	a := newNode(t, store, "a")
	for i := range 200 {
		key := fmt.Sprint(i % 7)
		a.allocate(t, key)
		remove(t, store, "refs/"+key+"/a")
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.Sync(t.Context()) })
		wg.Go(func() { _, _ = a.Release(t.Context(), key) })
		wg.Wait()
	}
	wait(t, "no reference is left", func() bool {
		for path := range dump(t, store) {
			if path[:5] == "refs/" {
				return false
			}
		}
		return true
	})
}

func TestLeaseLoss(t *testing.T) { backends.Run(t, testLeaseLoss) }

func testLeaseLoss(t *testing.T, store kvstore.Backend) {
	a := newNode(t, store, "a")
	some := keys("k", 500)
	before, err := a.AllocateMany(t.Context(), some)
	must(t, err)
	lease := dump(t, store)["refs/k0/a"].Lease
	must(t, store.Revoke(t.Context(), lease))
	a.allocate(t, "new") // the first to notice
	wait(t, "all references are back", func() bool {
		d, n := dump(t, store), 0
		for _, k := range some {
			if kv, ok := d["refs/"+k+"/a"]; ok && kv.Lease != lease {
				n++
			}
		}
		return n == len(some)
	})
	after, err := a.AllocateMany(t.Context(), some)
	must(t, err)
	for i := range some {
		if before[i].ID != after[i].ID {
			t.Errorf("%s: %d became %d", some[i], before[i].ID, after[i].ID)
		}
	}
}

// The lease is lost after a reference was written and before its writer has heard: it comes back like the others.
func TestLeaseLossDuringClaim(t *testing.T) { backends.Run(t, testLeaseLossDuringClaim) }

func testLeaseLossDuringClaim(t *testing.T, store kvstore.Backend) {
	a := newNode(t, store, "a")
	a.allocate(t, "before")
	lease := dump(t, store)["refs/before/a"].Lease
	hold, written := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	a.faults.Fail(func(op string) error {
		if op == "txn after" && first.CompareAndSwap(false, true) {
			close(written)
			<-hold
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { _, err := a.Allocate(t.Context(), "during"); done <- err }()
	<-written
	must(t, store.Revoke(t.Context(), lease))
	a.allocate(t, "after") // the other writer notices
	wait(t, "what was held is back", func() bool { _, ok := dump(t, store)["refs/before/a"]; return ok })
	close(hold)
	must(t, <-done)
	wait(t, "and what was on its way", func() bool { _, ok := dump(t, store)["refs/during/a"]; return ok })
}

// A lease that cannot be renewed is noticed without any call.
func TestLeaseExpiry(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a", func(_ *allocator.Config, k *allocator.KVConfig) { k.TTL = 50 * time.Millisecond })
	a.allocate(t, "k")
	a.faults.Fail(func(op string) error {
		if op == "keepalive" {
			return kvstore.ErrNoQuorum
		}
		return nil
	})
	old := dump(t, store)["refs/k/a"].Lease
	wait(t, "another lease carries the reference", func() bool {
		kv, ok := dump(t, store)["refs/k/a"]
		return ok && kv.Lease != old
	})
}

// The store was replaced by one that knows nothing: what is in use is put back, and what others took is reported, not stolen.
func TestRestoredStore(t *testing.T) {
	store, empty := newStore(t), mem.New()
	defer empty.Close()
	a := newNode(t, store, "a")
	kept, lost := a.allocate(t, "kept"), a.allocate(t, "lost")
	_, err := empty.Txn(t.Context(), kvstore.Txn{Then: []kvstore.Op{
		kvstore.Put(fmt.Sprintf("%sids/%d", prefix, lost.ID), []byte("thief")),
		kvstore.Put(prefix+"keys/thief", fmt.Appendf(nil, "%d thief", lost.ID)),
	}})
	must(t, err)
	store.Replace(empty)
	wait(t, "what can be is restored", func() bool {
		d := dump(t, store)
		return string(d["keys/kept"].Value) == fmt.Sprintf("%d kept", kept.ID) && d["refs/kept/a"].Lease != 0
	})
	wait(t, "the conflict is counted", func() bool { return a.Stats().Conflicts > 0 })
	if v := string(dump(t, store)[fmt.Sprintf("ids/%d", lost.ID)].Value); v != "thief" {
		t.Errorf("the id was taken from its owner: %s", v)
	}
}

func TestCollector(t *testing.T) {
	store := newStore(t)
	a, b := newNode(t, store, "a"), newNode(t, store, "b")
	ids := map[string]allocator.ID{}
	for _, k := range []string{"used", "unused", "saved", "touched", "foreign"} {
		ids[k] = a.allocate(t, k).ID
	}
	must(t, a.ReleaseMany(t.Context(), []string{"unused", "saved", "touched", "foreign"}))
	_, err := store.Txn(t.Context(), kvstore.Txn{Then: []kvstore.Op{kvstore.Put(prefix+"ids/70000", []byte("orphan")), kvstore.Put(prefix+"keys/bad", []byte("x"))}})
	must(t, err)
	col, err := allocator.NewCollector(allocator.CollectorConfig{KV: b.kv, Rate: 1e6})
	must(t, err)
	if s, err := col.Run(t.Context()); err != nil || s != (allocator.CollectStats{Alive: 1, Waiting: 5}) {
		t.Errorf("first round: %+v %v", s, err)
	}
	b.allocate(t, "saved")
	remove(t, store, "keys/touched", fmt.Sprintf("ids/%d", ids["touched"]))
	b.allocate(t, "touched")
	b.release(t, "touched")
	if s, err := col.Run(t.Context()); err != nil || s != (allocator.CollectStats{Alive: 2, Waiting: 1, Deleted: 3}) {
		t.Errorf("second round: %+v %v", s, err)
	}
	d := dump(t, store)
	for path, want := range map[string]bool{"keys/used": true, "keys/saved": true, "keys/touched": true, "keys/unused": false, "keys/foreign": false, "ids/70000": false} {
		if _, ok := d[path]; ok != want {
			t.Errorf("%s: %v", path, ok)
		}
	}
	narrow, err := allocator.NewCollector(allocator.CollectorConfig{KV: b.kv, Min: 1 << 20, Max: 1 << 21})
	must(t, err)
	if s, err := narrow.Run(t.Context()); err != nil || s != (allocator.CollectStats{Foreign: 3}) {
		t.Errorf("out of range: %+v %v", s, err)
	}
}

// An id comes into use between the list and the deletion.
func TestCollectorIsTooLate(t *testing.T) { backends.Run(t, testCollectorIsTooLate) }

func testCollectorIsTooLate(t *testing.T, store kvstore.Backend) {
	a, b := newNode(t, store, "a"), newNode(t, store, "b")
	some := keys("k", 50)
	_, err := a.AllocateMany(t.Context(), some)
	must(t, err)
	must(t, a.ReleaseMany(t.Context(), some))
	col, err := allocator.NewCollector(allocator.CollectorConfig{KV: a.kv})
	must(t, err)
	_, err = col.Run(t.Context())
	must(t, err)
	once := sync.OnceFunc(func() { b.allocate(t, "k7") })
	a.faults.Fail(func(op string) error {
		if op == "txn" {
			once()
		}
		return nil
	})
	if s, err := col.Run(t.Context()); err != nil || s.Deleted != 49 || s.Saved != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if d := dump(t, store); len(d) != 3 {
		t.Errorf("%d keys are left", len(d))
	}
}

func TestRemoteCaches(t *testing.T) {
	store, other := newStore(t), newStore(t)
	a, r := newNode(t, store, "a"), newNode(t, other, "r")
	main := a.allocate(t, "main")
	far := r.allocate(t, "far")
	gone := r.allocate(t, "gone")

	var mu sync.Mutex
	seen := map[string]allocator.ID{} // source/key → id
	synced := 0
	stop := make(chan struct{})
	done := make(chan error, 1)
	ctx := t.Context()
	go func() {
		done <- a.Watch(ctx, func(ev []allocator.Event) error {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range ev {
				switch e.Type {
				case allocator.Upserted:
					seen[e.Source+"/"+e.Key] = e.ID
				case allocator.Deleted:
					delete(seen, e.Source+"/"+e.Key)
				case allocator.Synced:
					synced++
				}
			}
			select {
			case <-stop:
				return errors.New("enough")
			default:
				return nil
			}
		})
	}()
	has := func(key string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); _, ok := seen[key]; return ok }
	}
	watch := func() (end func()) {
		ctx, cancel := contextWithCancel(t)
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- a.WatchRemote(ctx, "r", r.kv, func() { close(ready) }) }()
		<-ready
		return func() { cancel(); <-ended }
	}
	end := watch()
	wait(t, "both stores are seen", func() bool { return has("/main")() && has("r/far")() && has("r/gone")() })
	if id, err := a.Lookup(ctx, "far"); id != far.ID || err != nil {
		t.Errorf("%d %v", id, err)
	}
	if id, err := a.Get(ctx, "far"); id != 0 || err != nil {
		t.Errorf("the main store has it: %d %v", id, err)
	}
	if err := a.WatchRemote(ctx, "r", r.kv, nil); !errs.Is(err, errs.BusyClass) {
		t.Errorf("watched twice: %v", err)
	}
	end()
	if key, err := a.LookupByID(ctx, gone.ID); err != nil || key != "gone" && gone.ID != main.ID {
		t.Errorf("what was known vanished with the connection: %q %v", key, err)
	}
	remove(t, other, "keys/gone")
	r.Close() // else it would put the record back
	remove(t, other, "keys/gone")
	end = watch()
	wait(t, "the difference is told", func() bool { return !has("r/gone")() && has("r/far")() })
	end()
	must(t, a.RemoveRemote("r"))
	wait(t, "the remote store is forgotten", func() bool { return !has("r/far")() && has("/main")() })
	if err := a.RemoveRemote("r"); !errs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	close(stop)
	a.allocate(t, "one more")
	if err := <-done; err == nil || err.Error() != "enough" {
		t.Errorf("%v", err)
	}
	if mu.Lock(); synced != 1 {
		t.Errorf("synced %d times", synced)
	}
	mu.Unlock()
}

func TestValidators(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	a.allocate(t, "good")
	a.allocate(t, "evil")
	b := newNode(t, store, "b", func(c *allocator.Config, _ *allocator.KVConfig) {
		c.Validators = []allocator.Validator{func(source string, id allocator.ID, key string) error {
			if key == "evil" {
				return errors.New("no")
			}
			return nil
		}}
	})
	must(t, b.Ready(t.Context()))
	if n := b.Stats().Known; n != 1 {
		t.Errorf("%d records are known", n)
	}
}
