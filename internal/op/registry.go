package op

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
)

const (
	// KeepFinal is how long a final operation can still be read: LXD's clients read it once after the reply.
	KeepFinal = 10 * time.Second
	// ConnectWait is how long Run waits for a client to connect a websocket.
	ConnectWait = 5 * time.Second
	// SecretLife is how long a websocket's secret is good for.
	SecretLife = 30 * time.Second
	// MaxRunning bounds the operations that run at a time.
	MaxRunning = 4096
)

// ErrStopping ends operations that still run when the daemon stops.
var ErrStopping = errs.Unavailable("the daemon is shutting down")

// errCancelled is the cause of the context of an operation that a client cancelled.
var errCancelled = errs.Unavailable("the operation was cancelled")

// Publisher tells listeners about an operation; cluster/events satisfies it. It must not block.
type Publisher interface {
	Operation(project api.ProjectName, o api.Operation)
}

// Deps is what the registry needs.
type Deps struct {
	Events   Publisher
	Clock    clock.Clock
	Logger   *slog.Logger
	Location string // member name, "none" when unclustered
}

// Registry holds the operations of this daemon. Safe for concurrent use.
type Registry struct {
	d Deps

	mu       sync.Mutex
	ops      map[string]*operation
	running  int
	stopping bool
	idle     sync.WaitGroup // one per running operation
}

// New returns an empty registry.
func New(d Deps) (*Registry, error) {
	if d.Events == nil || d.Logger == nil {
		return nil, fmt.Errorf("op: Events and Logger are required")
	}
	if d.Clock == nil {
		d.Clock = clock.Real{}
	}
	if d.Location == "" {
		d.Location = "none"
	}
	return &Registry{d: d, ops: map[string]*operation{}}, nil
}

// operation is one operation; it is the Handle of its own Run.
type operation struct {
	reg     *Registry
	spec    Spec
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when final
	forget  *time.Timer
	sockets map[string]*slot

	mu  sync.Mutex // also orders the events of this operation
	api api.Operation
}

// Start runs spec and returns the operation as its creator may see it, with the secrets of its websockets
// in the metadata as "fds". Values of ctx (who asked) reach Run, its end does not. errs.Unavailable when the daemon
// stops or too many operations run.
func (r *Registry) Start(ctx context.Context, spec Spec) (api.Operation, error) {
	if spec.Run == nil {
		return api.Operation{}, fmt.Errorf("operation %q has no work", spec.Description)
	}
	if spec.Class == "" {
		spec.Class = Task
	}
	if spec.Project.IsZero() {
		spec.Project = api.DefaultProject
	}
	now := r.d.Clock.Now()
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	o := &operation{reg: r, spec: spec, cancel: cancel, done: make(chan struct{}), sockets: newSlots(spec.Sockets, now)}
	o.api = api.Operation{
		ID: uuid.NewString(), Class: string(spec.Class), Description: spec.Description,
		CreatedAt: now, UpdatedAt: now, Status: api.Running.String(), StatusCode: api.Running,
		Resources: spec.Resources, Metadata: maps.Clone(spec.Metadata), MayCancel: spec.Cancellable, Location: r.d.Location,
	}
	r.mu.Lock()
	if r.stopping || r.running >= MaxRunning {
		stopping := r.stopping
		r.mu.Unlock()
		cancel(nil)
		if stopping {
			return api.Operation{}, ErrStopping
		}
		return api.Operation{}, errs.Unavailable("too many operations run (%d); try again later", MaxRunning)
	}
	r.ops[o.api.ID] = o
	r.running++
	r.idle.Add(1)
	r.mu.Unlock()

	o.mu.Lock()
	first := o.view()
	r.d.Events.Operation(spec.Project, first)
	o.mu.Unlock()
	if len(spec.Sockets) > 0 {
		first.Metadata = maps.Clone(first.Metadata)
		if first.Metadata == nil {
			first.Metadata = map[string]any{}
		}
		first.Metadata["fds"] = o.secrets()
	}
	go o.run(runCtx)
	return first, nil
}

// run does the work and makes the operation final, whatever the work does.
func (o *operation) run(ctx context.Context) {
	err := o.fenced(ctx)
	cause := context.Cause(ctx)
	status := api.Success
	switch {
	case err == nil:
	case cause == errCancelled:
		status, err = api.Cancelled, errCancelled
	case cause == ErrStopping:
		status, err = api.Failure, ErrStopping
	default:
		status = api.Failure
	}
	o.cancel(nil)
	o.closeSockets()
	if err != nil {
		o.reg.d.Logger.Info("operation failed", "op", o.api.ID, "description", o.spec.Description, "project", o.spec.Project.String(), "err", err)
	}
	o.change(func(a *api.Operation) {
		a.StatusCode, a.Status = status, status.String()
		a.MayCancel = false
		if err != nil {
			a.Err = err.Error()
		}
	})
	close(o.done)
	r := o.reg
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.idle.Done()
	if r.stopping {
		delete(r.ops, o.api.ID)
		return
	}
	o.forget = time.AfterFunc(KeepFinal, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.ops, o.api.ID)
	})
}

