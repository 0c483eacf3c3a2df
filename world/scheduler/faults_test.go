package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/scheduler"
)

// TestKilled kills a chosen host, which computes too: it is replaced within its lifetime and two seconds, and nobody else moves.
func TestKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backends.Mem(t)
		var nodes []*node
		for i := range 5 {
			n := newNode(t, b, fmt.Sprint("h", i))
			n.join("web", scheduler.JoinOptions{Spec: &scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 3}, TTL: 4 * time.Second})
			nodes = append(nodes, n)
			if i == 0 {
				n.expect("web", "h0") // it was elected
			}
		}
		nodes[4].expect("web", "h0 h1 h2")
		s, err := nodes[4].Get(t.Context(), "web")
		must(t, err)
		if s.Computer != "h0" {
			t.Fatalf("%s computes", s.Computer)
		}
		killed := time.Now()
		nodes[0].kill()
		nodes[4].expect("web", "h1 h2 h3")
		if d := time.Since(killed); d > 6*time.Second {
			t.Errorf("replaced after %s", d)
		}
		if s, _ = nodes[4].Get(t.Context(), "web"); s.Computer == "h0" || len(s.Candidates) != 4 {
			t.Errorf("computed by %s among %v", s.Computer, s.Candidates)
		}
	})
}

// TestKilledOnEtcd is the same by the clock of a real server, with the shortest lifetime there is.
func TestKilledOnEtcd(t *testing.T) {
	b := backends.Etcd(t)
	n1, n2, n3 := newNode(t, b, "h1"), newNode(t, b, "h2"), newNode(t, b, "h3")
	for _, n := range []*node{n1, n2, n3} {
		n.join("web", scheduler.JoinOptions{Spec: &scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 2}, TTL: time.Second})
	}
	n3.expect("web", "h1 h2")
	n1.kill()
	n3.expect("web", "h2 h3")
}

// gate holds back transactions that write a key with the suffix, once it is shut.
type gate struct {
	kvstore.Backend
	suffix string
	mu     sync.Mutex
	shut   chan struct{}
	held   chan struct{} // closed when one waits
}

func (g *gate) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	for _, o := range t.Then {
		if shut != nil && o.Type != kvstore.OpGet && strings.HasSuffix(o.Key, g.suffix) {
			close(g.held)
			<-shut
			ctx = context.WithoutCancel(ctx) // it is on its way already
			break
		}
	}
	return g.Backend.Txn(ctx, t)
}

// TestFenced holds a computer's write back until another was elected and computed: it changes nothing any more.
func TestFenced(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		g := &gate{Backend: b, suffix: "/scheduled", held: make(chan struct{})}
		old := newNode(t, g, "old")
		old.configure("web", scheduler.Spec{Strategy: scheduler.Alphabetical, Max: 1})
		old.join("web", scheduler.JoinOptions{})
		old.expect("web", "old")
		young := newNode(t, b, "young")
		open := make(chan struct{})
		g.mu.Lock()
		g.shut = open
		g.mu.Unlock()
		a := newNode(t, b, "a")
		a.resign()
		a.join("web", scheduler.JoinOptions{})
		<-g.held // the old computer is about to write what it computed
		locks, err := b.Range(t.Context(), kvstore.Range{Key: "/shoal/world/scheduler/computer/", End: kvstore.PrefixEnd("/shoal/world/scheduler/computer/")})
		must(t, err)
		first := locks.KVs[0]
		for _, kv := range locks.KVs {
			if kv.CreateRevision < first.CreateRevision {
				first = kv
			}
		}
		must(t, b.Revoke(t.Context(), first.Lease)) // it is cut off for too long
		young.expect("web", "a")
		before, err := young.Get(t.Context(), "web")
		must(t, err)
		g.mu.Lock()
		g.shut = nil
		g.mu.Unlock()
		close(open)
		young.configure("web", scheduler.Spec{Strategy: scheduler.Alphabetical, Max: 2})
		young.expect("web", "a old")
		if before.Computer != "young" {
			t.Errorf("computed by %s", before.Computer)
		}
		var fence int64
		replay(t, b, func(c change) {
			for range c.wrote {
				r := c.result["web"]
				if r.Fence < fence {
					t.Errorf("revision %d was written by an earlier computer: %+v", c.rev, r)
				}
				fence = max(fence, r.Fence)
			}
		})
	})
}

// TestFaults has the store fail every other call of everybody and lose answers and streams; in the end everything is as it should be.
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backends.Mem(t)
		var nodes []*node
		for i := range 3 {
			n := newNode(t, b, fmt.Sprint("h", i))
			n.join("web", scheduler.JoinOptions{Spec: &scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 2}, TTL: 5 * time.Second})
			nodes = append(nodes, n)
		}
		nodes[0].expect("web", "h0 h1")
		var mu sync.Mutex
		calls := 0
		for _, n := range nodes {
			n.faults.Fail(func(string) error {
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls%2 == 0 {
					return kvstore.ErrNoQuorum
				}
				return nil
			})
		}
		for range 20 {
			for _, n := range nodes {
				n.faults.Break()
			}
			time.Sleep(time.Second)
		}
		for _, n := range nodes {
			n.faults.Fail(nil)
		}
		time.Sleep(time.Minute)
		for _, n := range nodes {
			s, err := n.Get(t.Context(), "web")
			must(t, err)
			if len(s.Result.Hosts) != 2 || len(s.Candidates) != 3 {
				t.Errorf("chosen %v of %d", s.Result.Hosts, len(s.Candidates))
			}
		}
	})
}

