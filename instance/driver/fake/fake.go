package fake

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// Ready is what the fake guest's init prints on the console when it has started.
const Ready = "shoal-test-ready\r\n"

// Host is the machine that fake instances run on. Safe for concurrent use.
type Host struct {
	mu       sync.Mutex
	guests   map[string]*guest
	disks    map[string]sftp.Handlers // by ID: a root outlives its instance's runs
	consoles map[string]*console
	rules    []*rule
	calls    map[string]int
	nextPID  int
	current  *Driver // gets exits; nil while no daemon runs
}

type state int

const (
	created state = iota
	running
	frozen
	exited
)

type guest struct {
	spec    driver.Spec
	state   state
	started bool
	pid     int
	exit    driver.Exit
	gone    chan struct{} // closed when init has ended
	console *console
	procs   map[*process]struct{}
}

// NewHost returns a machine without instances.
func NewHost() *Host {
	return &Host{guests: map[string]*guest{}, disks: map[string]sftp.Handlers{}, consoles: map[string]*console{}, calls: map[string]int{}, nextPID: 1000}
}

// Calls returns how often a method (lower case) was called, on all drivers of the host together.
func (h *Host) Calls(op string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[op]
}

// IDs returns the instances that the host has something of: what checkWorld compares with the records.
func (h *Host) IDs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for id := range h.guests {
		out = append(out, id)
	}
	return out
}

// Limits returns the limits that an instance runs with, zero when there is no such instance.
func (h *Host) Limits(id string) driver.Limits {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.guests[id]; g != nil {
		return g.spec.Limits
	}
	return driver.Limits{}
}

// Exit ends the instance's init as if it had ended by itself; nothing happens when it does not run.
func (h *Host) Exit(id string, e driver.Exit) {
	h.mu.Lock()
	g := h.guests[id]
	if g == nil || g.state == exited {
		h.mu.Unlock()
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	g.state, g.exit = exited, e
	close(g.gone)
	g.console.end()
	for p := range g.procs {
		p.kill(137)
	}
	d := h.current
	h.mu.Unlock()
	if d != nil {
		d.deliver(id, e)
	}
}

// Driver is one daemon's view of a [Host].
type Driver struct {
	h    *Host
	deps driver.Deps
	typ  string
	wg   sync.WaitGroup
}

var (
	_ driver.Driver  = (*Driver)(nil)
	_ driver.Limiter = (*Driver)(nil)
)

// New starts a driver for containers on h. Exits go to the newest driver of a host.
func New(h *Host, deps driver.Deps) *Driver { return NewType(h, deps, api.TypeContainer) }

// NewType is New for an instance type ([api.TypeContainer] or [api.TypeVirtualMachine]).
func NewType(h *Host, deps driver.Deps, typ string) *Driver {
	d := &Driver{h: h, deps: deps, typ: typ}
	h.mu.Lock()
	h.current = d
	h.mu.Unlock()
	return d
}

// Close plays the daemon's death: instances go on and nobody hears of their exits. It waits for OnExit calls that run.
func (d *Driver) Close() {
	d.h.mu.Lock()
	if d.h.current == d {
		d.h.current = nil
	}
	d.h.mu.Unlock()
	d.wg.Wait()
}

func (d *Driver) deliver(id string, e driver.Exit) {
	if d.deps.OnExit == nil {
		return
	}
	d.wg.Go(func() { d.deps.OnExit(id, e) })
}

// Info implements [driver.Driver].
func (d *Driver) Info() driver.Info {
	return driver.Info{Name: "fake", Version: "fake 1", Type: d.typ, Features: map[string]string{"limits": "true"}}
}

// with runs fn on the instance under the host's lock; allowed lists the states in which it may.
func (d *Driver) with(id string, fn func(g *guest) error) error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g := d.h.guests[id]
	if g == nil {
		return errs.NotFound("instance %q has no process", id)
	}
	return fn(g)
}

func alive(g *guest) error {
	switch g.state {
	case running:
		return nil
	case frozen:
		return errs.Invalid("Instance is frozen")
	}
	return errs.Invalid("Instance is not running")
}

// Create implements [driver.Driver].
func (d *Driver) Create(ctx context.Context, spec driver.Spec) (driver.Created, error) {
	var out driver.Created
	err := d.h.do(ctx, "create", spec.ID, func() error {
		con := d.h.console(spec.ID)
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		if g := d.h.guests[spec.ID]; g != nil {
			return errs.Exists("instance %q has a process already", spec.ID)
		}
		d.h.nextPID++
		d.h.guests[spec.ID] = &guest{
			spec: spec, pid: d.h.nextPID, gone: make(chan struct{}), console: con, procs: map[*process]struct{}{},
		}
		out.PID = d.h.nextPID
		return nil
	})
	return out, err
}

