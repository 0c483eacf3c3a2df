package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

func lock(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	const workers, rounds = 4, 5
	var mu sync.Mutex
	holders, last := 0, int64(0)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				l, err := e.c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
				if err != nil {
					e.Error(err)
					return
				}
				mu.Lock()
				if holders++; holders > 1 {
					e.Error("two hold the lock")
				}
				if l.Fence() <= last {
					e.Errorf("fence %d after %d", l.Fence(), last)
				}
				last = l.Fence()
				mu.Unlock()
				r, err := e.c.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{l.Held()}, Then: []kvstore.Op{kvstore.Put("effect", nil)}})
				if err != nil || !r.Succeeded {
					e.Errorf("a holder's write was refused: %v", err)
				}
				mu.Lock()
				holders--
				mu.Unlock()
				if err := l.Unlock(ctx); err != nil {
					e.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := e.c.Range(ctx, kvstore.Range{Key: "locks/", End: kvstore.PrefixEnd("locks/"), CountOnly: true})
	if err != nil || r.Count != 0 {
		e.Errorf("%d keys left, %v", r.Count, err)
	}
}

func lockGivesUp(e *env) {
	l, err := e.c.Lock(e.Context(), "locks/x", max(e.minTTL, 10*time.Second))
	e.must(err)
	ctx, cancel := context.WithCancel(e.Context())
	done := make(chan error)
	second := e.other()
	go func() { _, err := second.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second)); done <- err }()
	count := func() int64 {
		r, err := e.c.Range(e.Context(), kvstore.Range{Key: "locks/", End: kvstore.PrefixEnd("locks/"), CountOnly: true})
		e.must(err)
		return r.Count
	}
	e.wait("the second waits", func() bool { return count() == 2 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		e.Error(err)
	}
	if n := count(); n != 1 {
		e.Errorf("%d in the queue", n)
	}
	e.must(l.Unlock(e.Context()))
}

func lockFenced(e *env) {
	ctx := e.Context()
	l, err := e.c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
	e.must(err)
	held := l.Held()
	_, _, err = e.c.RemovePrefix(ctx, "locks/") // as if the lease had run out
	e.must(err)
	l2, err := e.other().Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
	e.must(err)
	r, err := e.c.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{held}, Then: []kvstore.Op{kvstore.Put("effect", nil)}})
	if err != nil || r.Succeeded {
		e.Errorf("a lost lock still writes: %v %v", r.Succeeded, err)
	}
	if l2.Fence() <= l.Fence() {
		e.Errorf("fence %d after %d", l2.Fence(), l.Fence())
	}
	e.must(l.Unlock(ctx))
	e.must(l2.Unlock(ctx))
}

