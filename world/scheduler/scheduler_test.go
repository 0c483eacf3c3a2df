package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/scheduler"
)

// TestLife has five hosts come and go, one by one, over a schedule of three.
func TestLife(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		nodes := map[string]*node{}
		places := map[string]*scheduler.Place{}
		for _, h := range strings.Fields("e d c b a") {
			nodes[h] = newNode(t, b, h)
			places[h] = nodes[h].join("web", scheduler.JoinOptions{Spec: &scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 3}})
		}
		a, e := nodes["a"], nodes["e"]
		a.expect("web", "e d c") // lower names that came later do not preempt
		must(t, places["d"].Withdraw(guard(t)))
		e.expect("web", "e c b") // who waited longest; the others stay
		must(t, places["d"].Withdraw(guard(t)))
		places["d"] = nodes["d"].join("web", scheduler.JoinOptions{})
		must(t, places["e"].Withdraw(guard(t)))
		a.expect("web", "c b a") // d queued anew
		for _, h := range strings.Fields("a b c") {
			must(t, places[h].Withdraw(guard(t)))
		}
		if r := nodes["b"].expect("web", "d"); r.Spec == nil || r.Spec.Max != 3 {
			t.Errorf("spec %+v", r.Spec)
		}
		must(t, places["d"].Withdraw(guard(t)))
		if keys := keysOf(t, b, "web"); !slices.Equal(keys, []string{"spec"}) {
			t.Errorf("after the last one left there is %q", keys)
		}
		a.expect("web", "")
	})
}

// TestChurn has machines join, update, withdraw, close and reconfigure at random, all able to compute, and then reads the history of the
// store: what must hold must have held at each revision.
func TestChurn(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		const machines, rounds = 6, 25
		schedules := []string{"one", "two", "three/with a slash"}
		var nodes []*node
		for i := range machines {
			nodes = append(nodes, newNode(t, b, fmt.Sprintf("h%d", i)))
		}
		for _, s := range schedules {
			nodes[0].configure(s, scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 2})
		}
		seen := newSightings(t, nodes[0], schedules)
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() { n.churn(schedules, i, rounds) })
		}
		wg.Wait()
		for _, s := range schedules { // and at the end it settles
			nodes[0].configure(s, scheduler.Spec{Strategy: scheduler.Alphabetical, Max: 3})
			nodes[0].expect(s, "h0 h1 h2")
		}
		seen.stop()
		replay(t, b, func(c change) { c.check(t) })
	})
}

func (n *node) churn(schedules []string, seed, rounds int) {
	ctx := guard(n.t)
	places := map[string]*scheduler.Place{}
	fail := func(err error) {
		if err != nil {
			n.t.Errorf("machine %d: %v", seed, err)
		}
	}
	for i := range rounds {
		s := schedules[(i*7+seed)%len(schedules)]
		p := places[s]
		switch {
		case p == nil:
			var err error
			places[s], err = n.Join(ctx, s, scheduler.JoinOptions{})
			fail(err)
		case (i+seed)%5 == 0:
			fail(p.Withdraw(ctx))
			places[s] = nil
		case (i+seed)%7 == 0:
			fail(p.Close(ctx))
			places[s] = nil
		case (i+seed)%3 == 0:
			fail(p.Update(ctx, scheduler.Facts{Load: float64(i)}))
		case seed == 1:
			_, err := n.Configure(ctx, s, scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 1 + i%3}, scheduler.AnyRevision)
			fail(err)
		case seed == 2 && i%4 == 0:
			n.faults.Break()
		}
	}
	for _, s := range schedules {
		if places[s] == nil {
			_, err := n.Join(ctx, s, scheduler.JoinOptions{})
			fail(err)
		}
	}
}

// check says what must hold at one revision.
func (c change) check(t *testing.T) {
	for _, name := range c.wrote {
		r, spec := c.result[name], c.specs[name]
		if len(r.Hosts) > spec.Max {
			t.Errorf("revision %d: %s has %v, at most %d are allowed", c.rev, name, r.Hosts, spec.Max)
		}
		if len(slices.Compact(slices.Sorted(slices.Values(r.Hosts)))) != len(r.Hosts) {
			t.Errorf("revision %d: %s has %v", c.rev, name, r.Hosts)
		}
		if r.Inputs >= c.rev {
			t.Errorf("revision %d: the result of %s was computed from revision %d", c.rev, name, r.Inputs)
		}
	}
	if len(c.wrote) > 1 {
		t.Errorf("revision %d has results of %v", c.rev, c.wrote)
	}
}

