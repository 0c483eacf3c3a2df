package allocator_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
)

// few is a store that takes as many operations as an etcd whose owner has not changed --max-txn-ops.
type few struct {
	kvstore.Backend
	refused atomic.Int64
}

func (f *few) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	const ops = 128
	if max(len(t.If), len(t.Then), len(t.Else)) > ops {
		f.refused.Add(1)
		return kvstore.TxnResult{}, fmt.Errorf("%w: more than %d operations", kvstore.ErrTooLarge, ops)
	}
	return f.Backend.Txn(ctx, t)
}

// Everything works on a store with small transactions, and how small they are is learned once.
func TestStoreWithSmallTransactions(t *testing.T) {
	store := &few{Backend: newStore(t)}
	a, b := newNode(t, store, "a"), newNode(t, store, "b")
	some := keys("k", 1000)
	_, err := a.AllocateMany(t.Context(), some)
	must(t, err)
	if n := store.refused.Load(); n == 0 || n > 6 { // two writers, who may both ask twice
		t.Errorf("%d transactions were refused by the way", n)
	}
	before := store.refused.Load()
	must(t, a.Sync(t.Context()))
	_, err = a.AllocateMany(t.Context(), keys("more", 1000))
	must(t, err)
	if n := store.refused.Load() - before; n != 0 {
		t.Errorf("%d transactions were refused after it was learned", n)
	}
	wait(t, "b hears of all", func() bool { return b.Stats().Known == 2000 })
	_, err = b.AllocateMany(t.Context(), some)
	must(t, err)
	must(t, a.ReleaseMany(t.Context(), some))
	must(t, b.ReleaseMany(t.Context(), some))
	calm := newNode(t, store, "c")
	col, err := allocator.NewCollector(allocator.CollectorConfig{KV: calm.kv})
	must(t, err)
	_, err = col.Run(t.Context())
	must(t, err)
	if s, err := col.Run(t.Context()); err != nil || s.Deleted != 1000 || s.Alive != 1000 {
		t.Errorf("%+v %v", s, err)
	}
}

// guard fails the test when f does not come back: something waits for a store that does not answer.
func guard(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s waits for the store", what)
	}
}

// hang has every call to the store wait until end is called; reached waits until so many do.
func hang(t *testing.T, n *node) (reached func(int), end func()) {
	var waiting atomic.Int64
	held := make(chan struct{})
	n.faults.Fail(func(op string) error {
		if op == "txn" {
			waiting.Add(1)
			<-held
		}
		return nil
	})
	end = sync.OnceFunc(func() { close(held) })
	t.Cleanup(end)
	return func(k int) {
		t.Helper()
		wait(t, "calls reach the store", func() bool { return waiting.Load() >= int64(k) })
	}, end
}

// What memory can answer is answered while writes wait for a store that does not: no lock is held over a call.
func TestNoLockOverCalls(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	al := a.allocate(t, "held")
	wait(t, "it is known", func() bool { return a.Stats().Known == 1 })
	reached, end := hang(t, a)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { _, _ = a.Allocate(t.Context(), fmt.Sprint(i)) })
		reached(i + 1)
	}
	wg.Go(func() { _ = a.Sync(t.Context()) })
	reached(3)
	guard(t, "using a key that is in use", func() {
		if got := a.allocate(t, "held"); got.ID != al.ID || got.First {
			t.Errorf("%+v", got)
		}
	})
	guard(t, "a release that is not the last", func() { a.release(t, "held") })
	guard(t, "a lookup", func() {
		if id, err := a.Get(t.Context(), "held"); id != al.ID || err != nil {
			t.Errorf("%d %v", id, err)
		}
		if key, err := a.LookupByID(t.Context(), al.ID); key != "held" || err != nil {
			t.Errorf("%q %v", key, err)
		}
		a.ForEach(func(allocator.Event) bool { return true })
	})
	guard(t, "counting", func() { a.Stats() })
	end()
	guard(t, "the end", wg.Wait)
}

// Ten thousand calls wait for a store that does not answer: closing the allocator ends them all.
func TestCloseReturnsAll(t *testing.T) {
	store := newStore(t)
	a := newNode(t, store, "a")
	const held = 10_000 / 4
	_, err := a.AllocateMany(t.Context(), keys("held", held))
	must(t, err)
	a.faults.Latency(time.Hour)
	var wg, begun sync.WaitGroup
	begun.Add(4 * held)
	for i := range 4 * held {
		wg.Go(func() {
			begun.Done()
			var err error
			switch i % 4 {
			case 0:
				_, err = a.Allocate(t.Context(), fmt.Sprint("new", i))
			case 1:
				_, err = a.Release(t.Context(), fmt.Sprint("held", i/4))
			case 2:
				_, err = a.GetNoCache(t.Context(), "held0")
			case 3:
				_, err = a.AllocateMany(t.Context(), []string{"x", fmt.Sprint("y", i)})
			}
			if !errors.Is(err, allocator.ErrClosed) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Go(func() {
		if err := a.Watch(t.Context(), func([]allocator.Event) error { return nil }); !errors.Is(err, allocator.ErrClosed) {
			t.Errorf("watch: %v", err)
		}
	})
	begun.Wait()
	guard(t, "closing", func() { a.stop(); wg.Wait() })
}
