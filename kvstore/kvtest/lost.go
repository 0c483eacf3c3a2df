package kvtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// watcherThrough has the store forget its past again and again while keys change: the watcher misses nothing that lasts.
func watcherThrough(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	f := NewFaults(unclosed{e.b})
	c := kvstore.New(f, kvstore.Config{Page: 3, CheckInterval: 50 * time.Millisecond})
	defer c.Close()
	want := map[string]string{}
	writes := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		defer close(writes)
		<-begun
		for i := range 60 {
			key, value := fmt.Sprintf("p/%d", i%10), fmt.Sprint(i)
			var err error
			if i%7 == 3 {
				delete(want, key)
				_, _, err = e.c.Remove(ctx, key)
			} else {
				want[key] = value
				_, _, err = e.c.Update(ctx, key, []byte(value), 0)
			}
			if err == nil && i%5 == 4 {
				err = f.CompactAll(ctx)
			}
			if err != nil {
				writes <- err
				return
			}
		}
		want["p/end"] = "1"
		_, _, err := e.c.Update(ctx, "p/end", []byte("1"), 0)
		writes <- err
	}()
	m := &mirror{keys: map[string]string{}}
	w := c.NewWatcher("p/")
	err := w.Run(ctx, func(b kvstore.Batch) error {
		if err := m.apply(b); err != nil {
			return err
		}
		if b.ListDone && m.lists == 1 {
			close(begun)
		}
		if b.Revision > 0 && m.keys["p/end"] != "" { // a list is through, what it lacks has gone
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		cancel()
	}
	for werr := range writes {
		e.must(werr)
	}
	if !errors.Is(err, errEnough) || !maps.Equal(m.keys, want) || w.Lists() < 2 || m.resets != 0 {
		e.Errorf("%v; %d lists, %d resets, saw %v, want %v", err, w.Lists(), m.resets, m.keys, want)
	}
}

// poolLost takes a pool's leases away: its keys come back under another, and whoever wants to know is told which.
func poolLost(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	f := NewFaults(unclosed{e.b})
	c := kvstore.New(f, kvstore.Config{})
	defer c.Close()
	p := c.NewPool(kvstore.PoolConfig{TTL: max(e.minTTL, 3*time.Second), MaxKeys: 2})
	told := make(chan string, 100)
	p.Observe("p/", func(keys []string) {
		for _, k := range keys {
			told <- k
		}
	})
	was := map[string]kvstore.LeaseID{}
	for i := range 3 {
		key := fmt.Sprintf("p/%d", i)
		_, _, err := p.Put(ctx, key, []byte("here"))
		e.must(err)
		kv, _, err := e.c.Get(ctx, key)
		e.must(err)
		was[key] = kv.Lease
	}
	n, err := f.LoseLeases(ctx)
	if err != nil || n != 2 {
		e.Fatalf("%d leases were lost, %v; want 2", n, err)
	}
	for key, lease := range was {
		e.wait(key+" comes back", func() bool {
			kv, ok, err := e.c.Get(ctx, key)
			e.must(err)
			return ok && string(kv.Value) == "here" && kv.Lease != lease && kv.Lease != 0
		})
	}
	seen := map[string]bool{}
	for len(seen) < len(was) { // one that was moved to a lease that was lost too is told of twice
		select {
		case k := <-told:
			seen[k] = true
		case <-ctx.Done():
			e.Fatalf("told of %v only", seen)
		}
	}
}

// locksLost takes the leases of a holder and of one who waits: the holder is told and his writes are refused; who waits gets the lock or an error,
// and never a lock that he does not have.
func locksLost(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), time.Minute)
	defer cancel()
	f := NewFaults(unclosed{e.b})
	c := kvstore.New(f, kvstore.Config{CheckInterval: 50 * time.Millisecond})
	defer c.Close()
	ttl := max(e.minTTL, 3*time.Second)
	held := func(l *kvstore.Lock) bool {
		r, err := e.c.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{l.Held()}})
		e.must(err)
		return r.Succeeded
	}
	l, err := c.Lock(ctx, "locks/x", ttl)
	e.must(err)
	if n, err := f.LoseLeases(ctx); n != 1 || err != nil {
		e.Fatalf("%d leases were lost, %v; want 1", n, err)
	}
	if held(l) {
		e.Error("the lock holds without its lease")
	}
	if _, _, err := c.Update(ctx, "effect", nil, 0, l.Held()); !errors.Is(err, kvstore.ErrLockLost) {
		e.Errorf("a write under the lost lock: %v", err)
	}
	select {
	case <-l.Done():
	case <-ctx.Done():
		e.Fatal("the holder was not told")
	}
	_ = l.Unlock(ctx) // there is nothing to unlock; that is no concern of anybody

	other, err := e.c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
	e.must(err)
	type got struct {
		l   *kvstore.Lock
		err error
	}
	waiter := make(chan got, 1)
	go func() {
		l, err := c.Lock(ctx, "locks/x", ttl)
		waiter <- got{l, err}
	}()
	e.wait("somebody waits", func() bool {
		r, err := e.c.Range(ctx, kvstore.Range{Key: "locks/", End: kvstore.PrefixEnd("locks/"), CountOnly: true})
		e.must(err)
		return r.Count == 2
	})
	_, err = f.LoseLeases(ctx)
	e.must(err)
	select {
	case g := <-waiter:
		if g.err == nil {
			e.Fatal("a waiter who lost his place has the lock that another holds")
		}
		waiter <- g // for below
	default:
	}
	if !held(other) {
		e.Error("the other's lock went too")
	}
	e.must(other.Unlock(ctx))
	select {
	case g := <-waiter:
		if g.err == nil && !held(g.l) {
			e.Error("the waiter was told that he has a lock that he has not")
		}
		if g.err != nil && !errs.Is(g.err, errs.ConflictClass) {
			e.Errorf("the waiter's error: %v", g.err)
		}
		if g.err == nil {
			e.must(g.l.Unlock(ctx))
		}
	case <-ctx.Done():
		e.Error("the waiter waits for ever")
	}
}
