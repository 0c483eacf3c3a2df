package events_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hub(t *testing.T) *events.Hub {
	t.Helper()
	h, err := events.New(events.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func infoLog() slog.Handler { return slog.NewTextHandler(io.Discard, nil) }

func subscribe(t *testing.T, h *events.Hub, f events.Filter) *events.Subscription {
	t.Helper()
	s, err := h.Subscribe(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// drain returns what is in the queue now; publishing is synchronous.
func drain(t *testing.T, s *events.Subscription) []api.Event {
	t.Helper()
	var out []api.Event
	for {
		select {
		case b, ok := <-s.C():
			if !ok {
				return out
			}
			var e api.Event
			if err := json.Unmarshal(b, &e); err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		default:
			return out
		}
	}
}

func project(t *testing.T, s string) api.ProjectName {
	t.Helper()
	p, err := api.ParseProjectName(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFilters(t *testing.T) {
	h := hub(t)
	foo := project(t, "foo")
	for name, c := range map[string]struct {
		filter events.Filter
		want   []string
	}{
		"all of the default project":  {events.Filter{Project: api.DefaultProject}, []string{"operation", "lifecycle", "logging"}},
		"operations":                  {events.Filter{Project: api.DefaultProject, Types: []string{"operation"}}, []string{"operation"}},
		"another project and the log": {events.Filter{Project: foo}, []string{"operation", "logging"}},
		"all projects":                {events.Filter{AllProjects: true, Types: []string{"operation"}}, []string{"operation", "operation"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := subscribe(t, h, c.filter)
			h.Operation(api.DefaultProject, api.Operation{ID: "1"})
			h.Operation(foo, api.Operation{ID: "2"})
			h.Lifecycle(context.Background(), api.DefaultProject, "instance-started", "/1.0/instances/c1", nil)
			slog.New(h.LogHandler(infoLog())).Info("hello")
			var got []string
			for _, e := range drain(t, s) {
				got = append(got, e.Type)
				if e.Location != "none" || e.Timestamp.IsZero() {
					t.Errorf("frame %+v", e)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
			s.Close()
		})
	}
	if _, err := h.Subscribe(events.Filter{Types: []string{"gossip"}}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("unknown type: %v", err)
	}
}

func TestLifecycleNamesTheRequestor(t *testing.T) {
	h := hub(t)
	s := subscribe(t, h, events.Filter{})
	ctx := caller.With(t.Context(), caller.Caller{Username: "root", Protocol: "unix", Address: "@"})
	h.Lifecycle(context.WithoutCancel(ctx), api.DefaultProject, "instance-started", "/1.0/instances/c1", map[string]any{"k": "v"})
	var l api.EventLifecycle
	if err := json.Unmarshal(drain(t, s)[0].Metadata, &l); err != nil {
		t.Fatal(err)
	}
	if l.Action != "instance-started" || l.Requestor == nil || *l.Requestor != (api.EventRequestor{Username: "root", Protocol: "unix", Address: "@"}) {
		t.Errorf("got %+v", l)
	}
}

func TestSlowListenersAreDroppedAndOthersAreNot(t *testing.T) {
	h := hub(t)
	slow := subscribe(t, h, events.Filter{})
	quick := subscribe(t, h, events.Filter{})
	n := 0
	for range events.QueueLen + 10 {
		h.Operation(api.DefaultProject, api.Operation{})
		n += len(drain(t, quick))
	}
	if n != events.QueueLen+10 {
		t.Errorf("the quick listener got %d", n)
	}
	if got := len(drain(t, slow)); got != events.QueueLen {
		t.Errorf("the slow listener got %d before it was dropped", got)
	}
	if _, open := <-slow.C(); open || slow.Err() == nil {
		t.Error("the slow listener was not dropped")
	}
	quick.Close()
	if h.Wanted(api.EventTypeOperation) {
		t.Error("nobody listens, yet events are wanted")
	}
}

func TestLogFramesCarryLevelAndFields(t *testing.T) {
	h := hub(t)
	s := subscribe(t, h, events.Filter{Types: []string{"logging"}})
	log := slog.New(h.LogHandler(infoLog())).With("instance", "c1").WithGroup("g").With("a", 1)
	log.Warn("trouble", "err", "x", slog.Group("in", "deep", true))
	log.Debug("detail")
	got := drain(t, s)
	if len(got) != 1 {
		t.Fatalf("got %d frames; a listener must not make the daemon log at debug level", len(got))
	}
	var l api.EventLogging
	if err := json.Unmarshal(got[0].Metadata, &l); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"instance": "c1", "g.a": "1", "g.err": "x", "g.in.deep": "true"}
	if l.Level != "warning" || l.Message != "trouble" || len(l.Context) != len(want) {
		t.Errorf("got %+v", l)
	}
	for k, v := range want {
		if l.Context[k] != v {
			t.Errorf("%s = %q, want %q", k, l.Context[k], v)
		}
	}
}

func TestCloseEndsEverySubscription(t *testing.T) {
	h := hub(t)
	s := subscribe(t, h, events.Filter{})
	h.Close()
	if _, open := <-s.C(); open {
		t.Error("still open")
	}
	if _, err := h.Subscribe(events.Filter{}); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("got %v", err)
	}
}
