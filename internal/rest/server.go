package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/scheduler"
)

// HeaderTimeout is how long a client may take to send its request's header.
const HeaderTimeout = 5 * time.Second

// maxHeader bounds a request's header in bytes.
const maxHeader = 64 << 10

// Deps is what the server needs before it is ready.
type Deps struct {
	Logger *slog.Logger
	Clock  clock.Clock
	Events *events.Hub
	// Shutdown is called once when a client asks for it.
	Shutdown func(ShutdownRequest)
	// Database checks the daemon's database, or with a configuration file the cluster that it names; nil: that is not implemented.
	Database func(ctx context.Context, config string) (api.DatabaseReport, error)
}

// ShutdownRequest is how a client wants the daemon to stop.
type ShutdownRequest struct {
	Force     bool          // do not wait for running operations
	Instances bool          // stop the instances too: the host goes down
	Timeout   time.Duration // how long to wait for operations; negative: as configured
}

// Services is what the endpoints call. A nil service makes its endpoints answer 501.
type Services struct {
	Operations  *op.Registry
	Trust       TrustService // nil: nobody but the unix socket is trusted
	Server      ServerService
	Projects    ProjectService
	Instances   *instance.Service
	Profiles    *profile.Service
	Images      *image.Service
	Networks    NetworkService
	Storage     StorageService
	World       *world.World
	WorldFS     *fs.Store
	WorldMounts WorldMounts
	Scheduler   *scheduler.Scheduler
	Warnings    func() []api.Warning
	Resources   func() (any, error)
}

// Server is the HTTP handler. Safe for concurrent use.
type Server struct {
	d        Deps
	svc      atomic.Pointer[Services]
	stopping atomic.Bool
	asked    atomic.Bool // shutdown was asked for
	streams  context.Context
	cut      context.CancelFunc
	mux      *http.ServeMux
}

// New returns a server that answers 503 until SetReady.
func New(d Deps) (*Server, error) {
	if d.Logger == nil || d.Events == nil {
		return nil, fmt.Errorf("rest: Logger and Events are required")
	}
	if d.Clock == nil {
		d.Clock = clock.Real{}
	}
	if d.Shutdown == nil {
		d.Shutdown = func(ShutdownRequest) {}
	}
	s := &Server{d: d, mux: http.NewServeMux()}
	s.streams, s.cut = context.WithCancel(context.Background())
	s.routes()
	return s, nil
}

// SetReady opens the endpoints. Call it once, when all services run.
func (s *Server) SetReady(svc Services) { s.svc.Store(&svc) }

// SetStopping makes every request but those for events and operations answer 503.
func (s *Server) SetStopping() { s.stopping.Store(true) }

// CloseStreams ends events streams and websockets, which http.Server.Shutdown does not know of.
func (s *Server) CloseStreams() { s.cut() }

// HTTPServer returns an http.Server with the house's limits around the handler.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: HeaderTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(s.d.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return s.streams },
	}
}

// handler serves one method of one path.
type handler func(r *request) response

// endpoint is a path of the API with the methods that it has.
type endpoint struct {
	path    string
	methods map[string]handler
	early   bool // works before the daemon is ready and while it stops
	has     func(*Services) bool
	access  rule // from the table of rules
}

func (s *Server) routes() {
	who := rules()
	for _, e := range s.endpoints() {
		e.access = who[e.path]
		s.mux.HandleFunc(e.path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, e) })
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(errs.NotFound("not found")).write(w, r)
	})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// As it was sent: a name may have slashes and dots when they are escaped.
	if p := r.URL.EscapedPath(); strings.Contains(p, "//") || strings.Contains(p, "/../") {
		fail(errs.NotFound("not found")).write(w, r) // the mux would redirect, which clients do not follow
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, e endpoint) {
	began := s.d.Clock.Now()
	rec := &recorder{ResponseWriter: w}
	known, r := s.identify(r, s.svc.Load())
	if known.Kind == access.Untrusted {
		limitStranger(rec, r)
	} else {
		trustConn(r.Context(), known.Fingerprint)
	}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p) // a handler wants the connection broken
			}
			s.d.Logger.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if !rec.wrote {
				fail(fmt.Errorf("internal error; see the daemon's log")).write(rec, r)
			}
		}
		level, who := slog.LevelDebug, caller.Caller{}
		who, _ = caller.From(r.Context())
		if !reads(r.Method) && known.Kind > access.Untrusted {
			level = slog.LevelInfo // the record of who changed what
		}
		s.d.Logger.Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "project", r.URL.Query().Get("project"),
			"status", rec.status, "user", who.Username, "trust", known.Kind.String(), "protocol", who.Protocol, "address", who.Address,
			"took", s.d.Clock.Now().Sub(began))
	}()
	redact(known, s.answer(rec, r, e, known)).write(rec, r)
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, e endpoint, who access.Caller) response {
	h := e.methods[r.Method]
	if h == nil && r.Method == http.MethodHead {
		h = e.methods[http.MethodGet]
	}
	if h == nil {
		return fail(errs.Unsupported("not implemented"))
	}
	svc := s.svc.Load()
	if !e.early {
		if s.stopping.Load() {
			return fail(errs.Unavailable("LXD is shutting down"))
		}
		if svc == nil {
			return fail(errs.Unavailable("LXD daemon setup in progress"))
		}
	}
	if svc == nil {
		svc = &Services{}
	}
	req := &request{Request: r, w: w, svc: svc, srv: s, who: who}
	if err := req.parseQuery(); err != nil {
		return fail(err)
	}
	if err := req.permit(e.access); err != nil {
		return fail(err)
	}
	if e.has != nil && !e.has(svc) {
		return fail(errs.Unsupported("not implemented"))
	}
	if err := req.mustExist(); err != nil {
		return fail(err)
	}
	return h(req)
}

// recorder remembers the status for the log line.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(code int) {
	if !r.wrote {
		r.status, r.wrote = code, true
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if !r.wrote {
		r.status, r.wrote = http.StatusOK, true
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController and the websocket library reach Hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
