package kvstore

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/shoal-project/shoal/internal/errs"
)

// metrics counts what the client does. The methods of nil do nothing.
type metrics struct {
	calls  *prometheus.HistogramVec
	lists  *prometheus.CounterVec
	leases prometheus.Counter
	cut    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shoal_kvstore_operation_duration_seconds", Help: "Calls to the database, by scope of keys, operation and outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"scope", "operation", "outcome"}),
		lists: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_kvstore_lists_total", Help: "How often a watched prefix had to be read from the start, by why.",
		}, []string{"why"}),
		leases: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_kvstore_leases_lost_total", Help: "Leases that were lost."}),
		cut:    prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_kvstore_watchers_cut_total", Help: "Local watchers that were cut off because they did not keep up."}),
	}
	for _, c := range []prometheus.Collector{m.calls, m.lists, m.leases, m.cut} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) list(why string) {
	if m != nil {
		m.lists.WithLabelValues(why).Inc()
	}
}

func (m *metrics) leaseLost() {
	if m != nil {
		m.leases.Inc()
	}
}

func (m *metrics) watcherCut() {
	if m != nil {
		m.cut.Inc()
	}
}

// Scope is the label that a key has in metrics and spans: its first three parts when it has four or more, else its first 12 bytes.
func Scope(key string) string {
	rest := strings.TrimPrefix(key, "/")
	parts, at := 0, 0
	for i := range len(rest) {
		if rest[i] == '/' {
			if parts++; parts == 3 {
				at = i
				break
			}
		}
	}
	if parts == 3 {
		return strings.ToValidUTF8(rest[:at], "?")
	}
	return strings.ToValidUTF8(key[:min(len(key), 12)], "?")
}

// observed is a backend that measures and traces each call.
type observed struct {
	Backend
	m      *metrics
	tracer trace.Tracer
}

func (o *observed) begin(ctx context.Context, op, key string) (context.Context, func(error)) {
	var span trace.Span
	if o.tracer != nil {
		ctx, span = o.tracer.Start(ctx, "kvstore "+op, trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.String("db.system.name", "etcd"), attribute.String("shoal.kvstore.scope", Scope(key))))
	}
	start := time.Now()
	return ctx, func(err error) {
		if o.m != nil {
			outcome := "ok"
			if err != nil {
				outcome = errs.ClassOf(err).String()
			}
			o.m.calls.WithLabelValues(Scope(key), op, outcome).Observe(time.Since(start).Seconds())
		}
		if span != nil {
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, errs.ClassOf(err).String())
			}
			span.End()
		}
	}
}

// Range implements Backend.
func (o *observed) Range(ctx context.Context, r Range) (res RangeResult, err error) {
	ctx, end := o.begin(ctx, "range", r.Key)
	defer func() { end(err) }()
	return o.Backend.Range(ctx, r)
}

// RangeStream implements Streamer if the backend does. Its time is its reader's too.
func (o *observed) RangeStream(ctx context.Context, r Range, each func(RangeResult) error) (h Header, ok bool, err error) {
	s, can := o.Backend.(Streamer)
	if !can {
		return h, false, nil
	}
	ctx, end := o.begin(ctx, "list", r.Key)
	defer func() { end(err) }()
	return s.RangeStream(ctx, r, each)
}

// Txn implements Backend.
func (o *observed) Txn(ctx context.Context, t Txn) (res TxnResult, err error) {
	key := ""
	switch {
	case len(t.Then) > 0:
		key = t.Then[0].Key
	case len(t.If) > 0:
		key = t.If[0].Key
	}
	ctx, end := o.begin(ctx, "txn", key)
	defer func() { end(err) }()
	return o.Backend.Txn(ctx, t)
}

// Grant implements Backend.
func (o *observed) Grant(ctx context.Context, ttl time.Duration) (id LeaseID, err error) {
	ctx, end := o.begin(ctx, "grant", "lease")
	defer func() { end(err) }()
	return o.Backend.Grant(ctx, ttl)
}

// KeepAlive implements Backend.
func (o *observed) KeepAlive(ctx context.Context, id LeaseID) (left time.Duration, err error) {
	ctx, end := o.begin(ctx, "keepalive", "lease")
	defer func() { end(err) }()
	return o.Backend.KeepAlive(ctx, id)
}

// Revoke implements Backend.
func (o *observed) Revoke(ctx context.Context, id LeaseID) (err error) {
	ctx, end := o.begin(ctx, "revoke", "lease")
	defer func() { end(err) }()
	return o.Backend.Revoke(ctx, id)
}