// Start implements [driver.Driver].
func (d *Driver) Start(ctx context.Context, id string) error {
	return d.h.do(ctx, "start", id, func() error {
		return d.with(id, func(g *guest) error {
			if g.state != created {
				return errs.Invalid("instance %q is not waiting for its start", id)
			}
			g.state, g.started = running, true
			g.console.print(Ready)
			return nil
		})
	})
}

// Shutdown implements [driver.Driver]: the fake guest obeys at once unless a rule says otherwise.
func (d *Driver) Shutdown(ctx context.Context, id string) error {
	return d.h.do(ctx, "shutdown", id, func() error {
		if err := d.with(id, alive); err != nil {
			return err
		}
		d.h.Exit(id, driver.Exit{Code: 130})
		return nil
	})
}

// Kill implements [driver.Driver].
func (d *Driver) Kill(ctx context.Context, id string) error {
	return d.h.do(ctx, "kill", id, func() error {
		d.h.Exit(id, driver.Exit{Code: 137})
		return nil
	})
}

// Freeze implements [driver.Driver].
func (d *Driver) Freeze(ctx context.Context, id string) error {
	return d.h.do(ctx, "freeze", id, func() error {
		return d.with(id, func(g *guest) error {
			if g.state == running {
				g.state = frozen
			}
			return onlyIn(g, frozen)
		})
	})
}

// Unfreeze implements [driver.Driver].
func (d *Driver) Unfreeze(ctx context.Context, id string) error {
	return d.h.do(ctx, "unfreeze", id, func() error {
		return d.with(id, func(g *guest) error {
			if g.state == frozen {
				g.state = running
			}
			return onlyIn(g, running)
		})
	})
}

func onlyIn(g *guest, want state) error {
	if g.state != want {
		return errs.Invalid("Instance is not running")
	}
	return nil
}

// SetLimits implements [driver.Limiter].
func (d *Driver) SetLimits(ctx context.Context, id string, l driver.Limits) error {
	return d.h.do(ctx, "setlimits", id, func() error {
		return d.with(id, func(g *guest) error {
			g.spec.Limits = l
			return nil
		})
	})
}

// Stats implements [driver.Driver]: plausible numbers, the same for every instance.
func (d *Driver) Stats(ctx context.Context, id string) (driver.Stats, error) {
	var out driver.Stats
	err := d.h.do(ctx, "stats", id, func() error {
		return d.with(id, func(g *guest) error {
			if g.state == exited {
				return errs.Invalid("Instance is not running")
			}
			out = driver.Stats{
				CPU: 25 * time.Millisecond, Memory: 4 << 20, MemoryPeak: 8 << 20,
				Processes: int64(1 + len(g.procs)), InitPID: g.pid,
			}
			return nil
		})
	})
	return out, err
}

// Cleanup implements [driver.Driver].
func (d *Driver) Cleanup(ctx context.Context, id string) error {
	return d.h.do(ctx, "cleanup", id, func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		g := d.h.guests[id]
		if g == nil {
			return nil
		}
		if g.started && g.state != exited {
			return errs.Busy("instance %q runs", id)
		}
		if g.state != exited {
			close(g.gone)
			g.console.end()
		}
		delete(d.h.guests, id)
		return nil
	})
}

// Recover implements [driver.Driver].
func (d *Driver) Recover(ctx context.Context) ([]driver.Recovered, error) {
	var out []driver.Recovered
	err := d.h.do(ctx, "recover", "", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		for id, g := range d.h.guests {
			r := driver.Recovered{ID: id, PID: g.pid, Running: g.state != exited, Frozen: g.state == frozen, Started: g.started, CPUs: g.spec.Limits.CPUs}
			if g.state == exited {
				r.PID, r.Exit = 0, g.exit
			}
			out = append(out, r)
		}
		return nil
	})
	return out, err
}

// Files implements [driver.Driver] with a file system in memory that belongs to the ID and is there from the first use on.
func (d *Driver) Files(ctx context.Context, spec driver.Spec) (io.ReadWriteCloser, error) {
	var out io.ReadWriteCloser
	err := d.h.do(ctx, "files", spec.ID, func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		if g := d.h.guests[spec.ID]; g != nil && g.state == frozen {
			return errs.Invalid("Instance is frozen")
		}
		disk, ok := d.h.disks[spec.ID]
		if !ok {
			disk = sftp.InMemHandler()
			d.h.disks[spec.ID] = disk
		}
		client, server := newPipe()
		srv := sftp.NewRequestServer(server, disk)
		d.wg.Go(func() {
			_ = srv.Serve()
			_ = srv.Close()
		})
		out = client
		return nil
	})
	return out, err
}
