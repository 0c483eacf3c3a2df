package op_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// heard collects what listeners would get.
type heard struct {
	mu  sync.Mutex
	ops []api.Operation
}

func (h *heard) Operation(_ api.ProjectName, o api.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

func (h *heard) all() []api.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]api.Operation(nil), h.ops...)
}

func registry(t *testing.T) (*op.Registry, *heard) {
	t.Helper()
	h := &heard{}
	r, err := op.New(op.Deps{Events: h, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return r, h
}

func wait(t *testing.T, r *op.Registry, id string) api.Operation {
	t.Helper()
	it, err := r.Wait(t.Context(), id, -1)
	if err != nil {
		t.Fatal(err)
	}
	return it.Operation
}

func TestListenersHearEveryChangeAndTheFinalOne(t *testing.T) {
	r, h := registry(t)
	o, err := r.Start(t.Context(), op.Spec{
		Description: "Creating instance", Metadata: map[string]any{"a": 1},
		Run: func(_ context.Context, o op.Handle) error { o.SetMetadata(map[string]any{"b": 2}); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.StatusCode != api.Running || o.Class != "task" {
		t.Errorf("at start: %+v", o)
	}
	last := wait(t, r, o.ID)
	if last.StatusCode != api.Success || last.Status != "Success" || last.Err != "" {
		t.Errorf("at the end: %+v", last)
	}
	events := h.all()
	if len(events) != 3 {
		t.Fatalf("heard %d events, want running, metadata, success: %+v", len(events), events)
	}
	if len(events[0].Metadata) != 1 || len(events[1].Metadata) != 2 {
		t.Errorf("an event shows metadata that was set later: %v", events)
	}
	if events[2].StatusCode != api.Success || events[2].ID != o.ID || events[2].MayCancel {
		t.Errorf("final event: %+v", events[2])
	}
}

func TestFailuresShowTheirText(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(context.Context, op.Handle) error
		want string
	}{
		"error": {func(context.Context, op.Handle) error { return errs.Invalid("no such thing") }, "no such thing"},
		"panic": {func(context.Context, op.Handle) error { var m map[string]int; m["x"] = 1; return nil }, "internal error in operation"},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := registry(t)
			o, err := r.Start(t.Context(), op.Spec{Run: c.run})
			if err != nil {
				t.Fatal(err)
			}
			last := wait(t, r, o.ID)
			if last.StatusCode != api.Failure || !strings.Contains(last.Err, c.want) {
				t.Errorf("got %d %q, want failure with %q", last.StatusCode, last.Err, c.want)
			}
			if all := h.all(); all[len(all)-1].StatusCode != api.Failure {
				t.Error("the final event is missing")
			}
		})
	}
}

func TestFinalOperationsCanBeReadForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := registry(t)
		o, err := r.Start(t.Context(), op.Spec{Run: func(context.Context, op.Handle) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		wait(t, r, o.ID)
		time.Sleep(op.KeepFinal - time.Second)
		if _, err := r.Get(o.ID); err != nil {
			t.Errorf("gone before its time: %v", err)
		}
		if len(r.List(api.DefaultProject)) != 1 {
			t.Error("not in the list")
		}
		time.Sleep(2 * time.Second)
		if _, err := r.Get(o.ID); !errs.IsNotFound(err) || err.Error() != "Operation not found" {
			t.Errorf("still there: %v", err)
		}
	})
}

func TestTheRequestDoesNotOwnTheOperation(t *testing.T) {
	r, _ := registry(t)
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "who asked"))
	release := make(chan struct{})
	o, err := r.Start(ctx, op.Spec{Run: func(ctx context.Context, _ op.Handle) error {
		<-release
		if ctx.Err() != nil || ctx.Value(key{}) != "who asked" {
			return errors.New("the context ended with the request or lost its values")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	close(release)
	if last := wait(t, r, o.ID); last.StatusCode != api.Success {
		t.Error(last.Err)
	}
}

func untilDone(ctx context.Context, _ op.Handle) error { <-ctx.Done(); return ctx.Err() }

func TestCancel(t *testing.T) {
	r, _ := registry(t)
	fixed, err := r.Start(t.Context(), op.Spec{Run: untilDone})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Cancel(fixed.ID); !errs.Is(err, errs.InvalidInput) || err.Error() != "This operation can't be cancelled" {
		t.Errorf("cancelled what cannot be cancelled: %v", err)
	}
	o, err := r.Start(t.Context(), op.Spec{Cancellable: true, Run: untilDone})
	if err != nil {
		t.Fatal(err)
	}
	if !o.MayCancel {
		t.Error("may_cancel is false")
	}
	if err := r.Cancel(o.ID); err != nil {
		t.Fatal(err)
	}
	if last := wait(t, r, o.ID); last.StatusCode != api.Cancelled || last.Err == "" {
		t.Errorf("got %+v", last)
	}
	if err := r.Cancel(o.ID); err == nil {
		t.Error("cancelled a final operation")
	}
}

func TestStopEndsWhatRunsAndRefusesMore(t *testing.T) {
	r, h := registry(t)
	o, err := r.Start(t.Context(), op.Spec{Run: untilDone})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := h.all()
	if last := all[len(all)-1]; last.ID != o.ID || last.StatusCode != api.Failure || last.Err != op.ErrStopping.Error() {
		t.Errorf("final event %+v", last)
	}
	if _, err := r.Start(t.Context(), op.Spec{Run: untilDone}); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("started while stopping: %v", err)
	}
}

func TestWaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := registry(t)
		o, err := r.Start(t.Context(), op.Spec{Run: untilDone})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		it, err := r.Wait(t.Context(), o.ID, 3*time.Second)
		if err != nil || it.Operation.StatusCode != api.Running || time.Since(began) != 3*time.Second {
			t.Errorf("got %v, %v after %v", it.Operation.StatusCode, err, time.Since(began))
		}
	})
}

