package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tree = "/shoal/world/scheduler/schedules/"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is one machine: a client of the store that can fail, and a scheduler that stands by to compute.
type node struct {
	*scheduler.Scheduler
	t      testing.TB
	kv     *kvstore.Client
	faults *kvtest.Faults
	resign func() // stops computing and waits
	dead   bool
}

func newNode(t testing.TB, b kvstore.Backend, host string) *node {
	t.Helper()
	n := &node{t: t, faults: kvtest.NewFaults(b)}
	n.kv = backends.Client(t, n.faults)
	var err error
	n.Scheduler, err = scheduler.New(scheduler.Deps{KV: n.kv, Host: host, LockTTL: 2 * time.Second})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Run(ctx); err != nil && !errors.Is(err, kvstore.ErrClosed) {
			t.Errorf("%s: %v", host, err)
		}
	}()
	n.resign = func() { cancel(); <-done }
	t.Cleanup(n.stop)
	return n
}

// stop ends a node as a daemon that is stopped does.
func (n *node) stop() {
	if n.dead {
		return
	}
	n.dead = true
	n.resign()
	if err := n.Close(context.Background()); err != nil {
		n.t.Error(err)
	}
	must(n.t, n.kv.Close())
}

// kill ends a node as kill -9 does: nothing is said to the store any more.
func (n *node) kill() {
	n.dead = true
	n.faults.Fail(func(string) error { return kvstore.ErrClosed })
	must(n.t, n.kv.Close())
	n.resign()
}

func (n *node) join(name string, o scheduler.JoinOptions) *scheduler.Place {
	n.t.Helper()
	p, err := n.Join(n.t.Context(), name, o)
	must(n.t, err)
	return p
}

func (n *node) configure(name string, s scheduler.Spec) {
	n.t.Helper()
	_, err := n.Configure(n.t.Context(), name, s, scheduler.AnyRevision)
	must(n.t, err)
}

// guard bounds what waits for something that should come; only a test that fails gets to it.
func guard(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// expect waits until the schedule's hosts are these, in this order, and returns the result.
func (n *node) expect(name, want string) scheduler.Result {
	n.t.Helper()
	o, err := n.Observe(name)
	must(n.t, err)
	defer o.Close()
	last := "nothing"
	for ctx := guard(n.t); ; {
		r, err := o.Next(ctx)
		if err != nil {
			n.t.Fatalf("schedule %s is %s, want %s: %v", name, last, want, err)
		}
		if last = strings.Join(r.Hosts, " "); last == want {
			return r
		}
	}
}

// change is one revision of the tree, as the store has it in its history.
type change struct {
	rev    int64
	specs  map[string]scheduler.Spec
	hosts  map[string]map[string]bool // by schedule and host: whether it is not draining
	result map[string]record
	wrote  []string // schedules whose result this revision wrote
}

type record struct {
	Hosts    []string
	Inputs   int64
	Computer string
	Fence    int64
}

func unpack[T any](t testing.TB, kv kvstore.KeyValue) T {
	var r struct {
		V      int
		Record T
	}
	if err := json.Unmarshal(kv.Value, &r); err != nil || r.V != 1 {
		t.Fatalf("%s: %s: %v", kv.Key, kv.Value, err)
	}
	return r.Record
}

// replay calls each with every revision of the tree up to now.
func replay(t *testing.T, b kvstore.Backend, each func(change)) {
	t.Helper()
	kv := backends.Client(t, b)
	head, err := kv.Head(t.Context())
	must(t, err)
	must(t, second(kv.Update(t.Context(), tree+"end", nil, 0))) // so that the stream has an end
	ctx, cancel := context.WithCancel(guard(t))
	defer cancel()
	s := kv.Watch(ctx, tree, 1)
	c := change{specs: map[string]scheduler.Spec{}, hosts: map[string]map[string]bool{}, result: map[string]record{}}
	emit := func() {
		if c.rev > 0 {
			each(c)
		}
		c.wrote = nil
	}
	for {
		r, err := s.Next()
		must(t, err)
		for _, e := range r.Events {
			if e.KV.ModRevision != c.rev {
				emit()
				if c.rev = e.KV.ModRevision; c.rev > head.Revision {
					return
				}
			}
			c.take(t, e)
		}
	}
}

func second(_ bool, _ int64, err error) error { return err }

func (c *change) take(t *testing.T, e kvstore.Event) {
	parts := strings.Split(strings.TrimPrefix(e.KV.Key, tree), "/")
	name, gone := parts[0], e.Type == kvstore.Deleted
	switch {
	case parts[1] == "spec" && gone:
		delete(c.specs, name)
	case parts[1] == "spec":
		c.specs[name] = unpack[scheduler.Spec](t, e.KV)
	case parts[1] == "scheduled":
		delete(c.result, name)
		c.wrote = append(c.wrote, name)
		if !gone {
			c.result[name] = unpack[record](t, e.KV)
		}
	case gone:
		delete(c.hosts[name], parts[2])
	default:
		if c.hosts[name] == nil {
			c.hosts[name] = map[string]bool{}
		}
		c.hosts[name][parts[2]] = !unpack[scheduler.Candidate](t, e.KV).Draining
	}
}

// keysOf returns what the store has below a schedule.
func keysOf(t testing.TB, b kvstore.Backend, name string) []string {
	t.Helper()
	r, err := b.Range(context.Background(), kvstore.Range{Key: tree + name + "/", End: kvstore.PrefixEnd(tree + name + "/")})
	must(t, err)
	var out []string
	for _, kv := range r.KVs {
		out = append(out, strings.TrimPrefix(kv.Key, tree+name+"/"))
	}
	slices.Sort(out)
	return out
}