// fenced runs the work; a panic becomes an error, its stack goes to the log.
func (o *operation) fenced(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			o.reg.d.Logger.Error("operation panicked", "op", o.api.ID, "description", o.spec.Description,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error in operation %s; see the daemon's log", o.api.ID)
		}
	}()
	return o.spec.Run(ctx, o)
}

// view returns a copy of the object; o.mu is held.
func (o *operation) view() api.Operation {
	a := o.api
	a.Metadata = maps.Clone(a.Metadata)
	return a
}

// change updates the object and publishes it.
func (o *operation) change(f func(*api.Operation)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(&o.api)
	o.api.UpdatedAt = o.reg.d.Clock.Now()
	o.reg.d.Events.Operation(o.spec.Project, o.view())
}

// ID returns the operation's UUID.
func (o *operation) ID() string { return o.api.ID }

// SetMetadata merges values into the metadata and tells the listeners.
func (o *operation) SetMetadata(m map[string]any) {
	o.change(func(a *api.Operation) {
		if a.Metadata == nil {
			a.Metadata = map[string]any{}
		}
		maps.Copy(a.Metadata, m)
	})
}

func (r *Registry) find(id string) (*operation, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.ops[id]
	if !ok {
		return nil, errs.NotFound("Operation not found")
	}
	return o, nil
}

// Item is an operation with its project.
type Item struct {
	Project   api.ProjectName
	Operation api.Operation
}

// List returns the operations of a project, of all projects when it is the zero name, oldest first.
func (r *Registry) List(project api.ProjectName) []Item {
	r.mu.Lock()
	found := make([]*operation, 0, len(r.ops))
	for _, o := range r.ops {
		if project.IsZero() || o.spec.Project == project {
			found = append(found, o)
		}
	}
	r.mu.Unlock()
	items := make([]Item, 0, len(found))
	for _, o := range found {
		o.mu.Lock()
		items = append(items, Item{o.spec.Project, o.view()})
		o.mu.Unlock()
	}
	slices.SortFunc(items, func(a, b Item) int { return a.Operation.CreatedAt.Compare(b.Operation.CreatedAt) })
	return items
}

// Get returns an operation; errs.NotFound when there is none.
func (r *Registry) Get(id string) (Item, error) {
	o, err := r.find(id)
	if err != nil {
		return Item{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return Item{o.spec.Project, o.view()}, nil
}

// Wait returns the operation when it is final or timeout has passed, whichever is first; a negative timeout waits
// for ever. errs.Unavailable when ctx ends.
func (r *Registry) Wait(ctx context.Context, id string, timeout time.Duration) (Item, error) {
	o, err := r.find(id)
	if err != nil {
		return Item{}, err
	}
	var expired <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-o.done:
	case <-expired:
	case <-ctx.Done():
		return Item{}, fmt.Errorf("wait for operation %s: %w", id, ctx.Err())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return Item{o.spec.Project, o.view()}, nil
}

// Cancel asks an operation to end; it does not wait. An operation with websockets that nobody has connected
// can always be cancelled. errs.Invalid when the operation cannot be cancelled or is final.
func (r *Registry) Cancel(id string) error {
	o, err := r.find(id)
	if err != nil {
		return err
	}
	allowed := o.spec.Cancellable || (o.spec.Class == Websocket && !o.connected())
	o.mu.Lock()
	defer o.mu.Unlock()
	if !allowed || o.api.StatusCode.IsFinal() {
		return errs.Invalid("This operation can't be cancelled")
	}
	o.api.StatusCode, o.api.Status = api.Cancelling, api.Cancelling.String()
	o.api.UpdatedAt = r.d.Clock.Now()
	r.d.Events.Operation(o.spec.Project, o.view())
	o.cancel(errCancelled)
	return nil
}

// Stop ends all operations with [ErrStopping] and waits until they are final or ctx ends.
func (r *Registry) Stop(ctx context.Context) error {
	r.mu.Lock()
	r.stopping = true
	for id, o := range r.ops {
		if o.forget != nil {
			o.forget.Stop()
			delete(r.ops, id)
			continue
		}
		o.cancel(ErrStopping)
	}
	r.mu.Unlock()
	idle := make(chan struct{})
	go func() { r.idle.Wait(); close(idle) }()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("operations still run after the daemon asked them to end: %w", ctx.Err())
	}
}

// WaitIdle waits until no operation runs or ctx ends; it ends none.
func (r *Registry) WaitIdle(ctx context.Context) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for r.Running() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Running returns how many operations run.
func (r *Registry) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}
