package kvstore_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

func write(t *testing.T, c *kvstore.Client, keys []string, leases []kvstore.LeaseID) error {
	t.Helper()
	var ops []kvstore.Op
	for i, k := range keys {
		ops = append(ops, kvstore.Op{Type: kvstore.OpPut, Key: k, Lease: leases[i]})
	}
	_, err := c.Txn(t.Context(), kvstore.Txn{Then: ops})
	return err
}

func count(t *testing.T, c *kvstore.Client) int64 {
	t.Helper()
	r, err := c.Range(t.Context(), kvstore.Range{Key: "k/", End: kvstore.PrefixEnd("k/"), CountOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.Count
}

// Many keys are spread over leases of bounded size; a lease that the store does not know takes its own keys with it and no others.
func TestPoolTakesManyAndFindsTheDeadLease(t *testing.T) {
	s, _, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour, MaxKeys: 10})
	var mu sync.Mutex
	var lost []string
	p.Observe("", func(keys []string) { mu.Lock(); defer mu.Unlock(); lost = append(lost, keys...) })
	var keys []string
	for i := range 35 {
		keys = append(keys, fmt.Sprintf("k/%02d", i))
	}
	leases, err := p.TakeAll(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	used := map[kvstore.LeaseID]int{}
	for _, l := range leases {
		used[l]++
	}
	if len(used) != 4 || used[leases[0]] != 10 {
		t.Errorf("35 keys on leases %v", used)
	}
	if again, err := p.TakeAll(t.Context(), keys); err != nil || !slices.Equal(again, leases) {
		t.Errorf("taken again: other leases, %v", err)
	}
	if err := write(t, c, keys, leases); err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), leases[12]); err != nil {
		t.Fatal(err)
	}
	if err := write(t, c, keys, leases); !errors.Is(err, kvstore.ErrLeaseExpired) {
		t.Fatalf("wrote under a revoked lease: %v", err)
	}
	if err := p.Refused(t.Context(), leases); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the observer hears", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Equal(lost, keys[10:20]) })
	fresh, err := p.TakeAll(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if moved := fresh[i] != leases[i]; moved != (10 <= i && i < 20) {
			t.Errorf("%s: lease %x became %x", keys[i], leases[i], fresh[i])
		}
	}
	if err := write(t, c, keys, fresh); err != nil {
		t.Error(err)
	}
}

func TestPoolRefusedNeedsTheStore(t *testing.T) {
	_, f, c := client(t)
	p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour})
	leases, err := p.TakeAll(t.Context(), []string{"k/a"})
	if err != nil {
		t.Fatal(err)
	}
	f.Fail(down)
	if err := p.Refused(t.Context(), leases); !errors.Is(err, kvstore.ErrNoQuorum) {
		t.Errorf("%v", err)
	}
	f.Fail(nil)
	if now, err := p.TakeAll(t.Context(), []string{"k/a"}); err != nil || !slices.Equal(now, leases) {
		t.Errorf("a lease was given up that the store was not asked about: %v", err)
	}
}

// Closing keeps the keys, revoking does not; nobody gets a lease afterwards.
func TestPoolEnds(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		t.Run(fmt.Sprint("revoke=", revoke), func(t *testing.T) {
			_, _, c := client(t)
			p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour, MaxKeys: 1})
			keys := []string{"k/a", "k/b"}
			leases, err := p.TakeAll(t.Context(), keys)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(t, c, keys, leases); err != nil {
				t.Fatal(err)
			}
			want := int64(2)
			if revoke {
				want = 0
				if err := p.Revoke(t.Context()); err != nil {
					t.Error(err)
				}
			} else {
				p.Close()
			}
			if n := count(t, c); n != want {
				t.Errorf("%d keys are left, want %d", n, want)
			}
			if _, err := p.TakeAll(t.Context(), keys); !errors.Is(err, kvstore.ErrClosed) {
				t.Errorf("took from a closed pool: %v", err)
			}
			if _, _, err := p.Put(t.Context(), "k/c", nil); !errors.Is(err, kvstore.ErrClosed) {
				t.Errorf("put by a closed pool: %v", err)
			}
			p.Close()
		})
	}
}

func TestPoolKeepsEmptyLeases(t *testing.T) {
	for _, keep := range []bool{false, true} {
		_, _, c := client(t)
		p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour, MaxKeys: 1, KeepEmpty: keep})
		keys := []string{"k/a", "k/b", "k/c"}
		if _, err := p.TakeAll(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		p.GiveAll(keys)
		want := 1
		if keep {
			want = 3
		}
		if leases, left := p.Stats(); leases != want || left != 0 {
			t.Errorf("keep %v: %d leases, %d keys", keep, leases, left)
		}
	}
}
