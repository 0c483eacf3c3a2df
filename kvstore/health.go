package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Endpoint is what one server of the store says of itself.
type Endpoint struct {
	Address string
	Version string
	Leader  bool
	Learner bool
	Size    int64 // bytes of its database
	Err     error // why nothing else is known
}

// Endpoints is a backend that can name its servers.
type Endpoints interface {
	// Endpoints asks each server, for at most as long as ctx lives.
	Endpoints(ctx context.Context) []Endpoint
}

// HealthConfig configures Health. The zero value works for a lone machine.
type HealthConfig struct {
	// Heartbeat is a key that somebody writes every HeartbeatEvery; "" means that there is none. Its age is counted by our clock.
	Heartbeat      string
	HeartbeatEvery time.Duration // 0 means 1 min
	// Nodes returns the size of the cluster; nil means 1.
	Nodes func() int
	// MaxErrors is how many checks may fail in a row before the state is Failed; 0 means 2.
	MaxErrors int
	// Interval replaces CheckEvery; for tests.
	Interval func(nodes int, ok bool) time.Duration
	// Timeout of one check; 0 means 10 s.
	Timeout time.Duration
}

// State is how the store is.
type State int

// States.
const (
	Connecting State = iota // no check has succeeded yet
	Healthy
	Degraded // a check has failed, or the writer of the heartbeat is gone, or some servers do not answer
	Failed   // more than MaxErrors checks have failed in a row
)

func (s State) String() string { return [...]string{"connecting", "healthy", "degraded", "failed"}[s] }

// Status is the outcome of the last check.
type Status struct {
	State     State
	Header    Header
	Err       error         // of the last check, with a hint; nil when it succeeded
	Failures  int           // in a row
	Heartbeat time.Duration // since it was last seen to change; 0 without one
	Stale     bool          // the heartbeat is older than twice HeartbeatEvery: its writer is gone, the store is not
	Servers   []Endpoint    // empty where the backend cannot tell
	Checked   time.Time
}

// CheckEvery is the time between two checks: the larger the cluster the longer, so that all nodes together ask a bearable number of
// questions. 30 s, or 5 s after a failure, times ln(1+nodes): 1 node 20s/3s, 8 1m05s/11s, 128 2m25s/24s, 8192 4m30s/45s.
func CheckEvery(nodes int, ok bool) time.Duration {
	base := 5 * time.Second
	if ok {
		base = 30 * time.Second
	}
	return time.Duration(float64(base) * math.Log1p(float64(max(1, nodes))))
}

// Health checks the store with one linearizable read at a time: nothing is written and nothing locked. It reports and never acts; whoever
// restarts something because somebody else is away makes it worse. Safe for concurrent use.
type Health struct {
	c   *Client
	cfg HealthConfig

	mu     sync.Mutex
	status Status
	up     chan struct{} // closed while connected
	down   chan struct{} // closed while not
	errs   chan error
	beat   int64 // mod revision of the heartbeat
	beatAt time.Time
}

