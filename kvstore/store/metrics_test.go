package store_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/kvstore/store"
)

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
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// A writer and a reader of one prefix share a registry.
func TestMetrics(t *testing.T) {
	b, reg := newMem(t), prometheus.NewRegistry()
	l := connect(b)
	s := newSync(t, l, func(c *store.SyncConfig) { c.Prefix, c.Metrics = "/test/v1/things/", reg })
	for _, name := range []string{"a", "b", "c"} {
		must(t, s.Upsert(name, []byte("1")))
	}
	if got := gather(t, reg)["shoal_store_queue_keys test/v1/things"]; got != 3 {
		t.Errorf("%v keys are queued", got)
	}
	run(t, s.Run)
	must(t, s.Flush(t.Context(), "c"))
	s.Delete("b")
	must(t, s.Flush(t.Context(), "b"))
	must(t, s.Upsert("c", []byte("bad")))
	must(t, s.Flush(t.Context(), "c"))
	w, err := store.NewWatchStore(store.WatchConfig[string]{Decode: decode, Metrics: reg})
	must(t, err)
	run(t, func(ctx context.Context) error { return w.Watch(ctx, l, "/test/v1/things/") })
	wait(t, "the list is complete", w.Synced)
	s.Delete("a")
	wait(t, "the deletion is seen", func() bool { return w.Len() == 0 })
	must(t, s.Flush(t.Context(), "a"))
	got := gather(t, reg)
	const calls, keys, scope = "shoal_store_operation_duration_seconds", "shoal_store_keys_total", " test/v1/things"
	for name, want := range map[string]float64{
		calls + " write ok" + scope: 4, calls + " list ok" + scope: 1,
		keys + " put" + scope: 4, keys + " deleted" + scope: 2, keys + " updated" + scope: 1, keys + " gone" + scope: 1, keys + " unreadable" + scope: 1,
		"shoal_store_queue_keys" + scope: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v; all: %v", name, v, want, got)
		}
	}
}
