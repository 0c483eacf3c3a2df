package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// The budgets of a service that names none, and the pauses between restarts.
const (
	DefaultStartBudget = time.Minute
	DefaultStopBudget  = 10 * time.Second

	firstPause = time.Second
	maxPause   = 30 * time.Second
	// calmAfter is how long a service must have run for its next failure to count as the first again.
	calmAfter = time.Minute
)

// Service is something that runs as long as the daemon does.
type Service struct {
	Name string
	// Run works until ctx ends, then returns nil or ctx's error. It calls ready once, as soon as others may use
	// the service; a second call does nothing. A service that returns nil after ready is done and stays so.
	Run func(ctx context.Context, ready func()) error
	// Restart starts the service again when it fails after it was ready.
	Restart bool
	// StartBudget is how long it may take to become ready, StopBudget how long to return when ctx has ended; 0 means
	// the default.
	StartBudget time.Duration
	StopBudget  time.Duration
}

// PanicError is what becomes of a panic in a service.
type PanicError struct {
	Value any
	Stack []byte
}

// Error gives the value of the panic; the stack is in the log.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// State is the condition of a service.
type State struct {
	Name     string
	Ready    bool
	Failures int   // one after the other, without a calm minute between
	Err      error // of the last failure; nil while it runs well
}

// Group runs services. The zero value is not usable, see [New].
type Group struct {
	log *slog.Logger

	mu     sync.Mutex
	states []*State
}

// New returns a group that logs to log.
func New(log *slog.Logger) *Group { return &Group{log: log} }

// States returns the condition of all services that were started, in order. Safe for concurrent use.
func (g *Group) States() []State {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]State, len(g.states))
	for i, s := range g.states {
		out[i] = *s
	}
	return out
}

// runner is one started service.
type runner struct {
	Service
	g      *Group
	state  *State
	cancel context.CancelFunc
	ready  chan struct{}
	done   chan struct{} // closed when the service has ended for good
	err    error         // written before done is closed
}

// Run starts the services in order, calls ready when all are, and blocks until ctx ends or a service fails for good. Then
// it stops what runs, last first, and returns: nil after ctx ended and all stopped in time, else what went wrong, with
// the service's name. A group runs once.
func (g *Group) Run(ctx context.Context, ready func(), services ...Service) error {
	failed := make(chan *runner, len(services))
	var started []*runner
	var err error
	for _, s := range services {
		if ctx.Err() != nil {
			break
		}
		r := g.start(ctx, s, failed)
		started = append(started, r)
		if err = r.waitReady(ctx); err != nil {
			break
		}
		g.log.Debug("service ready", "service", s.Name)
	}
	if err == nil && ctx.Err() == nil {
		ready()
		select {
		case <-ctx.Done():
		case r := <-failed:
			err = fmt.Errorf("%s: %w", r.Name, r.err)
		}
	}
	slices.Reverse(started)
	for _, r := range started {
		err = errors.Join(err, r.stop())
	}
	return err
}

func (g *Group) start(ctx context.Context, s Service, failed chan<- *runner) *runner {
	r := &runner{Service: s, g: g, state: &State{Name: s.Name}, ready: make(chan struct{}), done: make(chan struct{})}
	g.mu.Lock()
	g.states = append(g.states, r.state)
	g.mu.Unlock()
	// The end of ctx must not reach all services at once: what stands first is stopped last.
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(r.done)
		if r.err = r.keep(ctx); r.err != nil {
			failed <- r
		}
	}()
	return r
}

// waitReady returns nil when the service is ready or ctx has ended.
func (r *runner) waitReady(ctx context.Context) error {
	budget := r.StartBudget
	if budget == 0 {
		budget = DefaultStartBudget
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return nil
	case <-r.done:
		select {
		case <-r.ready: // ready and done at once
			return nil
		default:
		}
		if r.err == nil {
			r.err = errors.New("ended before it was ready")
		}
		return fmt.Errorf("start %s: %w", r.Name, r.err)
	case <-timer.C:
		return fmt.Errorf("start %s: not ready after %v", r.Name, budget)
	}
}

// keep runs the service, again and again if it is to be restarted, until ctx ends.
func (r *runner) keep(ctx context.Context) error {
	pause := firstPause
	for {
		begun := time.Now()
		err := r.once(ctx)
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if !r.wasReady() || !r.Restart {
			return err
		}
		calm := time.Since(begun) >= calmAfter
		if calm {
			pause = firstPause
		}
		r.note(err, calm)
		r.g.log.Error("service failed, starting it again", "service", r.Name, "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// once runs the service one time and turns a panic into an error.
func (r *runner) once(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p := &PanicError{Value: v, Stack: debug.Stack()}
			r.g.log.Error("service panicked", "service", r.Name, "err", p, "stack", string(p.Stack))
			err = p
		}
	}()
	return r.Run(ctx, r.setReady)
}

func (r *runner) setReady() {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if !r.wasReady() {
		close(r.ready)
	}
	r.state.Ready, r.state.Err = true, nil
}

func (r *runner) wasReady() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}

func (r *runner) note(err error, calm bool) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if calm {
		r.state.Failures = 0
	}
	r.state.Failures++
	r.state.Ready, r.state.Err = false, err
}

// stop ends the service and waits for it as long as its budget allows.
func (r *runner) stop() error {
	r.cancel()
	budget := r.StopBudget
	if budget == 0 {
		budget = DefaultStopBudget
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-r.done:
		r.g.log.Debug("service stopped", "service", r.Name)
		return nil
	case <-timer.C:
		r.g.log.Error("service does not stop, leaving it behind", "service", r.Name, "budget", budget)
		return fmt.Errorf("stop %s: still running after %v", r.Name, budget)
	}
}
