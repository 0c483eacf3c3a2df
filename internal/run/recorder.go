package run

import (
	"context"
	"os"
	"sync"
)

// Recorder is a Runner for tests of other rooms: it writes down what it was asked to run and answers
// with what Reply says. Commands that the host would refuse (see [Command.Validate]) are refused too. The
// zero value answers every command with an empty result.
type Recorder struct {
	// Reply answers a command; it may write to c.Stdout. Calls are serialised.
	Reply func(c Command) (Result, error)

	mu    sync.Mutex
	calls []Command
}

var _ Runner = (*Recorder)(nil)

// Run implements [Runner].
func (r *Recorder) Run(ctx context.Context, c Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
	if r.Reply == nil {
		return Result{}, nil
	}
	return r.Reply(c)
}

// Start implements [Runner]: the process has ended with Reply's error when Start returns; its PID is 0.
func (r *Recorder) Start(ctx context.Context, c Command) (Process, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	_, err := r.Run(ctx, c)
	return recorded{err}, nil
}

// Calls returns the argument vectors of all commands so far, in order.
func (r *Recorder) Calls() [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([][]string, len(r.calls))
	for i, c := range r.calls {
		out[i] = c.Argv()
	}
	return out
}

// Commands returns all commands so far, in order.
func (r *Recorder) Commands() []Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Command(nil), r.calls...)
}

type recorded struct{ err error }

func (recorded) PID() int               { return 0 }
func (p recorded) Wait() error          { return p.err }
func (recorded) Signal(os.Signal) error { return os.ErrProcessDone }
