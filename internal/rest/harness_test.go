package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/config"
	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/rest"
	"github.com/shoal-project/shoal/internal/state"
)

func TestMain(m *testing.M) {
	// A connection that was cut while a request was being read is held by net/http for half a second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// world is a server over real services that keep everything in memory, behind a unix socket.
type world struct {
	t      *testing.T
	dir    string
	srv    *rest.Server
	ops    *op.Registry
	hub    *events.Hub
	client *http.Client
	svc    *rest.Services
	base   string // https://… when it is not the socket

	mu       sync.Mutex
	shutdown []bool // force, of each time that shutdown was asked for
}

type server struct{ *config.Service }

func (s server) Config() map[string]string { return s.Get() }
func (s server) Environment() api.ServerEnvironment {
	return api.ServerEnvironment{Server: "shoal", ServerVersion: "test", ServerName: "here"}
}

// notReady is a server whose services are not there yet.
func notReady(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.hub, err = events.New(events.Deps{}); err != nil {
		t.Fatal(err)
	}
	if w.ops, err = op.New(op.Deps{Events: w.hub, Logger: log}); err != nil {
		t.Fatal(err)
	}
	w.srv, err = rest.New(rest.Deps{Logger: log, Events: w.hub, Database: func(_ context.Context, config string) (api.DatabaseReport, error) {
		if config == "" {
			return api.DatabaseReport{Database: "embedded"}, nil
		}
		return api.DatabaseReport{Database: "etcd", Checks: []api.DatabaseCheck{{Text: config}}}, nil
	}, Shutdown: func(r rest.ShutdownRequest) {
		force := r.Force
		w.mu.Lock()
		defer w.mu.Unlock()
		w.shutdown = append(w.shutdown, force)
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.dir, "unix.socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	hs := w.srv.HTTPServer()
	served := make(chan struct{})
	go func() { defer close(served); _ = hs.Serve(l) }()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	w.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.ops.Stop(ctx); err != nil {
			t.Error(err)
		}
		w.hub.Close()
		w.srv.CloseStreams()
		tr.CloseIdleConnections()
		_ = hs.Close()
		<-served
	})
	return w
}

// start is a server that is ready.
func start(t *testing.T) *world {
	t.Helper()
	w := notReady(t)
	w.srv.SetReady(w.services())
	return w
}

func (w *world) services() rest.Services {
	w.t.Helper()
	db := state.NewMemory()
	cfg, err := config.New(config.Deps{State: db})
	if err != nil {
		w.t.Fatal(err)
	}
	projects, err := project.New(project.Deps{State: db})
	if err != nil {
		w.t.Fatal(err)
	}
	return rest.Services{
		Operations: w.ops, Server: server{cfg}, Projects: projects,
		Warnings: func() []api.Warning { return []api.Warning{} },
	}
}

// answer is a reply with its body.
type answer struct {
	api.Response
	code   int
	header http.Header
	raw    []byte
}

// do sends a request; body is JSON when it is not a string, an io.Reader or nil. headers are key, value, …
func (w *world) do(method, path string, body any, headers ...string) answer {
	w.t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = bytes.NewBufferString(b)
	case io.Reader:
		rd = b
	default:
		j, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		rd = bytes.NewReader(j)
	}
	base := w.base
	if base == "" {
		base = "http://unix.socket"
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, base+path, rd)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{code: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		w.t.Fatal(err)
	}
	_ = json.Unmarshal(a.raw, &a.Response) // files are not JSON
	return a
}

// into decodes the metadata.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Metadata, v); err != nil {
		t.Fatalf("metadata %s: %v", a.Metadata, err)
	}
}

func (w *world) want(a answer, code int, text string) {
	w.t.Helper()
	if a.code != code || (text != "" && a.Error != text) {
		w.t.Errorf("got %d %q, want %d %q; %s", a.code, a.Error, code, text, a.raw)
	}
}
