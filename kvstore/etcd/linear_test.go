package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// step is one call on the register, or on the lock, named by key.
type step struct {
	key  string
	kind string // get, put, swap (put if the value's revision is unchanged), bump (read and put under a lock), lock or unlock
	put  string
	was  int64 // of a swap
}

// outcome is what came back. unknown: the call may or may not have happened, or may still happen.
type outcome struct {
	value   string
	rev     int64
	ok      bool
	unknown bool
}

type register struct {
	value string
	rev   int64 // 0: the register was last written by a call whose answer was lost
	held  bool
}

// model is a register and a lock per key.
func model() porcupine.Model {
	nd := porcupine.NondeterministicModel{
		Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, o := range h {
				k := o.Input.(step).key
				by[k] = append(by[k], o)
			}
			var out [][]porcupine.Operation
			for _, p := range by {
				out = append(out, p)
			}
			return out
		},
		Init: func() []any { return []any{register{}} },
		Step: func(state, input, output any) []any {
			return next(state.(register), input.(step), output.(outcome))
		},
		Equal:             func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
	return nd.ToModel()
}

func next(s register, in step, out outcome) []any {
	switch in.kind {
	case "get":
		if out.unknown {
			return []any{s}
		}
		if out.value != s.value || s.rev != 0 && out.rev != s.rev {
			return nil
		}
		s.rev = out.rev
		return []any{s}
	case "put":
		if out.unknown {
			return []any{s, register{value: in.put, held: s.held}}
		}
		if out.rev <= s.rev {
			return nil
		}
		return []any{register{value: in.put, rev: out.rev, held: s.held}}
	case "bump": // what was read under the lock is still there when the write under it happens
		switch done := (register{value: in.put, rev: out.rev, held: s.held}); {
		case out.unknown && s.value == out.value:
			return []any{s, register{value: in.put, held: s.held}}
		case out.unknown:
			return []any{s}
		case s.value == out.value && out.rev > s.rev:
			return []any{done}
		}
		return nil
	case "swap":
		done := register{value: in.put, rev: out.rev, held: s.held}
		switch {
		case out.unknown:
			return []any{s, register{value: in.put, held: s.held}}
		case out.ok && (s.rev == 0 || s.rev == in.was):
			return []any{done}
		case !out.ok && (s.rev == 0 || s.rev != in.was):
			return []any{s}
		}
		return nil
	case "lock":
		if out.unknown {
			return []any{s}
		}
		if s.held {
			return nil
		}
		s.held = true
	case "unlock":
		s.held = false
	}
	return []any{s}
}

// history records what clients saw.
type history struct {
	mu    sync.Mutex
	start time.Time
	ops   []porcupine.Operation
}

func (h *history) record(client int, in step, call int64, out outcome) {
	ret := time.Since(h.start).Nanoseconds()
	if out.unknown && in.kind != "get" && in.kind != "lock" {
		ret = int64(time.Hour) // it may happen at any later time
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret})
}

func (h *history) now() int64 { return time.Since(h.start).Nanoseconds() }

// TestLinearizable has clients read, write, compare-and-swap and lock while members are stopped and partitioned, and checks that what they saw fits one
// order. A client whose call has an unknown outcome goes on under another name.
func TestLinearizable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	members, addrs := servers(t, 3, nil)
	h := &history{start: time.Now()}
	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	var wg sync.WaitGroup
	var ids sync.Mutex
	id := 0
	fresh := func() int { ids.Lock(); defer ids.Unlock(); id++; return id }
	for n := range 6 {
		b, err := etcd.Dial(etcd.Config{Endpoints: addrs}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := kvstore.New(b, kvstore.Config{CallTimeout: 700 * time.Millisecond})
		defer c.Close()
		wg.Go(func() {
			if n < 4 {
				registers(ctx, c, h, fresh)
			} else {
				lockers(ctx, c, h, fresh)
			}
		})
	}
	wg.Go(func() { // pauses: a member that hears nobody; the leader is cut off most often
		for i := 0; ctx.Err() == nil; i++ {
			m := members[i%3]
			for j, x := range members {
				if i%2 == 0 && x.Server.Leader() == x.Server.MemberID() {
					m = members[j]
				}
			}
			for _, x := range members {
				if x != m {
					m.Server.CutPeer(x.Server.MemberID())
					x.Server.CutPeer(m.Server.MemberID())
				}
			}
			pause(ctx, 500*time.Millisecond)
			for _, x := range members {
				if x != m {
					m.Server.MendPeer(x.Server.MemberID())
					x.Server.MendPeer(m.Server.MemberID())
				}
			}
			pause(ctx, 400*time.Millisecond)
		}
	})
	wg.Go(func() { // and one dies
		pause(ctx, 4*time.Second)
		members[2].stop()
	})
	wg.Wait()
	h.check(t)
}

