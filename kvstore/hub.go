package kvstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// ErrSlow ends a watcher of a Hub whose consumer did not keep up.
var ErrSlow = errs.Unavailable("the watcher did not keep up and was cut off")

// Hub follows one prefix with one stream of the store and serves any number of watchers below it, so that the store sends each change
// once to a process. Safe for concurrent use.
//
// What a watcher's consumer has not taken yet waits in a queue that keeps the newest event of each key; a watcher whose queue has more keys than
// Pending is cut off with ErrSlow, and the others notice nothing. A broken connection is resumed without them noticing either. When the
// past is compacted or the store replaced they list again, as Watcher says.
type Hub struct {
	c       *Client
	ctx     context.Context // ends with Close and with the client
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has ended
	prefix  string
	pending int
	stream  atomic.Pointer[Stream]

	mu      sync.Mutex
	subs    map[string][]*subscription // by prefix
	lengths []int                      // of the prefixes that have subscriptions, ascending
	stands  chan struct{}              // closed while the stream stands
	at      Header                     // up to which everything has been handed out
	closed  bool
}

// HubConfig configures a Hub.
type HubConfig struct {
	Prefix  string // what is followed
	Pending int    // keys that may wait for one watcher; 0 means 10,000
}

// NewHub begins to follow, until Close or the end of the client.
func (c *Client) NewHub(cfg HubConfig) *Hub {
	if cfg.Pending <= 0 {
		cfg.Pending = 10_000
	}
	h := &Hub{c: c, prefix: cfg.Prefix, pending: cfg.Pending, subs: map[string][]*subscription{}, stands: make(chan struct{}), done: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(c.ctx)
	if !c.spawn(h.run) {
		h.closed = true
		h.cancel()
		close(h.done)
	}
	return h
}

// Close ends the stream, and all watchers of the hub with ErrClosed. It returns when the hub does nothing any more.
func (h *Hub) Close() {
	h.cancel()
	<-h.done
}

// NewWatcher returns a watcher of all keys with the prefix, which must begin with the hub's.
func (h *Hub) NewWatcher(prefix string) (*Watcher, error) {
	if !strings.HasPrefix(prefix, h.prefix) {
		return nil, errs.Invalid("prefix %q is not below %q, which is followed", prefix, h.prefix)
	}
	w := h.c.NewWatcher(prefix)
	w.hub = h
	return w, nil
}

// run keeps the stream up.
func (h *Hub) run() {
	const first = 20 * time.Millisecond
	back := first
	defer close(h.done)
	for h.ctx.Err() == nil {
		was := h.at.Revision
		err := h.follow()
		if h.ctx.Err() != nil || errors.Is(err, ErrClosed) {
			break
		}
		if errors.Is(err, ErrCompacted) || errors.Is(err, errStale) {
			h.restart(err)
		} else if h.at.Revision > was {
			back = first
		}
		h.c.cfg.Log.Debug("watch interrupted", "prefix", h.prefix, "err", err, "retry", back)
		select {
		case <-h.ctx.Done():
		case <-time.After(back/2 + rand.N(back)):
		}
		back = min(back*2, 5*time.Second)
	}
	h.cancel() // also when the store was closed under the client: nobody waits for it to stand
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.restart(ErrClosed)
}

// follow hands out what one stream brings.
func (h *Hub) follow() error {
	ctx, cancel := context.WithCancelCause(h.ctx)
	checked := make(chan struct{})
	defer func() { cancel(nil); <-checked }()
	from := h.at.Revision
	if from > 0 {
		from++
	}
	s := h.c.Watch(ctx, h.prefix, from)
	h.stream.Store(&s)
	defer h.stream.Store(nil)
	var seen atomic.Int64
	seen.Store(h.at.Revision)
	begun := false
	defer func() {
		if !begun {
			close(checked)
		}
	}()
	for {
		if !begun && h.at.Cluster != 0 {
			begun = true
			cluster := h.at.Cluster
			go func() { defer close(checked); h.c.check(ctx, cancel, h.prefix, cluster, &seen) }()
		}
		r, err := s.Next()
		if cause := context.Cause(ctx); errors.Is(cause, errStale) {
			return cause
		}
		if err != nil {
			return err
		}
		if h.at.Cluster != 0 && r.Cluster != h.at.Cluster {
			return errStale
		}
		h.dispatch(r)
		seen.Store(r.Revision)
	}
}

// dispatch puts events into the queues of those who watch them. Only run calls it, which alone writes h.at.
func (h *Hub) dispatch(r WatchResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.stands:
	default:
		close(h.stands)
	}
	if r.Revision < h.at.Revision {
		return
	}
	h.at = r.Header
	for _, e := range r.Events {
		for _, n := range h.lengths {
			if n > len(e.KV.Key) {
				break
			}
			for _, s := range h.subs[e.KV.Key[:n]] {
				s.add(e)
			}
		}
	}
	for _, subs := range h.subs {
		for _, s := range slices.Clone(subs) {
			switch {
			case len(s.events) > h.pending:
				h.c.m.watcherCut()
				h.c.cfg.Log.Warn("a watcher did not keep up and was cut off", "prefix", s.prefix, "pending", len(s.events))
				s.end(ErrSlow)
			case len(s.events) > 0 || s.mark:
				s.poke()
			}
		}
	}
}

