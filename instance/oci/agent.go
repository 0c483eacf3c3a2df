package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/agentproto"
	"github.com/shoal-project/shoal/internal/errs"
)

// agentSlot is a record's place for its resident agent.
type agentSlot struct {
	mu    sync.Mutex // held while one is started
	a     *resident
	retry time.Time // not before
}

// resident returns the agent of an instance and starts it when there is none. errNoAgent when there is to be none.
func (d *Driver) resident(ctx context.Context, r *record) (*resident, error) {
	if d.cfg.AgentIdle < 0 || isTemp(r.spec) {
		return nil, errNoAgent
	}
	r.agent.mu.Lock()
	defer r.agent.mu.Unlock()
	if a := r.agent.a; a != nil && a.takes() {
		return a, nil
	}
	if time.Now().Before(r.agent.retry) || d.ctx.Err() != nil {
		return nil, errNoAgent
	}
	a, err := d.startResident(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r.agent.retry = time.Now().Add(agentRetry)
		d.cfg.Logger.Warn("start the agent of a container", "instance", r.spec.ID, "err", err)
		return nil, errNoAgent
	}
	r.agent.a = a
	return a, nil
}

func (a *resident) takes() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.over
}

// startResident has the runtime start the agent, so that it has the guest's namespaces, capabilities, limits and filters, and what it
// starts has them too.
func (d *Driver) startResident(ctx context.Context, r *record) (*resident, error) {
	binary, err := d.agent.get(d.cfg.Agent)
	if err != nil {
		return nil, err
	}
	facts, err := d.usable(ctx)
	if err != nil {
		return nil, err
	}
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	pipes := &stdio{theirs: []*os.File{theirs}}
	if err := errors.Join(pipes.null(), pipes.messages()); err != nil {
		pipes.closeTheirs()
		_ = conn.Close()
		return nil, err
	}
	p, err := d.launch(ctx, r, agentProcess(r, facts, "serve", "GOGC=20", "GOMAXPROCS=1"), driver.ExecRequest{}, pipes, binary)
	if err == nil && p.dead {
		err = errs.Unavailable("the agent does not start (code %d)", p.code)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = pipes.stderr.Close()
	a := &resident{
		rec: r, conn: conn, shim: p, idle: d.cfg.AgentIdle, calls: map[uint64]*call{}, revoked: map[uint64]bool{},
	}
	if a.idle == 0 {
		a.idle = agentIdle
	}
	a.mu.Lock()
	a.timer = time.AfterFunc(a.idle, a.expire)
	a.mu.Unlock()
	d.wg.Go(func() {
		if err := a.serve(d.ctx); err != nil {
			d.cfg.Logger.Warn("the agent of a container misbehaves", "instance", r.spec.ID, "err", err)
		}
		a.lost()
	})
	return a, nil
}

func agentProcess(r *record, facts Facts, mode string, env ...string) *specs.Process {
	caps := capabilities(r.spec, facts)
	return &specs.Process{
		Args: []string{agentPath, mode}, Cwd: "/", Env: append([]string{"PATH=" + defaultPath}, env...),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      askedRlimits(r.spec.Rlimits),
	}
}

// socketPair returns a connection and its other end.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "driver")
	defer ours.Close()
	c, err := net.FileConn(ours) // has a duplicate
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// askAgent starts something through the agent, through a new one when the old one was just leaving.
func (d *Driver) askAgent(ctx context.Context, r *record, req agentproto.Request, fds ...*os.File) (*call, error) {
	for range 2 {
		a, err := d.resident(ctx, r)
		if err != nil {
			return nil, err
		}
		c, err := a.start(ctx, req, fds...)
		if !errors.Is(err, errAgentLeft) {
			return c, err
		}
	}
	return nil, errNoAgent
}

// execByAgent is Exec by the resident agent; errNoAgent when the runtime has to do it.
func (d *Driver) execByAgent(ctx context.Context, r *record, spec *specs.Process, req driver.ExecRequest) (*process, error) {
	order := agentproto.Request{
		Op: agentproto.OpExec, Args: spec.Args, Env: spec.Env, Cwd: spec.Cwd, UID: req.User, GID: req.Group,
		Terminal: req.Terminal, Width: clamp(req.Width), Height: clamp(req.Height),
	}
	if tooLong(order) {
		return nil, errNoAgent
	}
	var pipes *stdio
	var theirs []*os.File
	if !req.Terminal {
		var err error
		if pipes, err = newStdio(req); err != nil {
			return nil, err
		}
		theirs = pipes.theirs
		defer pipes.closeTheirs()
	}
	c, err := d.askAgent(ctx, r, order, theirs...)
	if err != nil {
		if pipes != nil {
			pipes.closeOurs()
		}
		return nil, err
	}
	p := &process{remote: c, tty: c.tty}
	if c.reply.State != agentproto.Started {
		p.dead, p.code = true, c.reply.Code
		if pipes != nil {
			pipes.closeOurs()
		}
		return p, nil
	}
	if pipes != nil {
		p.pipes = pipes
		pipes.run(req, &p.pump)
	}
	return p, nil
}

// tooLong tells whether a request does not fit into a message.
func tooLong(r agentproto.Request) bool {
	b, err := json.Marshal(r)
	return err != nil || len(b)+len("18446744073709551615") > agentproto.MaxRequest
}

// terminalMaster makes a file of a descriptor that says it is a terminal's master, and is. The guest may hold it too.
func terminalMaster(fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 5 || unix.Minor(st.Rdev) != 2 {
		return nil, errors.New("the descriptor is no terminal's master")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// agentSession is a file session that the resident agent has started.
type agentSession struct {
	*net.UnixConn
	d    *Driver
	c    *call
	once sync.Once
}

// sessionByAgent opens a file session through the resident agent.
func (d *Driver) sessionByAgent(ctx context.Context, r *record) (io.ReadWriteCloser, error) {
	conn, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	c, err := d.askAgent(ctx, r, agentproto.Request{Op: agentproto.OpFiles}, theirs)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &agentSession{UnixConn: conn, d: d, c: c}, nil
}

// Close ends the session; the server meets the end of its input. One that does not go is killed.
func (s *agentSession) Close() error {
	s.once.Do(func() {
		_ = s.UnixConn.Close()
		s.d.wg.Go(func() {
			timer := time.AfterFunc(2*time.Second, func() { _ = s.c.signal(int(unix.SIGKILL)) })
			defer timer.Stop()
			<-s.c.ended
		})
	})
	return nil
}
