package allocator_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/kvstore/allocator"
)

// gather returns the series of a registry: counters by value, histograms by the number of observations.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label { // in the order of their names
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// Two allocators and a collector of one process share a registry; each scope has its own series.
func TestMetrics(t *testing.T) {
	store, reg := newStore(t), prometheus.NewRegistry()
	with := func(scope string) option {
		return func(c *allocator.Config, _ *allocator.KVConfig) { c.Metrics, c.Scope, c.Max = reg, scope, 20 }
	}
	a, b := newNode(t, store, "a", with("nets")), newNode(t, store, "b", with(""))
	a.allocate(t, "k")
	a.allocate(t, "k")
	wait(t, "b hears of k", func() bool { return b.Stats().Known == 1 })
	b.allocate(t, "k")
	_, err := b.AllocateMany(t.Context(), keys("many", 5))
	must(t, err)
	must(t, b.ReleaseMany(t.Context(), keys("many", 5)))
	b.release(t, "k")
	if _, err := b.Release(t.Context(), "k"); err == nil {
		t.Error("released twice")
	}
	remove(t, store, "keys/k")
	wait(t, "a puts the record back", func() bool { return a.Stats().Restored == 1 })
	col, err := allocator.NewCollector(allocator.CollectorConfig{KV: a.kv, Metrics: reg, Scope: "nets"})
	must(t, err)
	for range 2 {
		_, err := col.Run(t.Context())
		must(t, err)
	}
	got := gather(t, reg)
	const calls, ids = "shoal_allocator_operation_duration_seconds", "shoal_allocator_ids_total"
	for name, want := range map[string]float64{
		calls + " allocate ok nets": 2, calls + " allocate ok ids": 1, calls + " allocate_many ok ids": 1,
		calls + " release ok ids": 1, calls + " release not-found ids": 1, calls + " release_many ok ids": 1, calls + " collect ok nets": 2,
		ids + " new nets": 1, ids + " shared nets": 1, ids + " found ids": 1, ids + " new ids": 5, ids + " released ids": 6,
		ids + " restored nets": 1, ids + " collected nets": 5,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
