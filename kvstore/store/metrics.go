package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore/internal/meter"
)

// metrics measures the stores of one scope. The methods of nil do nothing, and ask no clock.
type metrics struct {
	calls *prometheus.HistogramVec // already of the scope
	keys  *prometheus.CounterVec
	queue prometheus.Gauge
}

// newMetrics returns nil without a registry.
func newMetrics(reg prometheus.Registerer, scope string) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	calls, err := meter.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "shoal_store_operation_duration_seconds", Help: "What stores ask of the database, by scope, operation (write: a transaction; list: the first list of a watch, to its end) and outcome.",
		Buckets: meter.Seconds(),
	}, []string{"scope", "operation", "outcome"}))
	if err != nil {
		return nil, err
	}
	keys, err := meter.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_store_keys_total", Help: "What happened to keys of stores, by scope: put and deleted (written here), lost (with their lease), updated and gone (seen), unreadable.",
	}, []string{"scope", "event"}))
	if err != nil {
		return nil, err
	}
	queue, err := meter.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "shoal_store_queue_keys", Help: "Keys that wait to be written, by scope.",
	}, []string{"scope"}))
	if err != nil {
		return nil, err
	}
	of := prometheus.Labels{"scope": scope}
	return &metrics{calls.MustCurryWith(of).(*prometheus.HistogramVec), keys.MustCurryWith(of), queue.WithLabelValues(scope)}, nil
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
		m.keys.WithLabelValues(event).Add(float64(n))
	}
}

// queued changes the length of the queue; stores of one scope add up.
func (m *metrics) queued(by int) {
	if m != nil && by != 0 {
		m.queue.Add(float64(by))
	}
}
