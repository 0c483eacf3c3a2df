package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
)

// remote is what has started a command and watches it: the shim, or the agent in the instance.
type remote interface {
	// signal sends a signal; nil when the command has ended.
	signal(sig int) error
	// wait returns the exit code when the command has ended. It is called once.
	wait() (int, error)
	// forget lets go of a command that nobody will wait for.
	forget()
}

// process is a command inside an instance.
type process struct {
	remote remote
	tty    *os.File
	pipes  *stdio         // nil when somebody else reads and writes them
	pump   sync.WaitGroup // copies of output
	code   int            // set at once when the command was never started
	dead   bool           // it was not: see code
}

// shimCommand is a command that the shim has started with the runtime. Its connection lives as long as the command does.
type shimCommand struct{ conn *net.UnixConn }

func (p *process) TTY() *os.File { return p.tty }

// Resize tells the terminal its size in characters.
func (p *process) Resize(width, height int) error {
	if p.tty == nil {
		return errs.Invalid("the command has no terminal")
	}
	if width <= 0 || height <= 0 || width > 1<<15 || height > 1<<15 {
		return errs.Invalid("terminal size %dx%d: want 1 to 32768 in both directions", width, height)
	}
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	if err := raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	}); err != nil {
		return err
	}
	return ierr
}

// Signal sends a signal to the command; nil when it has ended.
func (p *process) Signal(sig int) error {
	if sig < 1 || sig > 64 {
		return errs.Invalid("signal %d: want 1 to 64", sig)
	}
	if p.dead {
		return nil
	}
	return p.remote.signal(sig)
}