// lockQueues has three clients with several waiters each pass one lock around.
func lockQueues(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	holders, got := 0, 0
	var wg sync.WaitGroup
	for range 3 {
		c := e.other()
		for range 3 {
			wg.Go(func() {
				for range 4 {
					l, err := c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
					if err != nil {
						e.Error(err)
						return
					}
					mu.Lock()
					holders, got = holders+1, got+1
					if holders > 1 {
						e.Error("two hold the lock")
					}
					mu.Unlock()
					r, err := c.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{l.Held()}, Then: []kvstore.Op{kvstore.Put("effect", nil)}})
					if err != nil || !r.Succeeded {
						e.Errorf("a holder's write was refused: %v", err)
					}
					mu.Lock()
					holders--
					mu.Unlock()
					if err := l.Unlock(ctx); err != nil {
						e.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got != 36 {
		e.Errorf("held %d times", got)
	}
}

func lockNested(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	inner, err := e.other().Lock(ctx, "locks/x/y", 10*time.Second)
	e.must(err)
	outer, err := e.c.Lock(ctx, "locks/x", 10*time.Second)
	e.must(err)
	e.must(outer.Unlock(ctx))
	e.must(inner.Unlock(ctx))
}

// lockLost revokes the lease under a lock: its holder is told, and others of its process and of other processes get the lock.
func lockLost(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 30*time.Second)
	defer cancel()
	l, err := e.c.Lock(ctx, "locks/x", 2*e.minTTL)
	e.must(err)
	kv, ok, err := e.c.Get(ctx, l.Held().Key)
	if !ok || err != nil || kv.Lease == 0 {
		e.Fatalf("%+v %v", kv, err)
	}
	e.must(e.b.Revoke(ctx, kv.Lease))
	next, err := e.other().Lock(ctx, "locks/x", 10*time.Second)
	e.must(err)
	select {
	case <-l.Done():
	case <-ctx.Done():
		e.Fatal("the holder was not told")
	}
	e.must(next.Unlock(ctx))
	same, err := e.c.Lock(ctx, "locks/x", 2*e.minTTL) // although the first holder never unlocked
	e.must(err)
	e.must(same.Unlock(ctx))
	e.must(l.Unlock(ctx))
}

func lockStale(e *env) {
	ctx := e.Context()
	forgotten, err := e.other().Lock(ctx, "locks/x", 10*time.Second)
	e.must(err)
	col := e.c.NewLockCollector("locks/", 20*time.Millisecond)
	if gone, err := col.Collect(ctx); len(gone) != 0 || err != nil {
		e.Errorf("collected at first sight: %v %v", gone, err)
	}
	fresh, err := e.other().Lock(ctx, "locks/y", 10*time.Second)
	e.must(err)
	wait := make(chan error, 1)
	go func() { // a waiter is never stale, the one before it is
		l, err := e.c.Lock(ctx, "locks/x", 10*time.Second)
		if err == nil {
			err = l.Unlock(ctx)
		}
		wait <- err
	}()
	e.wait("the forgotten lock is collected", func() bool {
		gone, err := col.Collect(ctx)
		e.must(err)
		for _, k := range gone {
			if k == forgotten.Held().Key {
				return true
			}
		}
		return false
	})
	e.must(<-wait)
	if ok, _, err := e.c.Update(ctx, "effect", nil, 0, forgotten.Held()); ok || !errors.Is(err, kvstore.ErrLockLost) {
		e.Errorf("a collected lock still writes: %v %v", ok, err)
	}
	_ = fresh.Unlock(ctx)
}

// lockCrowd has more clients in one queue than one watch serves: they get the lock in the order in which they came.
func lockCrowd(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	const n = 14
	ttl := max(e.minTTL, 10*time.Second)
	first, err := e.c.Lock(ctx, "locks/x", ttl)
	e.must(err)
	got := make(chan int, n)
	var wg sync.WaitGroup
	for i := range n {
		c := e.other()
		wg.Go(func() {
			l, err := c.Lock(ctx, "locks/x", ttl)
			if err != nil {
				e.Error(err)
				return
			}
			got <- i
			if err := l.Unlock(ctx); err != nil {
				e.Error(err)
			}
		})
		e.wait("one more waits", func() bool {
			r, err := e.c.Range(ctx, kvstore.Range{Key: "locks/", End: kvstore.PrefixEnd("locks/"), CountOnly: true})
			e.must(err)
			return r.Count == int64(i+2)
		})
	}
	e.must(first.Unlock(ctx))
	wg.Wait()
	close(got)
	i := 0
	for j := range got {
		if i != j {
			e.Errorf("number %d got it as number %d", j, i)
		}
		i++
	}
}

// lockBroken passes a lock around while streams break.
func lockBroken(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	f := NewFaults(unclosed{e.b})
	var holders atomic.Int32
	stop := make(chan struct{})
	var wg, breaker sync.WaitGroup
	breaker.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
				f.Break()
			}
		}
	})
	for range 3 {
		c := kvstore.New(f, kvstore.Config{})
		e.Cleanup(func() { c.Close() })
		wg.Go(func() {
			for range 20 {
				l, err := c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
				if errors.Is(err, kvstore.ErrNoQuorum) {
					continue
				}
				if err != nil {
					e.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					e.Error("two hold the lock")
				}
				holders.Add(-1)
				if err := l.Unlock(ctx); err != nil {
					e.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	breaker.Wait()
	r, err := e.c.Range(ctx, kvstore.Range{Key: "locks/", End: kvstore.PrefixEnd("locks/"), CountOnly: true})
	if err != nil || r.Count != 0 {
		e.Errorf("%d keys left, %v", r.Count, err)
	}
}

// lockTaken has somebody delete the key of one that waits: it does not get the lock when its turn would come.
func lockTaken(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	ttl := max(e.minTTL, 10*time.Second)
	first, err := e.c.Lock(ctx, "locks/x", ttl)
	e.must(err)
	second := e.other()
	for range 2 { // before its watch stands and while it stands
		done := make(chan error, 1)
		go func() { _, err := second.Lock(ctx, "locks/x", ttl); done <- err }()
		var queue []kvstore.KeyValue
		e.wait("the second waits", func() bool {
			queue, _, err = e.c.ListPrefix(ctx, "locks/x/")
			e.must(err)
			return len(queue) == 2
		})
		for _, kv := range queue {
			if kv.Key != first.Held().Key {
				_, _, err := e.c.Remove(ctx, kv.Key)
				e.must(err)
			}
		}
		if err := <-done; !errors.Is(err, kvstore.ErrLockLost) {
			e.Error(err)
		}
	}
	e.must(first.Unlock(ctx))
}

// LockRate measures how often n clients hand one lock around; for benchmarks.
func LockRate(b *testing.B, n int, client func() *kvstore.Client) {
	var wg sync.WaitGroup
	turns := make(chan struct{}, b.N)
	for range b.N {
		turns <- struct{}{}
	}
	close(turns)
	var mu sync.Mutex
	var waits []time.Duration
	clients := make([]*kvstore.Client, n)
	for i := range clients {
		clients[i] = client()
		l, err := clients[i].Lock(b.Context(), fmt.Sprint("warm/", i), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for _, c := range clients {
		wg.Go(func() {
			for range turns {
				start := time.Now()
				l, err := c.Lock(b.Context(), "bench/lock", 10*time.Second)
				if err != nil {
					b.Error(err)
					return
				}
				took := time.Since(start)
				if err := l.Unlock(b.Context()); err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				waits = append(waits, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "locks/s")
	b.ReportMetric(float64(Percentile(waits, 50).Microseconds()), "p50-µs")
	b.ReportMetric(float64(Percentile(waits, 99).Microseconds()), "p99-µs")
}
