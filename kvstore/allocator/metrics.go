package allocator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore/internal/meter"
)

// metrics measures what callers see of the allocators of one scope. The methods of nil do nothing, and ask no clock.
type metrics struct {
	calls *prometheus.HistogramVec // already of the scope
	ids   *prometheus.CounterVec
}

// newMetrics returns nil without a registry.
func newMetrics(reg prometheus.Registerer, scope string) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	calls, err := meter.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "shoal_allocator_operation_duration_seconds", Help: "Calls to the allocator of ids, by scope, operation and outcome.",
		Buckets: meter.Seconds(),
	}, []string{"scope", "operation", "outcome"}))
	if err != nil {
		return nil, err
	}
	ids, err := meter.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_allocator_ids_total", Help: "What happened to ids, by scope: new, found (of another node), shared (in use here already), released, restored, conflict, collected, saved.",
	}, []string{"scope", "event"}))
	if err != nil {
		return nil, err
	}
	of := prometheus.Labels{"scope": scope}
	return &metrics{calls.MustCurryWith(of).(*prometheus.HistogramVec), ids.MustCurryWith(of)}, nil
}

// begin measures an operation until the returned function is called with its outcome.
func (m *metrics) begin(op string) func(error) {
	if m == nil {
		return func(error) {}
	}
	start := time.Now()
	return func(err error) {
		outcome := "ok"
		if err != nil {
			outcome = errs.ClassOf(err).String()
		}
		m.calls.WithLabelValues(op, outcome).Observe(time.Since(start).Seconds())
	}
}

func (m *metrics) count(event string, n int) {
	if m != nil && n > 0 {
		m.ids.WithLabelValues(event).Add(float64(n))
	}
}

func (m *metrics) allocated(all ...Allocation) {
	if m == nil {
		return
	}
	var fresh, found, shared int
	for _, al := range all {
		switch {
		case al.New:
			fresh++
		case al.First:
			found++
		default:
			shared++
		}
	}
	m.count("new", fresh)
	m.count("found", found)
	m.count("shared", shared)
}
