package meter_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/kvstore/internal/meter"
)

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// counts returns what all counters of reg say.
func counts(t *testing.T, reg *prometheus.Registry) (out []float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out = append(out, m.GetCounter().GetValue())
		}
	}
	return out
}

// Who comes second counts in the first one's series.
func TestRegisterTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	for i := range 3 {
		c, err := meter.Register(reg, counter("calls", "Calls."))
		if err != nil {
			t.Fatal(err)
		}
		c.Inc()
		if got := counts(t, reg); !slices.Equal(got, []float64{float64(i + 1)}) {
			t.Errorf("after user %d: %v", i+1, got)
		}
	}
}

// What cannot be registered is an error, and what is returned with it can be used all the same.
func TestRegisterWhatDiffers(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := meter.Register(reg, counter("calls", "Calls.")); err != nil {
		t.Fatal(err)
	}
	g, err := meter.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "calls", Help: "Calls."}))
	if err == nil || !strings.Contains(err.Error(), "another type") {
		t.Errorf("a gauge of the name of a counter: %v", err)
	}
	g.Set(1)
	c, err := meter.Register(reg, counter("calls", "Something else."))
	if err == nil {
		t.Error("a counter of the same name that says something else was registered")
	}
	c.Inc()
	if got := counts(t, reg); !slices.Equal(got, []float64{0}) {
		t.Errorf("the registered counter says %v", got)
	}
}

func TestSeconds(t *testing.T) {
	b := meter.Seconds()
	if !slices.IsSorted(b) || b[0] != 0.0001 || b[len(b)-1] < 6.5 || b[len(b)-1] > 6.6 {
		t.Errorf("buckets %v, want 0.1 ms to 6.5 s", b)
	}
}