func (c shimCommand) signal(sig int) error {
	b, err := json.Marshal(shimproto.Request{Op: shimproto.OpSignal, Signal: sig})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// Wait implements [driver.Process].
func (p *process) Wait() (int, error) {
	if p.dead {
		return p.code, nil
	}
	code, err := p.remote.wait()
	if err != nil {
		return -1, err
	}
	if p.pipes != nil {
		p.pipes.drain()
	}
	p.pump.Wait()
	return code, nil
}

func (c shimCommand) wait() (int, error) {
	defer c.conn.Close()
	line, err := readLine(c.conn)
	if err != nil {
		return -1, errs.Unavailable("the instance's monitor process has gone while the command ran")
	}
	rep, err := parseReply(line)
	if err != nil {
		return -1, err
	}
	if !rep.Exited {
		return -1, fmt.Errorf("unexpected answer %q of the shim", line)
	}
	return rep.Code, nil
}

func (c shimCommand) forget() { _ = c.conn.Close() }

// Exec implements [driver.Driver]. ctx bounds the start only: the command goes on until it ends or is signalled.
func (d *Driver) Exec(ctx context.Context, id string, req driver.ExecRequest) (driver.Process, error) {
	if len(req.Command) == 0 || req.Command[0] == "" {
		return nil, errs.Invalid("the command is empty")
	}
	r, err := d.awake(id)
	if err != nil {
		return nil, err
	}
	if r.waiting() {
		return nil, errs.Invalid("Instance is not running")
	}
	if r.shimless.Load() {
		return nil, errs.Unavailable("the instance's monitor process is gone; the instance goes on, but needs a restart for this")
	}
	facts, err := d.usable(ctx)
	if err != nil {
		return nil, err
	}
	spec := processSpec(r, req, facts)
	p, err := d.execByAgent(ctx, r, spec, req)
	if err == nil {
		return p, nil
	}
	if !errors.Is(err, errNoAgent) {
		return nil, fmt.Errorf("exec in %s: %w", id, err)
	}
	p, pipes, err := d.spawn(ctx, r, spec, req, nil)
	if err != nil {
		return nil, err
	}
	if !p.dead {
		p.pipes = pipes
		pipes.run(req, &p.pump)
	}
	return p, nil
}

func processSpec(r *record, req driver.ExecRequest, facts Facts) *specs.Process {
	cwd := req.Cwd
	if cwd == "" {
		cwd = "/"
		if req.User == 0 && guestHasDir(r.init.PID, "/root") {
			cwd = "/root"
		}
	}
	caps := capabilities(r.spec, facts)
	p := &specs.Process{
		Terminal: req.Terminal, User: specs.User{UID: req.User, GID: req.Group}, Args: req.Command, Cwd: cwd,
		Env:          environment(req.Env, nil),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      askedRlimits(r.spec.Rlimits),
	}
	return p
}

// guestHasDir looks whether a path is a directory in the guest. It learns nothing else and opens nothing, and what it learns is
// only which default to take.
func guestHasDir(pid int, path string) bool {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// spawn has the shim start a command; preserve becomes its descriptor 3. The caller uses our ends of the pipes, unless the
// process is dead from the start.
func (d *Driver) spawn(ctx context.Context, r *record, spec *specs.Process, req driver.ExecRequest, preserve *os.File) (*process, *stdio, error) {
	pipes, err := newStdio(req)
	if err != nil {
		return nil, nil, err
	}
	if err := pipes.messages(); err != nil {
		pipes.closeTheirs()
		pipes.closeOurs()
		return nil, nil, err
	}
	p, err := d.launch(ctx, r, spec, req, pipes, preserve)
	return p, pipes, err
}

// launch is spawn with pipes that are there; it closes theirs, and ours too unless the command runs.
func (d *Driver) launch(ctx context.Context, r *record, spec *specs.Process, req driver.ExecRequest, pipes *stdio, preserve *os.File) (*process, error) {
	file, err := writeProcess(r.spec.Dir, spec)
	if err != nil {
		pipes.closeTheirs()
		pipes.closeOurs()
		return nil, err
	}
	defer os.Remove(file) // the shim does it too; this is for one that did not get there
	fds := pipes.theirs
	if preserve != nil {
		fds = append(fds[:3:3], preserve)
	}
	conn, err := d.send(ctx, r, shimproto.Request{
		Op: shimproto.OpExec, Spec: filepath.Base(file), Terminal: req.Terminal, Preserve: preserve != nil,
		Width: clamp(req.Width), Height: clamp(req.Height),
	}, fds...)
	pipes.closeTheirs()
	if err != nil {
		pipes.closeOurs()
		return nil, err
	}
	p := &process{remote: shimCommand{conn}}
	err = p.started(ctx, conn, pipes)
	if err != nil || p.dead {
		_ = conn.Close()
		pipes.closeOurs()
	}
	if err != nil {
		return nil, fmt.Errorf("exec in %s: %w", r.spec.ID, err)
	}
	return p, nil
}

func writeProcess(dir string, spec *specs.Process) (string, error) {
	file, err := os.CreateTemp(dir, "process-*.json")
	if err != nil {
		return "", err
	}
	err = json.NewEncoder(file).Encode(spec)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return file.Name(), err
}

func clamp(n int) uint16 { return uint16(min(max(n, 0), 1<<15)) }

// started reads the shim's first answer. When the runtime could not start the command, what came out of stderr is its
// message and not the command's.
func (p *process) started(ctx context.Context, conn *net.UnixConn, pipes *stdio) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, fd, err := readLineFD(conn)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("answer of the shim: %w", err)
	}
	if fd >= 0 {
		if err := unix.SetNonblock(fd, true); err != nil {
			_ = unix.Close(fd)
			return err
		}
		p.tty = os.NewFile(uintptr(fd), "terminal")
	}
	if _, err = parseReply(line); err == nil {
		return nil
	}
	_ = pipes.stderr.SetReadDeadline(time.Now().Add(time.Second))
	text, _ := io.ReadAll(io.LimitReader(pipes.stderr, 4096))
	if len(bytes.TrimSpace(text)) == 0 {
		return err
	}
	p.dead = true
	p.code, err = execError(string(text))
	return err
}

func readLineFD(conn *net.UnixConn) ([]byte, int, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, -1, err
	}
	if n == 0 {
		return nil, -1, io.ErrUnexpectedEOF
	}
	fd := -1
	if on > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err == nil && len(msgs) == 1 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
				fd = fds[0]
			}
		}
	}
	rest, err := readLine(conn)
	return append(b[:], rest...), fd, err
}
