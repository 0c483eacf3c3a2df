package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/shoal-project/shoal/api"
)

// Operation is something that goes on in the server. It goes on whether or not anybody waits.
type Operation struct {
	c      *Client
	mu     sync.Mutex
	last   api.Operation
	notify func(api.Operation)
}

// OperationError is what an operation failed with.
type OperationError struct {
	Op      api.Operation
	Message string
}

// Error returns the server's text.
func (e *OperationError) Error() string { return e.Message }

// Cancelled reports whether the operation ended because somebody cancelled it.
func (e *OperationError) Cancelled() bool { return e.Op.StatusCode == api.Cancelled }

// Last returns the newest state that is known here, without asking.
func (o *Operation) Last() api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// ID returns the operation's identifier.
func (o *Operation) ID() string { return o.Last().ID }

// OnUpdate makes [Operation.Wait] call f with every state that the server tells about, the final one too, from
// Wait's own goroutine. Call it before Wait.
func (o *Operation) OnUpdate(f func(api.Operation)) { o.notify = f }

// Wait returns when the operation has ended: nil after success, an [*OperationError] after failure. When ctx ends
// first it returns ctx.Err() and the operation goes on.
//
// Without [Operation.OnUpdate] it is one request that the server answers at the end. With it, the
// operation's progress is read from the event stream; when that breaks, Wait goes on with the request.
func (o *Operation) Wait(ctx context.Context) error {
	if !o.Last().StatusCode.IsFinal() && o.notify != nil {
		if err := o.follow(ctx); err != nil {
			return err
		}
	}
	for !o.Last().StatusCode.IsFinal() {
		op, _, err := get[api.Operation](ctx, o.c, pathTo("operations", o.ID(), "wait"), url.Values{"timeout": {"-1"}})
		if err != nil {
			return fmt.Errorf("wait for operation %s: %w", o.ID(), err)
		}
		o.set(op)
	}
	last := o.Last()
	if last.StatusCode == api.Success {
		return nil
	}
	msg := last.Err
	if msg == "" {
		msg = last.Status
	}
	return &OperationError{Op: last, Message: msg}
}

func (o *Operation) set(op api.Operation) {
	o.mu.Lock()
	o.last = op
	o.mu.Unlock()
	if o.notify != nil {
		o.notify(op)
	}
}

// follow reads the event stream until the operation is final or the stream has broken. It asks for the
// operation once after the stream is open, so nothing can fall between.
func (o *Operation) follow(ctx context.Context) error {
	s, err := o.c.Events(ctx, EventsOptions{Types: []string{api.EventTypeOperation}, AllProjects: true})
	if err != nil {
		return ctx.Err()
	}
	defer s.Close()
	op, _, err := o.c.Operation(ctx, o.ID())
	if err != nil {
		if IsNotFound(err) {
			return fmt.Errorf("operation %s: %w", o.ID(), err)
		}
		return ctx.Err()
	}
	o.set(op)
	for !o.Last().StatusCode.IsFinal() {
		e, err := s.Next(ctx)
		if err != nil {
			return ctx.Err()
		}
		var op api.Operation
		if e.Type == api.EventTypeOperation && decode(e.Metadata, &op) == nil && op.ID == o.ID() {
			o.set(op)
		}
	}
	return nil
}

// Cancel asks the server to end the operation; the server refuses when it cannot be cancelled.
func (o *Operation) Cancel(ctx context.Context) error { return o.c.DeleteOperation(ctx, o.ID()) }

// Operation returns one operation. Finished ones can be asked for during a few seconds.
func (c *Client) Operation(ctx context.Context, id string) (api.Operation, string, error) {
	return get[api.Operation](ctx, c, pathTo("operations", id), nil)
}

// Operations returns the operations of the project, of all projects with all, in the order of their creation.
func (c *Client) Operations(ctx context.Context, all bool) ([]api.Operation, error) {
	q := url.Values{"recursion": {"1"}}
	if all {
		q.Set("all-projects", "true")
	}
	byStatus, _, err := get[map[string][]api.Operation](ctx, c, "/1.0/operations", q)
	if err != nil {
		return nil, err
	}
	var ops []api.Operation
	for _, s := range slices.Sorted(maps.Keys(byStatus)) {
		ops = append(ops, byStatus[s]...)
	}
	slices.SortStableFunc(ops, func(a, b api.Operation) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return ops, nil
}

// DeleteOperation cancels an operation.
func (c *Client) DeleteOperation(ctx context.Context, id string) error {
	return c.send(ctx, http.MethodDelete, pathTo("operations", id), nil, "")
}

// Attach returns an Operation for one that was started elsewhere.
func (c *Client) Attach(op api.Operation) *Operation { return &Operation{c: c, last: op} }

// ErrNotAsync is returned where the server answered at once and there is no operation to wait for.
var ErrNotAsync = errors.New("the server made no operation of this request")

// Raw sends a request and returns the envelope of the reply; with an asynchronous reply, the operation too.
func (c *Client) Raw(ctx context.Context, r Request) (*api.Response, *Operation, string, error) {
	env, h, err := c.call(ctx, r)
	if err != nil {
		return nil, nil, "", err
	}
	if env.Type != "async" {
		return env, nil, h.Get("ETag"), nil
	}
	op := &Operation{c: c}
	if err := decode(env.Metadata, &op.last); err != nil {
		return nil, nil, "", fmt.Errorf("reply to %s: %w", r.Path, err)
	}
	return env, op, h.Get("ETag"), nil
}
