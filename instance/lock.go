package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// errForced is why an operation ended that a forced stop came upon.
var errForced = errs.Busy("a forced stop ended")

// action is what an operation does to an instance; its text appears in the error that others get meanwhile.
type action string

const (
	actCreate   action = "create"
	actStart    action = "start"
	actStop     action = "stop"
	actRestart  action = "restart"
	actFreeze   action = "freeze"
	actUnfreeze action = "unfreeze"
	actUpdate   action = "update"
	actRename   action = "rename"
	actDelete   action = "delete"
	actSnapshot action = "snapshot"
	actRestore  action = "restore"
	actCopy     action = "copy"
)

// joins are the actions of which a second one waits for the first and takes its result as its own.
var joins = map[action]bool{actStart: true, actStop: true, actRestart: true, actFreeze: true, actUnfreeze: true}

// yields are the actions that a forced stop may cancel: they touch the process only.
var yields = map[action]bool{actStart: true, actStop: true, actRestart: true, actFreeze: true, actUnfreeze: true, actUpdate: true, actSnapshot: true}

// hold is an operation lock that is taken. It lives in memory: a restart of the daemon frees all.
type hold struct {
	action action
	forced bool
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // valid when done is closed
}

func busy(a action) error { return errs.Busy("Instance is busy running a %q operation", string(a)) }

// take takes the lock, or returns the holder.
func (e *entry) take(ctx context.Context, a action, forced bool) (context.Context, *hold, *hold) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hold != nil {
		return nil, nil, e.hold
	}
	ctx, cancel := context.WithCancelCause(ctx)
	e.hold = &hold{action: a, forced: forced, cancel: cancel, done: make(chan struct{})}
	return ctx, e.hold, nil
}

func (e *entry) release(h *hold, err error) {
	e.mu.Lock()
	e.hold = nil
	e.mu.Unlock()
	h.err = err
	h.cancel(nil)
	close(h.done)
}

// held returns the action of the holder, "" when the lock is free.
func (e *entry) held() action {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hold == nil {
		return ""
	}
	return e.hold.action
}

// exclusive runs fn under the instance's lock. While another operation of the same kind runs, it waits for that one
// and returns its result; any other holder is an error of class Busy.
func (e *entry) exclusive(ctx context.Context, a action, fn func(ctx context.Context) error) error {
	hctx, h, holder := e.take(ctx, a, false)
	if h == nil {
		if holder.action == a && joins[a] {
			return holder.wait(ctx)
		}
		return busy(holder.action)
	}
	return e.under(hctx, h, fn)
}

// under runs fn and frees the lock whatever happens. A cancelled holder reports why it was cancelled.
func (e *entry) under(ctx context.Context, h *hold, fn func(ctx context.Context) error) (err error) {
	finished := false
	defer func() {
		if !finished {
			err = fmt.Errorf("the %q operation panicked", h.action)
		}
		e.release(h, err)
	}()
	err = fn(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	finished = true
	return err
}

func (h *hold) wait(ctx context.Context) error {
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// preemptWait is how long a cancelled holder may take to leave before a forced stop gives up on it.
const preemptWait = 30 * time.Second

// forced runs fn under the lock even when another operation holds it: the holder is cancelled, kill is called so that
// whatever it waits for ends, and it gets time to leave. When the instance is stopped by then, fn is not needed.
func (e *entry) forced(ctx context.Context, kill func() error, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, preemptWait)
	defer cancel()
	preempted := false
	for {
		hctx, h, holder := e.take(ctx, actStop, true)
		switch {
		case h != nil:
			if status, _ := e.now(); preempted && !isRunning(status) {
				e.release(h, nil)
				return nil
			}
			return e.under(hctx, h, fn)
		case holder.action == actStop && holder.forced:
			return holder.wait(ctx)
		case !yields[holder.action]:
			return busy(holder.action)
		}
		preempted = true
		holder.cancel(fmt.Errorf("%w the %q operation", errForced, string(holder.action)))
		if err := kill(); err != nil {
			return err
		}
		select {
		case <-holder.done:
		case <-ctx.Done():
			return fmt.Errorf("%w: the %q operation does not end", busy(holder.action), holder.action)
		}
	}
}

// want returns an error unless the instance is in one of the states.
func (e *entry) want(text string, states ...api.StatusCode) error {
	status, _ := e.now()
	for _, s := range states {
		if s == status {
			return nil
		}
	}
	return errs.Invalid("%s", text)
}
