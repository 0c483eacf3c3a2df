package kvstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		booted := make(chan struct{})
		c := kvstore.New(mem.New(), kvstore.Config{Limits: &kvstore.Limits{Rate: 10, Burst: 2, Bootstrap: 100, Booted: booted}})
		defer c.Close()
		run := func(n int) time.Duration {
			start := time.Now()
			for range n {
				if _, err := c.Head(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		if got := run(102); got != time.Second {
			t.Errorf("100 calls after a burst of 2 at the first rate took %v", got)
		}
		close(booted)
		time.Sleep(time.Second)
		if got := run(12); got != time.Second {
			t.Errorf("10 calls after a burst of 2 took %v", got)
		}
		if l, err := c.Lock(t.Context(), "l", time.Minute); err != nil {
			t.Fatal(err)
		} else if err := l.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := run(1); got > 100*time.Millisecond {
			t.Errorf("a lock used up the rate: %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Head(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// With all slots taken by calls that hang, locks and leases go on.
func TestUrgentCallsDoNotWait(t *testing.T) {
	s := mem.New()
	f := kvtest.NewFaults(s)
	block := make(chan struct{})
	var in atomic.Int64
	f.Fail(func(op string) error {
		if op == "range" {
			in.Add(1)
			<-block
			in.Add(-1)
		}
		return nil
	})
	c := kvstore.New(f, kvstore.Config{Limits: &kvstore.Limits{InFlight: 4}})
	defer c.Close()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Head(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "four are under way", func() bool { return in.Load() == 4 })
	l, err := c.Lock(t.Context(), "l", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := in.Load(); n != 4 {
		t.Errorf("%d under way", n)
	}
	close(block)
	wg.Wait()
}

// A store that pushes back gets fewer calls at a time, and all again when it answers.
func TestLimitAdapts(t *testing.T) {
	f := kvtest.NewFaults(mem.New())
	c := kvstore.New(f, kvstore.Config{Limits: &kvstore.Limits{InFlight: 16}})
	defer c.Close()
	var in, most atomic.Int64
	var busy atomic.Bool
	gate := make(chan struct{})
	f.Fail(func(op string) error {
		if busy.Load() {
			return kvstore.ErrOverloaded
		}
		n := in.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-gate
		in.Add(-1)
		return nil
	})
	round := func() int64 { // 64 calls, let go when no more come
		most.Store(0)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() { _, _ = c.Head(t.Context()) })
		}
		for last, same := int64(-1), 0; same < 20; time.Sleep(time.Millisecond) {
			if n := in.Load(); n == last && n > 0 {
				same++
			} else {
				last, same = n, 0
			}
		}
		got := most.Load()
		for range 64 {
			gate <- struct{}{}
		}
		wg.Wait()
		return got
	}
	if n := round(); n != 16 {
		t.Errorf("%d at a time", n)
	}
	busy.Store(true)
	for range 10 {
		if _, err := c.Head(t.Context()); !errors.Is(err, kvstore.ErrOverloaded) {
			t.Fatal(err)
		}
	}
	busy.Store(false)
	if n := round(); n != 1 {
		t.Errorf("%d at a time after push-back", n)
	}
	for range 4 {
		round()
	}
	if n := round(); n != 16 {
		t.Errorf("%d at a time when the store has recovered", n)
	}
}

func TestWaitingAllocatesNothing(t *testing.T) {
	plain, limited := kvstore.New(mem.New(), kvstore.Config{}), kvstore.New(mem.New(), kvstore.Config{Limits: &kvstore.Limits{Rate: 50_000, Burst: 1, InFlight: 4}})
	defer plain.Close()
	defer limited.Close()
	cost := func(c *kvstore.Client) float64 {
		return testing.AllocsPerRun(200, func() {
			if _, err := c.Range(t.Context(), kvstore.Range{Key: "a"}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if p, l := cost(plain), cost(limited); l > p {
		t.Errorf("%v allocations with limits, %v without", l, p)
	}
}

func TestMetricsAndSpans(t *testing.T) {
	reg, spans := prometheus.NewRegistry(), tracetest.NewInMemoryExporter()
	tp := trace.NewTracerProvider(trace.WithSyncer(spans))
	c := kvstore.New(mem.New(), kvstore.Config{Metrics: reg, Tracer: tp.Tracer("test")})
	defer c.Close()
	if _, _, err := c.Update(t.Context(), "/shoal/v1/instances/default/web", nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Update(t.Context(), "short", nil, 99); !errors.Is(err, kvstore.ErrLeaseExpired) {
		t.Fatal(err)
	}
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fams {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
		}
	}
	if s := strings.Join(got, " "); s != "txn conflict short txn ok shoal/v1/instances" {
		t.Errorf("labels %s", s)
	}
	if n := spans.GetSpans(); len(n) != 2 || n[0].Name != "kvstore txn" || len(n[1].Events) != 1 {
		t.Errorf("%d spans: %+v", len(n), n)
	}
}

func TestScope(t *testing.T) {
	for key, want := range map[string]string{"/shoal/v1/instances/p/n": "shoal/v1/instances", "a/b/c/d/e": "a/b/c", "a/b/c": "a/b/c", "": "", "0123456789abcdef": "0123456789ab", "/a/b/\xff/d": "a/b/?"} {
		if got := kvstore.Scope(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}