// line is a Socket for tests.
type line struct {
	closed chan struct{}
	once   sync.Once
}

func newLine() *line                                         { return &line{closed: make(chan struct{})} }
func (l *line) Read([]byte) (int, error)                     { <-l.closed; return 0, io.EOF }
func (l *line) Write(p []byte) (int, error)                  { return len(p), nil }
func (l *line) Close() error                                 { l.once.Do(func() { close(l.closed) }); return nil }
func (l *line) ReadText(ctx context.Context) ([]byte, error) { return nil, io.EOF }
func (l *line) accept(t *testing.T, want string) func(string) (op.Socket, error) {
	return func(name string) (op.Socket, error) {
		if name != want {
			t.Errorf("upgraded %q, want %q", name, want)
		}
		return l, nil
	}
}

func never(t *testing.T) func(string) (op.Socket, error) {
	return func(string) (op.Socket, error) { t.Error("upgraded a bad secret"); return nil, nil }
}

func TestSecretsAreShownOnceAndWorkOnce(t *testing.T) {
	r, h := registry(t)
	got := make(chan op.Socket, 1)
	o, err := r.Start(t.Context(), op.Spec{Class: op.Websocket, Sockets: []string{"0", "control"},
		Metadata: map[string]any{"command": "x"},
		Run: func(ctx context.Context, o op.Handle) error {
			s, err := o.Socket(ctx, "0")
			got <- s
			if err != nil {
				return err
			}
			return untilDone(ctx, o)
		}})
	if err != nil {
		t.Fatal(err)
	}
	fds := o.Metadata["fds"].(map[string]any)
	secret, control := fds["0"].(string), fds["control"].(string)
	if len(secret) != 64 || secret == control {
		t.Fatalf("weak secrets %v", fds)
	}
	for name, bad := range map[string]string{"empty": "", "wrong": strings.Repeat("0", 64), "prefix": secret[:63], "longer": secret + "0"} {
		if err := r.Connect(o.ID, bad, never(t)); !errs.Is(err, errs.Denied) {
			t.Errorf("%s secret: %v", name, err)
		}
	}
	sock := newLine()
	if err := r.Connect(o.ID, secret, sock.accept(t, "0")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != op.Socket(sock) {
		t.Error("Run got another socket")
	}
	if err := r.Connect(o.ID, secret, never(t)); !errs.Is(err, errs.Denied) {
		t.Errorf("secret worked twice: %v", err)
	}
	it, err := r.Get(o.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, seen := range append(h.all(), it.Operation) {
		if b, _ := json.Marshal(seen); strings.Contains(string(b), secret) || strings.Contains(string(b), control) {
			t.Errorf("others see the secret: %s", b)
		}
	}
	if err := r.Cancel(o.ID); err == nil {
		t.Error("cancelled a connected websocket operation")
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-sock.closed
}

func TestSecretsExpireAndWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := registry(t)
		o, err := r.Start(t.Context(), op.Spec{Class: op.Websocket, Sockets: []string{"0"}, Run: untilDone})
		if err != nil {
			t.Fatal(err)
		}
		secret := o.Metadata["fds"].(map[string]any)["0"].(string)
		time.Sleep(op.SecretLife + time.Second)
		if err := r.Connect(o.ID, secret, never(t)); !errs.Is(err, errs.Denied) {
			t.Errorf("expired secret: %v", err)
		}
		if err := r.Cancel(o.ID); err != nil {
			t.Errorf("nobody is connected, yet: %v", err)
		}
		o, err = r.Start(t.Context(), op.Spec{Class: op.Websocket, Sockets: []string{"0"}, Run: func(ctx context.Context, o op.Handle) error {
			began := time.Now()
			_, err := o.Socket(ctx, "0")
			if time.Since(began) != op.ConnectWait {
				t.Errorf("waited %v", time.Since(began))
			}
			return err
		}})
		if err != nil {
			t.Fatal(err)
		}
		secret = o.Metadata["fds"].(map[string]any)["0"].(string)
		if last := wait(t, r, o.ID); last.StatusCode != api.Failure || !strings.Contains(last.Err, "not connected within 5s") {
			t.Errorf("got %+v", last)
		}
		if err := r.Connect(o.ID, secret, never(t)); err == nil {
			t.Error("connected to a final operation")
		}
	})
}

func TestAFailedUpgradeReachesRun(t *testing.T) {
	r, _ := registry(t)
	o, err := r.Start(t.Context(), op.Spec{Class: op.Websocket, Sockets: []string{"0"}, Run: func(ctx context.Context, o op.Handle) error {
		_, err := o.Socket(ctx, "0")
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("client hung up")
	secret := o.Metadata["fds"].(map[string]any)["0"].(string)
	if err := r.Connect(o.ID, secret, func(string) (op.Socket, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if last := wait(t, r, o.ID); last.Err != broken.Error() {
		t.Errorf("got %+v", last)
	}
}
