package etcd_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
)

// TestLinearizableUnderKills has clients read, write, compare-and-swap and count under a lock on three members that are processes of their own, of
// which one after another, the leader most often, is killed and comes back, or is paused and goes on as if no time had passed; in between two are
// paused at once, so that nothing answers. What the clients saw fits one order.
func TestLinearizableUnderKills(t *testing.T) {
	testring.Need(t, 2)
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 3})
	open := func() *etcd.Backend {
		b, err := etcd.Dial(etcd.Config{Endpoints: cluster.Endpoints()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	probe := kvstore.New(open(), kvstore.Config{CallTimeout: 20 * time.Second})
	defer func() { _ = probe.Close() }()
	if _, err := probe.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch := open()
	defer func() { _ = watch.Close() }()

	h := &history{start: time.Now()}
	ctx, stop := context.WithTimeout(t.Context(), 12*time.Second)
	defer stop()
	var wg sync.WaitGroup
	var ids sync.Mutex
	id := 0
	fresh := func() int { ids.Lock(); defer ids.Unlock(); id++; return id }
	for n := range 6 {
		c := kvstore.New(open(), kvstore.Config{Name: fmt.Sprint("client ", n), CallTimeout: 700 * time.Millisecond})
		defer func() { _ = c.Close() }()
		wg.Go(func() {
			if n < 4 {
				registers(ctx, c, h, fresh)
			} else {
				lockers(ctx, c, h, fresh)
			}
		})
	}
	done := torment(ctx, t, cluster, watch)
	wg.Wait()
	for _, what := range []string{"kill", "pause", "pause two"} {
		if done[what] == 0 {
			t.Errorf("nothing to %s came to pass", what)
		}
	}
	t.Logf("%v", done)
	h.check(t)
	if _, err := probe.Head(t.Context()); err != nil { // and all is well again
		t.Error(err)
	}
}

// torment works on the members until ctx ends, and leaves all of them running. It counts what it did.
func torment(ctx context.Context, t *testing.T, cluster *etcdtest.Cluster, watch *etcd.Backend) map[string]int {
	done := map[string]int{}
	leader := func() (int, bool) {
		lctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		for _, e := range watch.Endpoints(lctx) {
			for i, addr := range cluster.Endpoints() {
				if e.Leader && e.Address == addr {
					return i, true
				}
			}
		}
		return 0, false
	}
	back := func(i int) {
		if err := cluster.StartMember(i); err != nil {
			t.Error(err)
		}
	}
	for round := 0; ctx.Err() == nil; round++ {
		victim, ok := leader()
		if !ok || round%4 == 2 {
			victim = (victim + 1) % 3
		}
		switch other := (victim + 1) % 3; round % 4 {
		case 0, 2:
			cluster.Kill(victim)
			pause(ctx, 500*time.Millisecond)
			back(victim)
			done["kill"]++
		case 1:
			cluster.Pause(victim)
			pause(ctx, 900*time.Millisecond)
			cluster.Resume(victim)
			done["pause"]++
		case 3:
			cluster.Pause(victim)
			cluster.Pause(other)
			pause(ctx, 400*time.Millisecond)
			cluster.Resume(other)
			pause(ctx, 200*time.Millisecond)
			cluster.Resume(victim)
			done["pause two"]++
		}
		pause(ctx, 400*time.Millisecond)
	}
	return done
}
