package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/lifecycle"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trace notes what happened in which order.
type trace struct {
	mu   sync.Mutex
	what []string
}

func (tr *trace) add(s string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.what = append(tr.what, s)
}

func (tr *trace) list() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.what)
}

// well is a service that takes a second to start and another to stop.
func (tr *trace) well(name string) lifecycle.Service {
	return lifecycle.Service{Name: name, Run: func(ctx context.Context, ready func()) error {
		time.Sleep(time.Second) // synctest's clock
		tr.add("ready " + name)
		ready()
		<-ctx.Done()
		time.Sleep(time.Second)
		tr.add("stop " + name)
		return ctx.Err()
	}}
}

func newGroup() *lifecycle.Group { return lifecycle.New(slog.New(slog.DiscardHandler)) }

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		ctx, cancel := context.WithCancel(t.Context())
		g := newGroup()
		err := g.Run(ctx, func() { tr.add("all ready"); cancel() }, tr.well("a"), tr.well("b"), tr.well("c"))
		want := []string{"ready a", "ready b", "ready c", "all ready", "stop c", "stop b", "stop a"}
		if err != nil || !slices.Equal(tr.list(), want) {
			t.Errorf("%v, %v", tr.list(), err)
		}
		if s := g.States(); len(s) != 3 || s[0].Name != "a" || !s[0].Ready {
			t.Errorf("states %+v", s)
		}
	})
}

func TestStartFailureStopsTheOthers(t *testing.T) {
	broken := errors.New("no such disk")
	for _, tt := range []struct {
		name string
		run  func(context.Context, func()) error
		want string
	}{
		{"error", func(context.Context, func()) error { return broken }, "start bad: no such disk"},
		{"nil too early", func(context.Context, func()) error { return nil }, "start bad: ended before it was ready"},
		{"panic", func(context.Context, func()) error { panic("oops") }, "start bad: panic: oops"},
		{"never ready", func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }, "start bad: not ready after 1m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &trace{}
				err := newGroup().Run(t.Context(), func() { tr.add("all ready") },
					tr.well("a"), lifecycle.Service{Name: "bad", Run: tt.run, Restart: true}, tr.well("c"))
				if err == nil || err.Error() != tt.want || !slices.Equal(tr.list(), []string{"ready a", "stop a"}) {
					t.Errorf("%v, %v", tr.list(), err)
				}
			})
		})
	}
}

func TestFailureWithoutRestartEndsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		err := newGroup().Run(t.Context(), func() {}, tr.well("a"), lifecycle.Service{Name: "b", Run: func(_ context.Context, ready func()) error {
			ready()
			time.Sleep(time.Hour)
			return errors.New("lost")
		}})
		if err == nil || err.Error() != "b: lost" || !slices.Equal(tr.list(), []string{"ready a", "stop a"}) {
			t.Errorf("%v, %v", tr.list(), err)
		}
	})
}

func TestDoneIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begun := time.Now()
		err := newGroup().Run(ctx, func() {}, lifecycle.Service{Name: "cleanup", Run: func(_ context.Context, ready func()) error { ready(); return nil }})
		if err != nil || time.Since(begun) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestRestartBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begun := time.Now()
		var starts []time.Duration
		g := newGroup()
		var seen []lifecycle.State
		err := g.Run(ctx, func() {}, lifecycle.Service{Name: "b", Restart: true, Run: func(ctx context.Context, ready func()) error {
			starts = append(starts, time.Since(begun))
			seen = append(seen, g.States()[0])
			ready()
			switch len(starts) {
			case 8: // a calm time: the pause begins at a second again
				time.Sleep(2 * time.Minute)
			case 9:
				cancel()
				<-ctx.Done()
				return nil
			}
			panic("again")
		}})
		s := time.Second
		want := []time.Duration{0, 1 * s, 3 * s, 7 * s, 15 * s, 31 * s, 61 * s, 91 * s, 91*s + 2*time.Minute + s}
		if err != nil || !slices.Equal(starts, want) {
			t.Errorf("%v, %v", starts, err)
		}
		if f := seen[7].Failures; f != 7 || seen[7].Ready || seen[7].Err == nil {
			t.Errorf("before the calm: %+v", seen[7])
		}
		if f := seen[8].Failures; f != 1 {
			t.Errorf("after the calm: %+v", seen[8])
		}
	})
}

func TestAHangingServiceDoesNotStopTheOthersFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		ctx, cancel := context.WithCancel(t.Context())
		begun := time.Now()
		hang := make(chan struct{})
		err := newGroup().Run(ctx, cancel, tr.well("a"), lifecycle.Service{Name: "b", StopBudget: 3 * time.Second, Run: func(_ context.Context, ready func()) error {
			ready()
			<-hang
			return nil
		}})
		if err == nil || !strings.Contains(err.Error(), "stop b: still running after 3s") || !slices.Equal(tr.list(), []string{"ready a", "stop a"}) {
			t.Errorf("%v, %v", tr.list(), err)
		}
		if d := time.Since(begun); d != 5*time.Second {
			t.Errorf("took %v", d)
		}
		close(hang)
	})
}

func TestEndOfContextDuringStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trace{}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		err := newGroup().Run(ctx, func() { tr.add("all ready") }, tr.well("a"), tr.well("b"), tr.well("c"))
		if err != nil || slices.Contains(tr.list(), "all ready") || slices.Contains(tr.list(), "stop c") || tr.list()[len(tr.list())-1] != "stop a" {
			t.Errorf("%v, %v", tr.list(), err)
		}
	})
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	lifecycle.NotifyStatus("loading")
	lifecycle.NotifyReady()
	lifecycle.NotifyStopping()
	buf := make([]byte, 100)
	for _, want := range []string{"STATUS=loading", "READY=1", "STOPPING=1"} {
		if n, err := conn.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("got %q, %v, want %q", buf[:n], err, want)
		}
	}
}