// sightings collects what several observers see and compares it.
type sightings struct {
	t      *testing.T
	mu     sync.Mutex
	at     map[string]string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newSightings(t *testing.T, n *node, schedules []string) *sightings {
	s := &sightings{t: t, at: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	for range 3 {
		for _, name := range schedules {
			o, err := n.Observe(name)
			must(t, err)
			s.wg.Go(func() {
				defer o.Close()
				for {
					r, err := o.Next(ctx)
					if err != nil {
						return
					}
					s.note(r)
				}
			})
		}
	}
	return s
}

func (s *sightings) note(r scheduler.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Spec == nil || len(r.Hosts) > r.Spec.Max {
		s.t.Errorf("observed %+v", r)
	}
	key, what := fmt.Sprint(r.Schedule, " at ", r.Revision), fmt.Sprint(r.Hosts)
	if old, ok := s.at[key]; ok && old != what {
		s.t.Errorf("%s: one saw %s, another %s", key, old, what)
	}
	s.at[key] = what
}

func (s *sightings) stop() {
	s.cancel()
	s.wg.Wait()
	if len(s.at) < 3 {
		s.t.Errorf("the observers saw %d results", len(s.at))
	}
}

// TestDrain withdraws the chosen host: the other is there before it goes, at every revision.
func TestDrain(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		p1 := n1.join("db", scheduler.JoinOptions{})
		n1.expect("db", "h1")
		n2.join("db", scheduler.JoinOptions{})
		must(t, p1.Withdraw(guard(t)))
		n2.expect("db", "h2")
		begun := false
		replay(t, b, func(c change) {
			hosts := c.result["db"].Hosts
			if begun = begun || len(hosts) > 0; !begun {
				return
			}
			if len(hosts) != 1 {
				t.Errorf("revision %d has %v", c.rev, hosts)
			} else if _, ok := c.hosts["db"][hosts[0]]; !ok {
				t.Errorf("revision %d names %v, which does not take part", c.rev, hosts)
			}
		})
		if err := p1.Update(t.Context(), scheduler.Facts{}); !errs.Is(err, errs.UnavailableClass) {
			t.Errorf("update after withdrawing: %v", err)
		}
	})
}

// TestNobodyComputes withdraws when no machine computes any more: no result is left that names the host.
func TestNobodyComputes(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		all := scheduler.Spec{Strategy: scheduler.RoundRobin}
		p1 := n1.join("db", scheduler.JoinOptions{Spec: &all, Drain: -1})
		p2 := n2.join("db", scheduler.JoinOptions{Drain: time.Millisecond})
		n1.expect("db", "h1 h2")
		n1.resign()
		n2.resign()
		must(t, p1.Withdraw(guard(t)))
		n2.expect("db", "h2")
		must(t, p2.Withdraw(guard(t)))
		if keys := keysOf(t, b, "db"); !slices.Equal(keys, []string{"spec"}) {
			t.Errorf("there is %q", keys)
		}
	})
}

// TestLostLease has the store forget a host's lease: it is replaced, comes back by itself, and queues anew.
func TestLostLease(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
		n1.join("db", scheduler.JoinOptions{TTL: 2 * time.Second})
		before := n1.expect("db", "h1")
		held, ok := before.Held("h1")
		if !ok {
			t.Fatal("h1 is not chosen")
		}
		n2.join("db", scheduler.JoinOptions{})
		kv, _, err := n1.kv.Get(t.Context(), tree+"db/exchange/h1")
		must(t, err)
		must(t, b.Revoke(t.Context(), kv.Lease))
		n2.expect("db", "h2")
		if _, _, err := n1.kv.Update(t.Context(), "/proof", nil, 0, held...); !errs.Is(err, errs.ConflictClass) {
			t.Errorf("a host that was lost recorded what it did: %v", err)
		}
		for ctx := guard(t); ; time.Sleep(5 * time.Millisecond) {
			if s, err := n1.Get(ctx, "db"); err != nil || len(s.Candidates) == 2 {
				must(t, err)
				break
			}
		}
		n1.expect("db", "h2")
		held, _ = n1.expect("db", "h2").Held("h2")
		if _, _, err := n2.kv.Update(t.Context(), "/proof", nil, 0, held...); err != nil {
			t.Errorf("the host that is chosen could not record: %v", err)
		}
	})
}