// restart ends all subscriptions with err and begins from now on.
func (h *Hub) restart(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, subs := range h.subs {
		for _, s := range slices.Clone(subs) {
			s.end(err)
		}
	}
	h.at = Header{}
	select {
	case <-h.stands:
		h.stands = make(chan struct{})
	default:
	}
}

// subscription is one watcher's queue. Its fields are under the hub's lock.
type subscription struct {
	h      *Hub
	ctx    context.Context
	prefix string
	from   int64
	events map[string]Event
	mark   bool // a progress mark was asked for
	err    error
	wake   chan struct{}
}

// subscribe begins to queue events, when the stream stands: a list that is made afterwards leaves no gap.
func (h *Hub) subscribe(ctx context.Context, prefix string) (*subscription, error) {
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, ErrClosed
		}
		stands := h.stands
		select {
		case <-stands:
			s := &subscription{h: h, ctx: ctx, prefix: prefix, events: map[string]Event{}, wake: make(chan struct{}, 1)}
			h.subs[prefix] = append(h.subs[prefix], s)
			if i, ok := slices.BinarySearch(h.lengths, len(prefix)); !ok {
				h.lengths = slices.Insert(h.lengths, i, len(prefix))
			}
			h.mu.Unlock()
			return s, nil
		default:
		}
		h.mu.Unlock()
		select {
		case <-stands:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-h.ctx.Done():
			return nil, ErrClosed
		}
	}
}

func (s *subscription) add(e Event) {
	if e.KV.ModRevision >= s.from {
		s.events[e.KV.Key] = e
	}
}

func (s *subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end takes the subscription off the hub. The caller holds the hub's lock.
func (s *subscription) end(err error) {
	if s.err != nil {
		return
	}
	s.err, s.events = err, nil
	h := s.h
	left := slices.DeleteFunc(slices.Clone(h.subs[s.prefix]), func(x *subscription) bool { return x == s })
	if h.subs[s.prefix] = left; len(left) == 0 {
		delete(h.subs, s.prefix)
	}
	h.lengths = h.lengths[:0]
	for p := range h.subs {
		if i, ok := slices.BinarySearch(h.lengths, len(p)); !ok {
			h.lengths = slices.Insert(h.lengths, i, len(p))
		}
	}
	s.poke()
}

func (s *subscription) stop() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.end(context.Canceled)
}

// start drops what is before revision from, which the list has shown.
func (s *subscription) start(from int64) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.from = from
	for k, e := range s.events {
		if e.KV.ModRevision < from {
			delete(s.events, k)
		}
	}
	s.poke()
}

// Next implements Stream.
func (s *subscription) Next() (WatchResponse, error) {
	for {
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return WatchResponse{}, s.ctx.Err()
		}
		s.h.mu.Lock()
		if s.err != nil {
			s.h.mu.Unlock()
			return WatchResponse{}, s.err
		}
		if len(s.events) == 0 && !s.mark {
			s.h.mu.Unlock()
			continue
		}
		r := WatchResponse{Header: s.h.at, Events: make([]Event, 0, len(s.events))}
		for _, e := range s.events {
			r.Events = append(r.Events, e)
		}
		s.events, s.mark = map[string]Event{}, false
		s.h.mu.Unlock()
		slices.SortFunc(r.Events, func(a, b Event) int {
			if d := a.KV.ModRevision - b.KV.ModRevision; d != 0 {
				return int(d)
			}
			return strings.Compare(a.KV.Key, b.KV.Key)
		})
		return r, nil
	}
}

// RequestProgress implements Stream.
func (s *subscription) RequestProgress(ctx context.Context) error {
	s.h.mu.Lock()
	s.mark = true
	s.h.mu.Unlock()
	if up := s.h.stream.Load(); up != nil {
		if err := (*up).RequestProgress(ctx); err != nil {
			return fmt.Errorf("request progress: %w", err)
		}
	}
	return nil
}
