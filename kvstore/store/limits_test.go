package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/store"
)

// few is a store that takes as many operations as an etcd whose owner has not changed --max-txn-ops.
type few struct {
	kvstore.Backend
	refused *atomic.Int64
}

func (f few) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	if len(t.Then) > 128 {
		f.refused.Add(1)
		return kvstore.TxnResult{}, fmt.Errorf("%w: more than 128 operations", kvstore.ErrTooLarge)
	}
	return f.Backend.Txn(ctx, t)
}

// A store that takes fewer keys at once than it is told to write is asked in vain once for each halving, not again and again.
func TestSyncStoreWithSmallTransactions(t *testing.T) {
	b, refused := newMem(t), new(atomic.Int64)
	s := newSync(t, connect(few{b, refused}), func(c *store.SyncConfig) { c.MaxBatch, c.Workers = 1000, 1 })
	run(t, s.Run)
	for round := range 5 {
		for i := range 1000 {
			must(t, s.Upsert(fmt.Sprint("k", i), fmt.Append(nil, round)))
		}
		wait(t, "all are written", func() bool { return s.Pending() == 0 })
	}
	if n := refused.Load(); n == 0 || n > 3 { // 1000, 500, 250
		t.Errorf("%d transactions were refused", n)
	}
	if d := dump(t, b); len(d) != 1000 || d[prefix+"k999"] != "4" {
		t.Errorf("%d keys are there", len(d))
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

// What is wanted can be said, and what is known be read, while a write waits for a store that does not answer.
func TestNoLockOverCalls(t *testing.T) {
	b := newMem(t)
	l := connect(b)
	var o log
	s := newShared(t, l, "s", &o, nil)
	run(t, s.Run)
	must(t, s.Ready(t.Context()))
	must(t, s.Update(t.Context(), "a", []byte("1")))
	wait(t, "it is seen", func() bool { return s.All()["a"] == "1" })
	hold, reached := make(chan struct{}), make(chan struct{}, 100)
	end := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(end)
	l.faults.Fail(func(op string) error {
		if op == "txn" {
			reached <- struct{}{}
			<-hold
		}
		return nil
	})
	var wg sync.WaitGroup
	for _, name := range []string{"b", "c"} { // both workers
		wg.Go(func() { _ = s.Update(t.Context(), name, []byte("1")) })
		<-reached
	}
	guard(t, "reading", func() { s.All() })
	guard(t, "wanting", func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Update(ctx, "d", []byte("1")); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := s.Delete(ctx, "d"); !errors.Is(err, context.Canceled) && err != nil {
			t.Errorf("%v", err)
		}
	})
	_, _, err := connect(b).Update(t.Context(), prefix+"other", []byte("1"), 0)
	must(t, err)
	wait(t, "what others do is seen", func() bool { return s.All()["other"] == "1" })
	end()
	guard(t, "the end", wg.Wait)
}

// Ten thousand callers wait for a store that does not answer: the end of Run ends them all.
func TestCloseReturnsAll(t *testing.T) {
	l := connect(newMem(t))
	sync1 := newSync(t, l, nil)
	shared := newShared(t, l, "s", nil, nil)
	l.faults.Latency(time.Hour)
	stop1, stop2 := run(t, sync1.Run), run(t, shared.Run)
	const n = 10_000
	var wg, begun sync.WaitGroup
	begun.Add(n)
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprint("k", i)
			if err := sync1.Upsert(name, nil); err != nil {
				t.Error(err)
			}
			begun.Done()
			var err error
			switch i % 3 {
			case 0:
				err = sync1.Flush(t.Context(), name)
			case 1:
				err = shared.Update(t.Context(), name, nil)
			case 2:
				err = shared.Ready(t.Context())
			}
			if !errors.Is(err, kvstore.ErrClosed) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	begun.Wait()
	guard(t, "closing", func() { stop1(); stop2(); wg.Wait() })
}