// NewHealth begins to check; it ends with the client.
func (c *Client) NewHealth(cfg HealthConfig) *Health {
	if cfg.HeartbeatEvery <= 0 {
		cfg.HeartbeatEvery = time.Minute
	}
	if cfg.Nodes == nil {
		cfg.Nodes = func() int { return 1 }
	}
	if cfg.MaxErrors <= 0 {
		cfg.MaxErrors = 2
	}
	if cfg.Interval == nil {
		cfg.Interval = CheckEvery
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	h := &Health{c: c, cfg: cfg, up: make(chan struct{}), down: make(chan struct{}), errs: make(chan error, 16), beatAt: time.Now()}
	close(h.down)
	if !c.spawn(h.run) {
		close(h.errs)
	}
	return h
}

// Connected returns a channel that is closed when the store answers with a quorum; when it does now, at once.
func (h *Health) Connected() <-chan struct{} { h.mu.Lock(); defer h.mu.Unlock(); return h.up }

// Disconnected returns a channel that is closed when the state is neither Healthy nor Degraded; when it is so now, at once.
func (h *Health) Disconnected() <-chan struct{} { h.mu.Lock(); defer h.mu.Unlock(); return h.down }

// Status returns the outcome of the last check.
func (h *Health) Status() Status { h.mu.Lock(); defer h.mu.Unlock(); return h.status }

// Errors delivers an error each time that more than MaxErrors checks have failed in a row. When nobody reads, old ones are dropped. It is closed
// with the client.
func (h *Health) Errors() <-chan error { return h.errs }

func (h *Health) run() {
	defer close(h.errs)
	for {
		h.Check(h.c.ctx)
		s := h.Status()
		every := h.cfg.Interval(h.cfg.Nodes(), s.State == Healthy)
		t := time.NewTimer(every*9/10 + rand.N(every/5+1))
		select {
		case <-h.c.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// Check checks now.
func (h *Health) Check(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(Urgent(ctx), h.cfg.Timeout)
	defer cancel()
	key := h.cfg.Heartbeat
	if key == "" {
		key = "\x00"
	}
	r, err := h.c.Range(ctx, Range{Key: key})
	var servers []Endpoint
	if e, ok := h.c.raw.(Endpoints); ok {
		servers = e.Endpoints(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	s := Status{Header: r.Header, Servers: servers, Checked: now}
	if err == nil && h.cfg.Heartbeat != "" {
		if len(r.KVs) > 0 && r.KVs[0].ModRevision != h.beat {
			h.beat, h.beatAt = r.KVs[0].ModRevision, now
		}
		s.Heartbeat = now.Sub(h.beatAt)
		s.Stale = s.Heartbeat > 2*h.cfg.HeartbeatEvery
	}
	h.judge(&s, err)
	return s
}

// judge gives s its state and turns the channels. The caller holds h.mu.
func (h *Health) judge(s *Status, err error) {
	silent := 0
	for _, e := range s.Servers {
		if e.Err != nil {
			silent++
		}
	}
	switch {
	case err == nil && !s.Stale && silent == 0:
		s.State = Healthy
	case err == nil:
		s.State = Degraded
	default:
		s.Err, s.Failures = Hint(err), h.status.Failures+1
		s.State = Degraded
		if h.status.State == Connecting {
			s.State = Connecting
		}
		if s.Failures > h.cfg.MaxErrors {
			s.State = Failed
			err := fmt.Errorf("check the database %d times: %w", s.Failures, s.Err)
			select {
			case h.errs <- err:
			default:
				h.c.cfg.Log.Debug("nobody reads the health's errors", "err", err)
			}
		}
	}
	was := h.status.State == Healthy || h.status.State == Degraded
	is := s.State == Healthy || s.State == Degraded
	switch {
	case is && !was:
		close(h.up)
		h.down = make(chan struct{})
	case was && !is:
		close(h.down)
		h.up = make(chan struct{})
	}
	h.status = *s
}

// Beat writes the heartbeat every interval until ctx ends, under a lease of the pool. Errors are retried at the next beat.
func (c *Client) Beat(ctx context.Context, p *LeasePool, key string, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if _, _, err := p.Put(Urgent(ctx), key, []byte(time.Now().UTC().Format(time.RFC3339))); err != nil && ctx.Err() == nil {
			if errors.Is(err, ErrClosed) {
				return err
			}
			c.cfg.Log.Warn("write the heartbeat", "key", key, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// Users is a backend that knows users. Names and roles are the store's.
type Users interface {
	// EnforceUser makes sure that the user exists, without a password (its certificate says who it is), and has exactly these roles. A role that
	// does not exist is ErrNotFound.
	EnforceUser(ctx context.Context, name string, roles []string) error
	// EnforceNoUser makes sure that there is no such user.
	EnforceNoUser(ctx context.Context, name string) error
}

// Users returns the backend's users; false where it has none.
func (c *Client) Users() (Users, bool) {
	u, ok := c.raw.(Users)
	return u, ok
}
