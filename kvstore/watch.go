package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Batch is what a watcher hands over at a time.
type Batch struct {
	Events []Event
	// Revision up to which everything has been handed over; 0 while pages of a list are coming.
	Revision int64
	// ListDone ends a list: the first one, and each later one that became necessary.
	ListDone bool
	// Reset comes with the first page of a list that was made because the store is another one or has gone back in time: what the
	// consumer has seen may never have happened. All keys are reported again.
	Reset bool
}

// Watcher lists a prefix and then follows it, for as long as Run runs.
//
// The first list is reported as Created events, page by page, closed by a batch with ListDone. Then each change is reported once, in
// order. When the connection breaks the watch goes on at the next revision. When that has been compacted, the
// prefix is listed again and only the difference is reported: Created, Modified (the ModRevision differs) and
// Deleted, the latter without the intermediate states. The same happens, with Reset, when the store was restored: etcd's client goes on silently
// against another history, so cluster id and revision are compared every CheckInterval.
type Watcher struct {
	c      *Client
	prefix string
	seen   seen   // what the consumer knows
	rev    int64  // up to which the consumer knows everything; 0 before the first list
	at     uint64 // cluster id of rev
	stream atomic.Pointer[Stream]
	hub    *Hub          // nil: a stream of its own
	resync bool          // list again instead of ending with ErrSlow
	sub    *subscription // of the hub, from before the list on

	lists atomic.Int64
}

// NewWatcher returns a watcher of all keys with the prefix.
func (c *Client) NewWatcher(prefix string) *Watcher {
	return &Watcher{c: c, prefix: prefix, seen: seen{}}
}

// Lists counts how often the prefix was listed.
func (w *Watcher) Lists() int64 { return w.lists.Load() }

// RequestProgress asks for a batch that carries a newer revision although no key under the prefix changed.
func (w *Watcher) RequestProgress(ctx context.Context) error {
	if s := w.stream.Load(); s != nil {
		return (*s).RequestProgress(ctx)
	}
	return nil // between two streams; the next one starts with a list or a resume
}

// Resync has a watcher of a [Hub] list again when it did not keep up, instead of ending with ErrSlow: the difference is reported as after a
// compaction. Call it before Run.
func (w *Watcher) Resync() { w.resync = true }

// errStale says that the store is not the one that was listed.
var errStale = errors.New("the store was replaced or restored")

// Run reports to fn until ctx ends, the client is closed, or fn returns an error, and returns why. fn runs in Run's goroutine, and
// nothing is read ahead of it but what one response of the store holds, the next page while a list is made. Run is called once.
func (w *Watcher) Run(ctx context.Context, fn func(Batch) error) error {
	const first = 20 * time.Millisecond
	back := first
	list, reset := true, false
	for {
		var err error
		if list && w.hub != nil {
			if w.sub, err = w.hub.subscribe(ctx, w.prefix); err == nil {
				defer w.sub.stop()
			}
		}
		if list && err == nil {
			if err = w.list(ctx, fn, reset); err == nil {
				list, reset, back = false, false, first
			} else if w.hub != nil {
				w.sub.stop()
			}
		}
		if err == nil {
			before := w.rev
			err = w.follow(ctx, fn)
			if w.rev > before {
				back = first
			}
			switch {
			case errors.Is(err, errStale):
				list, reset = true, true
			case errors.Is(err, ErrCompacted), w.resync && errors.Is(err, ErrSlow):
				list = true
			}
		}
		var stop stopError
		switch {
		case errors.As(err, &stop):
			return stop.error
		case ctx.Err() != nil:
			return fmt.Errorf("watch %s: %w", w.prefix, context.Cause(ctx))
		case errors.Is(err, ErrClosed), !w.resync && errors.Is(err, ErrSlow):
			return fmt.Errorf("watch %s: %w", w.prefix, err)
		}
		w.c.cfg.Log.Debug("watch interrupted", "prefix", w.prefix, "err", err, "list", list, "retry", back)
		select {
		case <-ctx.Done():
		case <-time.After(back/2 + rand.N(back)): // every way back to a list waits, with jitter
		}
		back = min(back*2, 5*time.Second)
	}
}

// stopError marks an error of the consumer.
type stopError struct{ error }

func (w *Watcher) emit(fn func(Batch) error, b Batch) error {
	if err := fn(b); err != nil {
		return stopError{err}
	}
	return nil
}