// check wants answers of each kind, and one order that all of them fit.
func (h *history) check(t *testing.T) {
	t.Helper()
	good := map[string]int{}
	for _, o := range h.ops {
		if !o.Output.(outcome).unknown {
			good[o.Input.(step).kind]++
		}
	}
	for _, k := range []string{"get", "put", "swap", "lock", "bump"} {
		if good[k] == 0 {
			t.Errorf("no %s had an answer", k)
		}
	}
	switch porcupine.CheckOperationsTimeout(model(), h.ops, time.Minute) {
	case porcupine.Illegal:
		t.Errorf("%d calls fit no order", len(h.ops))
	case porcupine.Unknown:
		t.Errorf("%d calls: too many orders to look at within a minute, so nothing is known", len(h.ops))
	case porcupine.Ok:
		t.Logf("%d calls fit one order: %v had an answer", len(h.ops), good)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func registers(ctx context.Context, c *kvstore.Client, h *history, fresh func() int) {
	me, last, epoch := fresh(), int64(0), ""
	for i := 0; ctx.Err() == nil; i++ {
		// Calls with an unknown outcome may happen at any later time, and each doubles the orders to look at: no register is used for long.
		key := fmt.Sprint("r/", time.Since(h.start)/time.Second, "/", rand.N(3))
		if key[:len(key)-2] != epoch {
			epoch, last = key[:len(key)-2], 0
		}
		in := step{key: key, kind: []string{"get", "put", "swap"}[i%3], put: fmt.Sprint(me, "-", i), was: last}
		call := h.now()
		var out outcome
		var err error
		switch in.kind {
		case "get":
			var kv kvstore.KeyValue
			kv, _, err = c.Get(ctx, key)
			out.value, out.rev, last = string(kv.Value), kv.ModRevision, kv.ModRevision
		case "put":
			_, out.rev, err = c.Update(ctx, key, []byte(in.put), 0)
		case "swap":
			out.ok, out.rev, err = c.UpdateIfUnchanged(ctx, key, in.was, []byte(in.put), 0)
			if errors.Is(err, kvstore.ErrConflict) || errors.Is(err, kvstore.ErrNotFound) {
				err = nil
			}
		}
		out.unknown = err != nil
		h.record(me, in, call, out)
		if out.unknown {
			me = fresh()
		}
		pause(ctx, 3*time.Millisecond)
	}
}

// lockers take a lock, read a counter and write it, one larger, both under the lock and by no other compare: the lock alone keeps two of them
// from writing the same number.
func lockers(ctx context.Context, c *kvstore.Client, h *history, fresh func() int) {
	for ctx.Err() == nil {
		me := fresh()
		call := h.now()
		l, err := c.Lock(ctx, "locks/x", 30*time.Second)
		if err != nil {
			continue
		}
		h.record(me, step{key: "lock", kind: "lock"}, call, outcome{ok: true})
		call = h.now()
		in := step{key: fmt.Sprint("counter/", time.Since(h.start)/time.Second), kind: "bump"}
		kv, _, err := c.Get(ctx, in.key, l.Held())
		if err == nil {
			n, _ := strconv.Atoi(string(kv.Value))
			in.put = strconv.Itoa(n + 1)
			_, rev, err := c.Update(ctx, in.key, []byte(in.put), 0, l.Held())
			if !errors.Is(err, kvstore.ErrLockLost) { // then it did not happen
				h.record(me, in, call, outcome{value: string(kv.Value), rev: rev, unknown: err != nil})
			}
			if err != nil {
				me = fresh()
			}
		}
		call = h.now()
		err = l.Unlock(ctx)
		h.record(me, step{key: "lock", kind: "unlock"}, call, outcome{unknown: err != nil})
		pause(ctx, 2*time.Millisecond)
	}
}
