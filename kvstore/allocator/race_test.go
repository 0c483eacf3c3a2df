package allocator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// owners is what must hold at any time: as long as anybody uses a key, it has one id and the id is of no other key.
type owners struct {
	mu    sync.Mutex
	users map[string]int
	byKey map[string]allocator.ID
	byID  map[allocator.ID]string
}

func (o *owners) got(t *testing.T, key string, id allocator.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old, ok := o.byKey[key]; ok && old != id {
		t.Errorf("%s is in use with id %d and was given %d", key, old, id)
	}
	if old, ok := o.byID[id]; ok && old != key {
		t.Errorf("id %d is in use for %s and was given to %s", id, old, key)
	}
	o.users[key]++
	o.byKey[key], o.byID[id] = id, key
}

// gone is called before a use is given up.
func (o *owners) gone(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users[key]--; o.users[key] == 0 {
		delete(o.byID, o.byKey[key])
		delete(o.byKey, key)
	}
}

// Several nodes allocate and release a few keys out of few ids as fast as they can, while collectors without any quarantine
// take away what is unused, answers get lost, leases end, watches break and history is compacted.
func TestCollectionRacesAllocation(t *testing.T) {
	t.Run("mem", func(t *testing.T) { race(t, newStore(t), 600) })
	t.Run("etcd", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts a server: not in a short run")
		}
		race(t, newEtcd(t), 150)
	})
}

func race(t *testing.T, store kvstore.Backend, rounds int) {
	ids := func(c *allocator.Config, _ *allocator.KVConfig) { c.Min, c.Max, c.MaxAttempts = 1, 40, 1000 }
	own := &owners{users: map[string]int{}, byKey: map[string]allocator.ID{}, byID: map[allocator.ID]string{}}
	ctx, stop := contextWithCancel(t)
	var work, back sync.WaitGroup
	var nodes []*node
	for i := range 3 {
		n := newNode(t, store, fmt.Sprintf("n%d", i), ids)
		nodes = append(nodes, n)
		var mu sync.Mutex
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		n.faults.Fail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if (op == "txn" || op == "txn after") && rnd.IntN(40) == 0 {
				return fmt.Errorf("%w: lost", kvstore.ErrNoQuorum)
			}
			return nil
		})
		for w := range 3 {
			work.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(w), uint64(i)))
				for range rounds {
					key := fmt.Sprint("k", rnd.IntN(12))
					al, err := n.Allocate(ctx, key)
					for end := time.Now().Add(20 * time.Second); errors.Is(err, allocator.ErrNoID) && time.Now().Before(end); {
						time.Sleep(5 * time.Millisecond) // the watch was broken and has not heard of the deletions yet
						al, err = n.Allocate(ctx, key)
					}
					if err != nil {
						t.Errorf("%s: %v", key, err)
						return
					}
					own.got(t, key, al.ID)
					if rnd.IntN(3) == 0 {
						time.Sleep(time.Duration(rnd.IntN(300)) * time.Microsecond)
					}
					own.gone(key)
					if _, err := n.Release(ctx, key); err != nil {
						t.Errorf("%s: %v", key, err)
						return
					}
				}
			})
		}
	}
	calm := newNode(t, store, "collector", ids)
	var deleted int
	back.Go(func() {
		for ctx.Err() == nil {
			col, err := allocator.NewCollector(allocator.CollectorConfig{KV: calm.kv})
			must(t, err)
			for range 2 {
				s, err := col.Run(ctx)
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				deleted += s.Deleted
			}
		}
	})
	back.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			n := nodes[i%len(nodes)]
			n.faults.Break()
			if h, err := calm.client.Head(ctx); err == nil {
				_ = calm.client.Compact(ctx, h.Revision-1)
			}
			_ = n.Sync(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	work.Wait()
	stop()
	back.Wait()
	if deleted == 0 {
		t.Error("nothing was ever collected: the race was not run")
	}
	check(t, store, nodes)
	t.Logf("%d collected", deleted)
}

// check looks at what is left when nobody uses anything: records and ids in pairs, no reference.
func check(t *testing.T, store kvstore.Backend, nodes []*node) {
	for _, n := range nodes {
		n.faults.Fail(nil)
	}
	wait(t, "no reference is left", func() bool {
		for path := range dump(t, store) {
			if strings.HasPrefix(path, "refs/") {
				return false
			}
		}
		return true
	})
	d := dump(t, store)
	for path, kv := range d {
		if key, ok := strings.CutPrefix(path, "keys/"); ok {
			id, _, _ := strings.Cut(string(kv.Value), " ")
			if other := d["ids/"+id]; string(other.Value) != key || other.ModRevision != kv.ModRevision {
				t.Errorf("%s is %s at %d and ids/%s is %s at %d", path, kv.Value, kv.ModRevision, id, other.Value, other.ModRevision)
			}
		}
		if id, ok := strings.CutPrefix(path, "ids/"); ok {
			if rec := d["keys/"+string(kv.Value)]; string(rec.Value) != id+" "+string(kv.Value) {
				t.Errorf("id %s is of %s, whose record is %s", id, kv.Value, rec.Value)
			}
		}
	}
}
