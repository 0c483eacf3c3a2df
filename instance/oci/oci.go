package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
)

// Config is what a [Driver] needs.
type Config struct {
	driver.Deps
	Dir     string // the driver's own directory; made when missing. One daemon has one.
	Runtime string // name or absolute path of the OCI runtime; empty: runc
	Shim    string // absolute path of shoal-shim
	Agent   string // absolute path of shoal-agent
	// AgentIdle is how long an agent stays in a running instance when it has nothing to do; zero is a minute. Negative: none stays, and
	// the runtime starts every command and every file session anew, which takes about 20 ms each.
	AgentIdle time.Duration
	Runner    run.Runner
	Logger    *slog.Logger
}

// Driver runs containers. See the package comment.
type Driver struct {
	cfg   Config
	agent agentFile

	// stop ends the goroutines that watch instances, and only those: instances go on.
	stop context.CancelFunc
	ctx  context.Context
	wg   sync.WaitGroup

	mu       sync.Mutex
	info     driver.Info
	facts    Facts
	missing  error // why there is no runtime
	recs     map[string]*record
	sessions map[string]*tempHost // throw-away containers of stopped instances, by instance ID
}

var (
	_ driver.Driver  = (*Driver)(nil)
	_ driver.Limiter = (*Driver)(nil)
)

// record is what the driver knows about one instance with a process.
type record struct {
	spec driver.Spec
	init shimproto.Process
	gone chan struct{} // closed when init has ended and its exit is known
	exit driver.Exit   // valid when gone is closed
	// shimless is set when the shim was killed and init goes on.
	shimless atomic.Bool
	agent    agentSlot

	groupsMu sync.Mutex
	groups   Cgroups // nil until they were needed; they never change
}

func (r *record) exited() bool {
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// New probes the host (about 20 ms) and returns a driver. [errs.Unsupported] when the kernel lacks what containers need. A
// runtime that is missing or too old is logged and shown by Info; until it is there, instances that run are taken over and can be
// stopped, but none can be made ([errs.Unsupported]). Call Recover next.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	if cfg.Runtime == "" {
		cfg.Runtime = "runc"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, recs: map[string]*record{}, sessions: map[string]*tempHost{}}
	if err := d.probe(ctx); err != nil {
		return nil, err
	}
	if d.missing != nil {
		cfg.Logger.Error("no container can be started", "err", d.missing)
	}
	raiseInotify(cfg.Logger)
	d.ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	return d, nil
}

// Close stops watching. Instances go on; those that end later are what the next driver's Recover reports.
func (d *Driver) Close() {
	d.stop()
	d.wg.Wait()
	d.agent.close()
}

// Info implements [driver.Driver].
func (d *Driver) Info() driver.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

var idPattern = regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]{0,59}$`)

func checkSpec(s driver.Spec) error {
	if !idPattern.MatchString(s.ID) {
		return errs.Invalid("runtime ID %q: want 1 to 60 of a-z, 0-9, _ and -, not beginning with -", s.ID)
	}
	for _, p := range []string{s.Dir, s.LogDir} {
		if !filepath.IsAbs(p) {
			return errs.Invalid("directory %q of instance %s is not an absolute path", p, s.ID)
		}
	}
	if s.Root.Path == "" && (len(s.Root.Lower) == 0 || s.Root.Data == "") {
		return errs.Invalid("the root of instance %s has neither a path nor layers", s.ID)
	}
	if s.IDMap.Size > 0 && s.IDMap.Base == 0 {
		return errs.Invalid("the id map of instance %s begins at the host's root", s.ID)
	}
	for _, m := range s.Mounts {
		if !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) || strings.ContainsRune(m.Target, 0) {
			return errs.Invalid("mount %q on %q of instance %s: want absolute paths", m.Source, m.Target, s.ID)
		}
	}
	return nil
}

// specPath is where the Spec of an instance is remembered.
func (d *Driver) specPath(id string) string { return filepath.Join(d.cfg.Dir, id+".json") }

func (d *Driver) remember(s driver.Spec) error { return shimproto.WriteJSON(d.specPath(s.ID), s) }

func (d *Driver) recall(id string) (driver.Spec, error) {
	var s driver.Spec
	b, err := os.ReadFile(d.specPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return s, errs.NotFound("instance %q has no process", id)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, errs.Invalid("record of instance %q: %v", id, err)
	}
	return s, nil
}

// running returns the record of an instance whose init lives.
func (d *Driver) running(id string) (*record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.recs[id]
	if r == nil {
		return nil, errs.NotFound("instance %q has no process", id)
	}
	if r.exited() {
		return nil, errs.Invalid("Instance is not running")
	}
	return r, nil
}