// TestCloseWhileAway closes a place while the store is away: it is taken back when the store answers.
func TestCloseWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backends.Mem(t)
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		p := n1.join("web", scheduler.JoinOptions{TTL: time.Hour})
		n2.expect("web", "h1")
		n1.faults.Fail(func(string) error { return kvstore.ErrNoQuorum })
		if err := p.Close(t.Context()); !errs.Is(err, errs.UnavailableClass) {
			t.Errorf("closed while the store was away: %v", err)
		}
		if _, err := n1.Join(t.Context(), "web", scheduler.JoinOptions{}); !errs.Is(err, errs.ExistsClass) {
			t.Errorf("joined while it leaves: %v", err)
		}
		n1.faults.Fail(nil)
		n2.expect("web", "")
		time.Sleep(time.Minute)
		n1.join("web", scheduler.JoinOptions{})
		n2.expect("web", "h1")
	})
}

// TestReuseLease closes and crashes hosts that keep their lease: back in time they have the same place, too late they have lost it.
func TestReuseLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backends.Mem(t)
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		reuse := scheduler.JoinOptions{ReuseLease: true, TTL: 10 * time.Second}
		p := n1.join("web", reuse)
		first := n1.expect("web", "h1")
		n2.join("web", scheduler.JoinOptions{})
		same := func(what, want string) {
			t.Helper()
			if r := n2.expect("web", want); r.Written != first.Written {
				t.Errorf("%s: the result was written at revision %d, then at %d", what, first.Written, r.Written)
			}
		}
		must(t, p.Close(t.Context()))
		time.Sleep(7 * time.Second)
		p = n1.join("web", reuse)
		time.Sleep(time.Minute)
		same("closed and back", "h1")
		n1.stop() // as a daemon that is upgraded
		time.Sleep(7 * time.Second)
		n1 = newNode(t, b, "h1")
		n1.join("web", reuse)
		time.Sleep(time.Minute)
		same("stopped and back", "h1")
		n1.kill()
		time.Sleep(5 * time.Second)
		n1 = newNode(t, b, "h1")
		p = n1.join("web", reuse)
		time.Sleep(time.Minute)
		same("killed and back", "h1")
		must(t, p.Close(t.Context()))
		time.Sleep(11 * time.Second)
		n2.expect("web", "h2")
		if p.Close(t.Context()) != nil || p.Withdraw(t.Context()) != nil {
			t.Error("closing again is an error")
		}
	})
}

// TestPersist kills a host that persists: it stays until it withdraws or is removed.
func TestPersist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backends.Mem(t)
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		p := n1.join("web", scheduler.JoinOptions{Persist: true})
		n2.join("web", scheduler.JoinOptions{})
		n1.expect("web", "h1")
		must(t, p.Close(t.Context()))
		n1.kill()
		time.Sleep(time.Hour)
		n2.expect("web", "h1")
		must(t, n2.Remove(t.Context(), "web", "h1"))
		n2.expect("web", "h2")
		if err := n2.Remove(t.Context(), "web", "h1"); !errs.Is(err, errs.NotFoundClass) {
			t.Errorf("removed again: %v", err)
		}
		n1 = newNode(t, b, "h1")
		p = n1.join("web", scheduler.JoinOptions{Persist: true})
		must(t, n2.Remove(t.Context(), "web", "h1")) // its host is there and wants to be
		time.Sleep(time.Minute)
		if s, err := n2.Get(t.Context(), "web"); err != nil || len(s.Candidates) != 2 {
			t.Errorf("%v %v", s.Candidates, err)
		}
		must(t, p.Withdraw(t.Context()))
		if s, err := n2.Get(t.Context(), "web"); err != nil || len(s.Candidates) != 1 {
			t.Errorf("%v %v", s.Candidates, err)
		}
	})
}

// TestObserve follows a schedule from before it exists, over broken streams, until it is deleted and the observer closed.
func TestObserve(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		n, h := newNode(t, b, "eye"), newNode(t, b, "h1")
		n.resign()
		o, err := n.Observe("web")
		must(t, err)
		next := func(hosts string, exists bool) {
			t.Helper()
			for {
				r, err := o.Next(guard(t))
				must(t, err)
				if strings.Join(r.Hosts, " ") == hosts && (r.Spec != nil) == exists {
					return
				}
			}
		}
		next("", false)
		h.configure("web", scheduler.DefaultSpec())
		next("", true)
		p := h.join("web", scheduler.JoinOptions{})
		next("h1", true)
		n.faults.Break()
		must(t, p.Withdraw(guard(t)))
		next("", true)
		p = h.join("web", scheduler.JoinOptions{})
		next("h1", true)
		if err := n.Delete(t.Context(), "web", false); !errs.Is(err, errs.BusyClass) || !strings.Contains(err.Error(), "hosts take part: h1") {
			t.Errorf("deleted while in use: %v", err)
		}
		must(t, n.Delete(t.Context(), "web", true))
		next("", false)
		for {
			if _, err := p.Next(guard(t)); err != nil {
				if !errs.Is(err, errs.NotFoundClass) {
					t.Errorf("the place says %v", err)
				}
				break
			}
		}
		if left := keysOf(t, b, "web"); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		if err := n.Delete(t.Context(), "web", true); !errs.Is(err, errs.NotFoundClass) {
			t.Errorf("deleted again: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := o.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with a cancelled context: %v", err)
		}
		o.Close()
		if _, err := o.Next(t.Context()); !errs.Is(err, errs.UnavailableClass) {
			t.Errorf("closed: %v", err)
		}
	})
}
