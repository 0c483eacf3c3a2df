package kvstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/shoal-project/shoal/internal/errs"
)

// Config is what a client needs beside its backend. The zero value works.
type Config struct {
	Log *slog.Logger
	// Name says who this is to people who look at the keys of locks.
	Name string
	// Page is the number of keys that a list asks for at a time; 0 means few at first, so that the consumer begins soon, and then about a
	// mebibyte: the store counts what is left of the range for each page.
	Page int64
	// CallTimeout bounds each call whose context has no earlier deadline; 0 means 5 s.
	CallTimeout time.Duration
	// CheckInterval is how often a watch compares cluster id and revision with what it has seen; 0 means 2 s.
	CheckInterval time.Duration
	// Limits bounds what is asked of the store; nil means nothing.
	Limits *Limits
	// Metrics and Tracer say where calls are measured and traced; nil costs nothing.
	Metrics prometheus.Registerer
	Tracer  trace.Tracer
}

// Client talks to one backend. Safe for concurrent use.
type Client struct {
	Backend // with limits and measuring, if there are any
	raw     Backend
	m       *metrics
	cfg     Config
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	locks   locks

	mu     sync.Mutex // over closed and wg.Add
	closed bool
	wg     sync.WaitGroup
}

// New returns a client of b. Close closes b too.
func New(b Backend, cfg Config) *Client {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = 5 * time.Second
	}
	if cfg.CheckInterval <= 0 {
		cfg.CheckInterval = 2 * time.Second
	}
	c := &Client{Backend: b, raw: b, cfg: cfg}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.Metrics != nil {
		var err error
		if c.m, err = newMetrics(cfg.Metrics); err != nil {
			cfg.Log.Error("the database's metrics cannot be registered", "err", err)
		}
	}
	if c.m != nil || cfg.Tracer != nil {
		c.Backend = &observed{Backend: c.Backend, m: c.m, tracer: cfg.Tracer}
	}
	if cfg.Limits != nil {
		c.Backend = newLimited(c.ctx, c.Backend, *cfg.Limits)
	}
	c.locks.init(c)
	return c
}

// Close ends all calls, watches, renewals and waiting, and the backend, and returns when nothing of the client runs any more. Leases are
// not revoked: see [Backend].
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	err := c.Backend.Close()
	c.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Close waits for; f ends with c.ctx. It is false when the client is closed.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

func (c *Client) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.CallTimeout)
}

// Hint adds to an error what its reader can do about it; nil stays nil, and errors.Is works as before.
func Hint(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errs.Unavailable("the database did not answer in time (is a majority of its members up?): %w", err)
	}
	return err
}