// list reads the prefix and reports what differs from what the consumer knows.
func (w *Watcher) list(ctx context.Context, fn func(Batch) error, reset bool) error {
	switch n := w.lists.Add(1); {
	case reset:
		w.c.m.list("restored")
	case n > 1:
		w.c.m.list("compacted") // or cut off by a hub
	default:
		w.c.m.list("first")
	}
	first := true
	var listed seen
	head, err := w.c.list(ctx, w.prefix, true, func(kvs []KeyValue) error {
		b := Batch{Reset: reset && first}
		first = false
		now := make([]entry, 0, len(kvs))
		b.Events = make([]Event, 0, len(kvs))
		for _, kv := range kvs {
			old := w.seen.get(kv.Key)
			now = append(now, entry{kv.Key, kv.ModRevision})
			switch {
			case old == 0:
				b.Events = append(b.Events, Event{Created, kv})
			case reset || old != kv.ModRevision:
				b.Events = append(b.Events, Event{Modified, kv})
			}
		}
		listed.add(now)
		if len(b.Events) == 0 && !b.Reset {
			return nil
		}
		return w.emit(fn, b)
	})
	if err != nil {
		listed.each(func(key string) { w.seen.set(key, listed.get(key)) }) // a list that broke off must not report these as new again
		return err
	}
	done := Batch{Revision: head.Revision, ListDone: true}
	w.seen.each(func(key string) {
		if listed.get(key) == 0 {
			done.Events = append(done.Events, Event{Deleted, KeyValue{Key: key, ModRevision: head.Revision}})
		}
	})
	w.seen, w.rev, w.at = listed, head.Revision, head.Cluster
	return w.emit(fn, done)
}

// follow reports changes after w.rev until something goes wrong.
func (w *Watcher) follow(ctx context.Context, fn func(Batch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	checked := make(chan struct{})
	defer func() { cancel(nil); <-checked }()
	var s Stream
	var seen atomic.Int64
	seen.Store(w.rev)
	if w.hub != nil {
		w.sub.start(w.rev + 1)
		s = w.sub
		close(checked) // the hub does it
	} else {
		s = w.c.Watch(ctx, w.prefix, w.rev+1)
		go func() {
			defer close(checked)
			w.c.check(ctx, cancel, w.prefix, w.at, &seen)
		}()
	}
	w.stream.Store(&s)
	defer w.stream.Store(nil)
	for {
		r, err := s.Next()
		if cause := context.Cause(ctx); errors.Is(cause, errStale) {
			return cause
		}
		if err != nil {
			return err
		}
		if r.Cluster != w.at {
			return errStale
		}
		if r.Revision <= w.rev {
			continue // a progress mark that says nothing new
		}
		if w.hub != nil {
			r.Events = w.relative(r.Events)
		}
		for _, e := range r.Events {
			if e.Type == Deleted {
				w.seen.set(e.KV.Key, 0)
			} else {
				w.seen.set(e.KV.Key, e.KV.ModRevision)
			}
		}
		w.rev = r.Revision
		seen.Store(w.rev)
		if err := w.emit(fn, Batch{Events: r.Events, Revision: r.Revision}); err != nil {
			return err
		}
	}
}

// relative makes of what a queue kept, the newest event of each key, what is new to the consumer.
func (w *Watcher) relative(events []Event) []Event {
	out := events[:0]
	for _, e := range events {
		known := w.seen.get(e.KV.Key) != 0
		switch {
		case e.Type == Deleted && !known:
			continue // it came and went unseen
		case e.Type != Deleted && known:
			e.Type = Modified
		case e.Type != Deleted:
			e.Type = Created
		}
		out = append(out, e)
	}
	return out
}

// check ends the stream when the store that answers is not the one that the stream began with.
func (c *Client) check(ctx context.Context, cancel context.CancelCauseFunc, prefix string, cluster uint64, seen *atomic.Int64) {
	t := time.NewTicker(c.cfg.CheckInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		have := seen.Load()
		h, err := c.Head(ctx)
		if err == nil && (h.Cluster != cluster || h.Revision < have) {
			c.cfg.Log.Warn("the database was replaced or restored, reading everything again", "prefix", prefix, "had", have, "has", h.Revision)
			cancel(errStale)
			return
		}
	}
}
