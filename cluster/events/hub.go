package events

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
)

// QueueLen is how many frames a listener may be behind before it is dropped.
const QueueLen = 1024

// MaxListeners bounds the listeners of one hub.
const MaxListeners = 4096

// types are the event types; their order is that of the counters in Hub.
var types = []string{api.EventTypeOperation, api.EventTypeLifecycle, api.EventTypeLogging}

// Deps is what a hub needs.
type Deps struct {
	Clock    clock.Clock
	Location string // member name, "none" when unclustered
}

// Hub distributes events. Safe for concurrent use.
type Hub struct {
	d      Deps
	wanted [3]atomic.Int32 // listeners per type, in the order of types: nobody listens, nothing is encoded

	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed bool
}

// Filter says which events a listener wants.
type Filter struct {
	Types       []string // empty: all
	Project     api.ProjectName
	AllProjects bool
	// Sees limits the listener to the projects for which it is true, and takes away what belongs to no project; nil: no limit.
	Sees func(api.ProjectName) bool
	// Hidden are types that the listener does not get, also when it asks for them.
	Hidden []string
}

// Subscription is one listener.
type Subscription struct {
	hub    *Hub
	filter Filter
	types  [3]bool
	c      chan []byte
	err    error // set before c is closed
}

// New returns a hub without listeners.
func New(d Deps) (*Hub, error) {
	if d.Clock == nil {
		d.Clock = clock.Real{}
	}
	if d.Location == "" {
		d.Location = "none"
	}
	return &Hub{d: d, subs: map[*Subscription]struct{}{}}, nil
}

// Subscribe adds a listener. errs.Invalid for an unknown type, errs.Unavailable when the hub is closed or full.
func (h *Hub) Subscribe(f Filter) (*Subscription, error) {
	s := &Subscription{hub: h, filter: f, c: make(chan []byte, QueueLen)}
	for _, t := range f.Types {
		i := slices.Index(types, t)
		if i < 0 {
			return nil, errs.Invalid("Invalid event type %q: allowed are operation, lifecycle and logging", t)
		}
		s.types[i] = true
	}
	if len(f.Types) == 0 {
		s.types = [3]bool{true, true, true}
	}
	for _, t := range f.Hidden {
		if i := slices.Index(types, t); i >= 0 {
			s.types[i] = false
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errs.Unavailable("the daemon is shutting down")
	}
	if len(h.subs) >= MaxListeners {
		return nil, errs.Unavailable("too many event listeners (%d)", MaxListeners)
	}
	h.subs[s] = struct{}{}
	h.count(s, 1)
	return s, nil
}

func (h *Hub) count(s *Subscription, by int32) {
	for i, on := range s.types {
		if on {
			h.wanted[i].Add(by)
		}
	}
}

// C delivers encoded frames ([api.Event] as JSON); it is closed when the listener was dropped.
// Frames are shared between listeners: do not change them.
func (s *Subscription) C() <-chan []byte { return s.c }

// Err says why C was closed.
func (s *Subscription) Err() error {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.err
}

// Close removes the listener. Idempotent.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.drop(s, errs.Unavailable("the listener was closed"))
}

func (h *Hub) drop(s *Subscription, why error) {
	if _, ok := h.subs[s]; !ok {
		return
	}
	delete(h.subs, s)
	h.count(s, -1)
	s.err = why
	close(s.c)
}

// Close drops all listeners and refuses new ones.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		h.drop(s, errs.Unavailable("the daemon is shutting down"))
	}
}

// Wanted reports whether anybody listens to the type; publishers may skip costly work when not.
func (h *Hub) Wanted(eventType string) bool {
	i := slices.Index(types, eventType)
	return i >= 0 && h.wanted[i].Load() > 0
}

// Operation publishes the full object of an operation.
func (h *Hub) Operation(project api.ProjectName, o api.Operation) {
	h.publish(api.EventTypeOperation, project.String(), o)
}

// Lifecycle publishes an event: action such as "instance-started", source such as "/1.0/instances/c1".
// The requestor is taken from the context. It satisfies instance.Events.
func (h *Hub) Lifecycle(ctx context.Context, project api.ProjectName, action, source string, details map[string]any) {
	h.publish(api.EventTypeLifecycle, project.String(), api.EventLifecycle{
		Action: action, Source: source, Context: details, Requestor: caller.Requestor(ctx),
	})
}

// publish sends metadata to all listeners that want it. project "" goes to listeners of every project.
func (h *Hub) publish(eventType, project string, metadata any) {
	i := slices.Index(types, eventType)
	if h.wanted[i].Load() == 0 {
		return
	}
	meta, err := json.Marshal(metadata)
	if err != nil {
		return // values come from our own types; a context map with a channel in it is a bug of the publisher
	}
	frame, err := json.Marshal(api.Event{
		Type: eventType, Timestamp: h.d.Clock.Now(), Metadata: meta, Location: h.d.Location, Project: project,
	})
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if !s.types[i] || !s.filter.wantsProject(project) {
			continue
		}
		select {
		case s.c <- frame:
		default:
			h.drop(s, errs.Unavailable("the listener is too slow: more than %d events behind", QueueLen))
		}
	}
}

func (f Filter) wantsProject(project string) bool {
	if f.Sees != nil {
		if p, err := api.ParseProjectName(project); project == "" || err != nil || !f.Sees(p) {
			return false
		}
	}
	return f.AllProjects || project == "" || f.Project.IsZero() || f.Project.String() == project
}
