package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// dying is a store whose first leases die before their grant is answered.
type dying struct {
	*mem.Store
	left atomic.Int64
}

func (d *dying) Grant(ctx context.Context, ttl time.Duration) (kvstore.LeaseID, error) {
	id, err := d.Store.Grant(ctx, ttl)
	if err == nil && d.left.Add(-1) >= 0 {
		err = d.Store.Revoke(ctx, id)
	}
	return id, err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// A lease that is dead when it arrives must not stay in the books: a node of another system that kept one failed with
// "lease not found" for 16 hours.
func TestPoolForgetsLeasesThatDieAtOnce(t *testing.T) {
	s := &dying{Store: mem.New()}
	s.left.Store(5)
	c := kvstore.New(s, kvstore.Config{})
	defer c.Close()
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour}) // no renewal will find out
	if _, _, err := p.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if leases, keys := p.Stats(); leases != 1 || keys != 1 {
		t.Errorf("%d leases, %d keys", leases, keys)
	}
	s.left.Store(2)
	l, err := c.Lock(t.Context(), "l", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Done():
		t.Error("lost at once")
	default:
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPoolBoundsAndGivesBack(t *testing.T) {
	_, _, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Minute, MaxKeys: 10})
	var wg sync.WaitGroup
	for i := range 35 {
		wg.Go(func() {
			if _, _, err := p.Put(t.Context(), fmt.Sprintf("k/%02d", i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if leases, keys := p.Stats(); leases != 4 || keys != 35 {
		t.Errorf("%d leases, %d keys", leases, keys)
	}
	kvs, _, err := c.ListPrefix(t.Context(), "k/")
	if err != nil {
		t.Fatal(err)
	}
	per := map[kvstore.LeaseID]int{}
	for _, kv := range kvs {
		per[kv.Lease]++
	}
	for id, n := range per {
		if n > 10 {
			t.Errorf("lease %x has %d keys", id, n)
		}
	}
	for i := range 35 {
		if _, _, err := p.Remove(t.Context(), fmt.Sprintf("k/%02d", i)); err != nil {
			t.Error(err)
		}
	}
	if leases, keys := p.Stats(); leases != 1 || keys != 0 {
		t.Errorf("%d leases, %d keys after all were given back", leases, keys)
	}
	eventually(t, "the leases are revoked", func() bool {
		alive := 0
		for id := range per {
			if _, err := c.KeepAlive(t.Context(), id); err == nil {
				alive++
			}
		}
		return alive == 1
	})
}

// A refused put leaves no account behind.
func TestPoolForgetsRefusedPuts(t *testing.T) {
	_, f, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Minute})
	if _, _, err := p.Put(t.Context(), "a", nil, kvstore.Unchanged("x", 77)); !errors.Is(err, kvstore.ErrLockLost) {
		t.Error(err)
	}
	if _, keys := p.Stats(); keys != 0 {
		t.Errorf("%d keys", keys)
	}
	f.Fail(nil)
}

func TestPoolWritesLostKeysAgain(t *testing.T) {
	s, _, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Minute, MaxKeys: 100, Batch: 7})
	for i := range 50 {
		if _, _, err := p.Put(t.Context(), fmt.Sprintf("k/%02d", i), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Take(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}
	kv, _, err := c.Get(t.Context(), "k/00")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan []string, 2)
	stop := p.Observe("k/0", func(keys []string) { seen <- keys })
	defer stop()
	defer p.Observe("other", func(keys []string) { t.Errorf("an observer of another prefix was told of %v", keys) })()
	if _, _, err := p.Remove(t.Context(), "k/49"); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), kv.Lease); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Update(t.Context(), "k/07", []byte("theirs"), 0); err != nil { // taken by somebody else while it was free
		t.Fatal(err)
	}
	if _, _, err := p.Put(t.Context(), "k/48", []byte("new")); err != nil { // finds out
		t.Fatal(err)
	}
	if keys := <-seen; len(keys) != 10 || !slices.IsSorted(keys) {
		t.Errorf("observer: %v", keys)
	}
	eventually(t, "all keys are back", func() bool {
		kvs, _, err := c.ListPrefix(t.Context(), "k/")
		if err != nil {
			t.Fatal(err)
		}
		return len(kvs) == 49
	})
	kvs, _, err := c.ListPrefix(t.Context(), "k/")
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range kvs {
		want, leased := now.Key[2:], true
		switch now.Key {
		case "k/07":
			want, leased = "theirs", false
		case "k/48":
			want = "new"
		}
		if want == now.Key[2:] {
			want = strings.TrimPrefix(want, "0")
		}
		if string(now.Value) != want || (now.Lease != 0) != leased || now.Lease == kv.Lease {
			t.Errorf("%s is %q under %x, want %q", now.Key, now.Value, now.Lease, want)
		}
	}
	if _, ok, _ := c.Get(t.Context(), "taken"); ok {
		t.Error("a key that the pool never wrote")
	}
}

// The store is away for longer than the leases live.
func TestPoolOutlivesTheStoresAbsence(t *testing.T) {
	_, f, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: 60 * time.Millisecond})
	if _, _, err := p.Put(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	told := make(chan []string, 1)
	defer p.Observe("", func(k []string) { told <- k })()
	f.Fail(down)
	<-told
	f.Fail(nil)
	eventually(t, "the key is back", func() bool {
		kv, ok, err := c.Get(t.Context(), "a")
		return err == nil && ok && string(kv.Value) == "1"
	})
}

// Ten thousand calls wait for a store that does not answer: closing the client ends them all.
func TestCloseReturnsAll(t *testing.T) {
	_, f, _ := client(t)
	c := kvstore.New(f, kvstore.Config{CallTimeout: time.Hour})
	l, err := c.Lock(t.Context(), "held", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_ = l
	const n = 10_000
	f.Latency(time.Hour)
	var wg, begun sync.WaitGroup
	begun.Add(n)
	for i := range n {
		wg.Go(func() {
			begun.Done()
			var err error
			switch i % 4 {
			case 0:
				_, _, err = c.Update(t.Context(), "a", nil, 0)
			case 1:
				_, err = c.Lock(t.Context(), "held", time.Minute)
			case 2:
				_, _, err = c.Get(t.Context(), "a")
			case 3:
				_, err = c.List(t.Context(), "", func([]kvstore.KeyValue) error { return nil })
			}
			if !errors.Is(err, kvstore.ErrClosed) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	begun.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, _, err := c.Get(t.Context(), "a"); !errors.Is(err, kvstore.ErrClosed) {
		t.Error(err)
	}
}
