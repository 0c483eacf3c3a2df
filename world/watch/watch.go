// Package watch is the World's one way to be told of changes: it says that something changed, and the reader looks what.
//
// A [Watch] gives exactly one first event, when it stands: what the reader reads then misses nothing that comes later. After each
// change comes at least one event; changes in quick succession share one, so a slow reader costs nothing and never sees an old one last.
// A broken connection, a member without a leader, forgotten revisions and a restored server are got over without the reader noticing more than
// an event too many. When a watch does end, its channel is closed and [Watch.Err] says why.
package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Source follows prefixes. A *kvstore.Hub is one, whose watches share one stream of the store; see also [Own].
type Source interface {
	NewWatcher(prefix string) (*kvstore.Watcher, error)
}

type own struct{ c *kvstore.Client }

func (o own) NewWatcher(prefix string) (*kvstore.Watcher, error) { return o.c.NewWatcher(prefix), nil }

// Own is a source that opens a stream of its own for each watch.
func Own(c *kvstore.Client) Source { return own{c} }

// Target is what is watched.
type Target struct {
	key   string
	exact bool
}

// Key watches one key.
func Key(key string) Target { return Target{key, true} }

// Prefix watches all keys that begin so.
func Prefix(prefix string) Target { return Target{prefix, false} }

// Watch is a subscription. Safe for concurrent use.
type Watch struct {
	c      chan struct{}
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu      sync.Mutex
	missing int // targets that have not been listed yet
	err     error
}

// errClosed is why a watch ends that its reader closed.
var errClosed = errs.Unavailable("the watch was closed")

// New begins to watch, until ctx ends or Close. It does not wait for the store: the first event says that the watch stands.
func New(ctx context.Context, src Source, targets ...Target) (*Watch, error) {
	if len(targets) == 0 {
		return nil, errs.Invalid("nothing to watch")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &Watch{c: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}), missing: len(targets)}
	watchers := make([]*kvstore.Watcher, len(targets))
	for i, t := range targets {
		var err error
		if watchers[i], err = src.NewWatcher(t.key); err != nil {
			cancel(err)
			return nil, fmt.Errorf("watch %s: %w", t.key, err)
		}
	}
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { w.fail(w.follow(ctx, src, watchers[i], t)) })
	}
	go func() {
		wg.Wait()
		close(w.c)
		close(w.done)
	}()
	return w, nil
}

// C brings the events. It is closed when the watch has ended.
func (w *Watch) C() <-chan struct{} { return w.c }

// Err says why the watch ended; nil while it has not. The end of the context gives its cause.
func (w *Watch) Err() error {
	select {
	case <-w.done:
		return w.err
	default:
		return nil
	}
}

// Close ends the watch and waits for it.
func (w *Watch) Close() {
	w.cancel(errClosed)
	<-w.done
}

// follow runs one target's watcher.
func (w *Watch) follow(ctx context.Context, src Source, from *kvstore.Watcher, t Target) error {
	listed := false
	for {
		err := from.Run(ctx, func(b kvstore.Batch) error {
			switch {
			case b.ListDone && !listed:
				listed = true
				w.stands()
			case listed && (b.Reset || t.in(b.Events)):
				w.poke()
			}
			return nil
		})
		if !errors.Is(err, kvstore.ErrSlow) || ctx.Err() != nil {
			return err
		}
		// A burst was larger than the queue: begin again, and have the reader look.
		if from, err = src.NewWatcher(t.key); err != nil {
			return err
		}
		w.poke()
	}
}

// in says whether one of the events is about the target.
func (t Target) in(events []kvstore.Event) bool {
	if !t.exact {
		return len(events) > 0
	}
	for _, e := range events {
		if e.KV.Key == t.key {
			return true
		}
	}
	return false
}

// stands notes that one more target is followed; the last one makes the first event.
func (w *Watch) stands() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missing--; w.missing == 0 {
		w.send()
	}
}

// poke makes an event, unless the first one is still to come.
func (w *Watch) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.missing == 0 {
		w.send()
	}
}

func (w *Watch) send() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// fail ends all targets with the first error.
func (w *Watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel(err)
	}
}
