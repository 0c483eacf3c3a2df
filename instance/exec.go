package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/op"
)

// Bounds of an exec request: the kernel's own are 32 pages for one string.
const (
	maxArgs      = 4096
	maxArgLen    = 128 << 10
	maxEnv       = 1024
	maxTerminal  = 4096     // rows and columns
	maxRecording = 64 << 20 // bytes of each recorded stream
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Exec returns the operation that runs a command ("Executing command"): with websockets "0" and "control", and "1" and
// "2" when not interactive, if req.WaitForWS is set. The operation's metadata ends with "return", the exit code.
func (s *Service) Exec(ctx context.Context, project api.ProjectName, name string, req api.InstanceExecPost) (op.Spec, error) {
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	if err := e.mustRun(); err != nil {
		return op.Spec{}, err
	}
	if err := checkExec(req); err != nil {
		return op.Spec{}, err
	}
	item, err := s.store.get(e.name())
	if err != nil {
		return op.Spec{}, err
	}
	d, err := s.driverFor(item.Value.Type)
	if err != nil {
		return op.Spec{}, err
	}
	x, err := s.expand(project, item.Value)
	if err != nil {
		return op.Spec{}, err
	}
	env := execEnv(x.cfg, req)
	spec := instanceOp("Executing command", e.name())
	spec.Resources["containers"] = []string{strings.Replace(instanceURL(e.name()), "/instances/", "/containers/", 1)}
	spec.Metadata = map[string]any{"command": req.Command, "environment": env, "interactive": req.Interactive}
	run := execution{s: s, e: e, d: d, interactive: req.Interactive, req: driver.ExecRequest{
		Command: req.Command, Env: env, Cwd: req.Cwd, User: req.User, Group: req.Group,
		Terminal: req.Interactive, Width: req.Width, Height: req.Height,
	}}
	switch {
	case req.WaitForWS && req.Interactive:
		spec.Class, spec.Sockets, spec.Run = op.Websocket, []string{"0", "control"}, run.terminal
	case req.WaitForWS:
		spec.Class, spec.Sockets, spec.Run = op.Websocket, []string{"0", "1", "2", "control"}, run.pipes
	default:
		run.req.Terminal = false
		run.record = req.RecordOutput
		spec.Run = run.detached
	}
	s.event(ctx, e.name(), "instance-exec", map[string]any{"command": req.Command})
	return spec, nil
}

// mustRun is the check of exec and console.
func (e *entry) mustRun() error {
	switch status, _ := e.now(); status {
	case api.Running, api.Stopping:
		return nil
	case api.Frozen, api.Freezing:
		return errs.Invalid("Instance is frozen")
	}
	return errs.Invalid("Instance is not running")
}

func checkExec(req api.InstanceExecPost) error {
	switch {
	case len(req.Command) == 0 || req.Command[0] == "":
		return errs.Invalid("the command is empty")
	case len(req.Command) > maxArgs || len(req.Environment) > maxEnv:
		return errs.TooLarge("a command may have %d arguments and %d environment variables", maxArgs, maxEnv)
	case req.RecordOutput && (req.WaitForWS || req.Interactive):
		return errs.Invalid("record-output needs wait-for-websocket and interactive to be false")
	case req.Cwd != "" && !strings.HasPrefix(req.Cwd, "/"):
		return errs.Invalid("cwd %q must be absolute", req.Cwd)
	}
	if err := checkSize(req.Width, req.Height); err != nil {
		return err
	}
	for _, a := range append([]string{req.Cwd}, req.Command...) {
		if err := checkText("argument", a); err != nil {
			return err
		}
	}
	for k, v := range req.Environment {
		if k == "" || strings.ContainsRune(k, '=') {
			return errs.Invalid("environment variable name %q must not be empty or contain =", k)
		}
		if err := errors.Join(checkText("environment variable name", k), checkText("environment variable", v)); err != nil {
			return err
		}
	}
	return nil
}

func checkSize(width, height int) error {
	if width < 0 || height < 0 || width > maxTerminal || height > maxTerminal {
		return errs.Invalid("terminal size %dx%d must be within 0–%d", width, height, maxTerminal)
	}
	return nil
}

func checkText(what, v string) error {
	if len(v) > maxArgLen {
		return errs.TooLarge("%s of %d bytes: %d are allowed", what, len(v), maxArgLen)
	}
	if strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
		return errs.Invalid("%s %.40q must be UTF-8 without NUL", what, v)
	}
	return nil
}

// execEnv is the request's environment over the instance's over the defaults.
func execEnv(cfg api.Config, req api.InstanceExecPost) map[string]string {
	env := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8"}
	if req.User == 0 {
		env["HOME"], env["USER"] = "/root", "root"
	}
	maps.Copy(env, environment(cfg))
	maps.Copy(env, req.Environment)
	return env
}

// execution is one command.
type execution struct {
	s           *Service
	e           *entry
	d           driver.Driver
	req         driver.ExecRequest
	interactive bool
	record      bool
}

// terminal runs the command on a terminal that socket 0 carries.
func (x execution) terminal(ctx context.Context, h op.Handle) error {
	sock, err := h.Socket(ctx, "0")
	if err != nil {
		return err
	}
	defer sock.Close()
	p, err := x.d.Exec(ctx, x.e.id, x.req)
	if err != nil {
		return err
	}
	tty := p.TTY()
	defer tty.Close()
	stop := watch(ctx, h, p)
	defer stop()
	go func() { _, _ = io.Copy(tty, sock) }()
	out := make(chan struct{})
	go func() { defer close(out); _, _ = io.Copy(sock, tty) }() // ends with EIO when the last process has left the terminal
	code, err := p.Wait()
	drain(out)
	return finish(h, code, err)
}

// pipes runs the command with a socket for each stream.
func (x execution) pipes(ctx context.Context, h op.Handle) error {
	var socks [3]op.Socket
	for i := range socks {
		sock, err := h.Socket(ctx, strconv.Itoa(i))
		if err != nil {
			return err
		}
		defer sock.Close()
		socks[i] = sock
	}
	x.req.Stdin, x.req.Stdout, x.req.Stderr = socks[0], socks[1], socks[2]
	p, err := x.d.Exec(ctx, x.e.id, x.req)
	if err != nil {
		return err
	}
	stop := watch(ctx, h, p)
	defer stop()
	code, err := p.Wait()
	return finish(h, code, err)
}

// detached runs the command without a client; its output is kept in the log directory when asked for.
func (x execution) detached(ctx context.Context, h op.Handle) error {
	if x.record {
		id, output := newUUID(), map[string]string{}
		for fd, stream := range map[string]*io.Writer{"1": &x.req.Stdout, "2": &x.req.Stderr} {
			name := "exec_" + id + map[string]string{"1": ".stdout", "2": ".stderr"}[fd]
			f, err := x.s.dir.OpenFile(logName(x.e.name(), name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("record the output: %w", fsroot.Classify(err))
			}
			defer f.Close()
			*stream = &capped{w: f, left: maxRecording}
			output[fd] = strings.Split(instanceURL(x.e.name()), "?")[0] + "/logs/" + name
		}
		h.SetMetadata(map[string]any{"output": output})
	}
	p, err := x.d.Exec(ctx, x.e.id, x.req)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = p.Signal(9) })()
	code, err := p.Wait()
	return finish(h, code, err)
}

// finish reports the exit code the way LXD does.
func finish(h op.Handle, code int, err error) error {
	if err != nil {
		return err
	}
	h.SetMetadata(map[string]any{"return": code})
	switch code {
	case 127:
		return errs.NotFound("Command not found")
	case 126:
		return errs.Invalid("Command not executable")
	}
	return nil
}

// controlled is what a control socket can steer.
type controlled interface {
	Resize(width, height int) error
	Signal(sig int) error
}

// watch serves the control socket until stop is called, and kills the command when the operation ends, or the client
// closes the control socket, before the command has ended. A client need not connect the control socket.
func watch(ctx context.Context, h op.Handle, p controlled) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	kill := func() {
		select {
		case <-ended:
		default:
			_ = p.Signal(9)
		}
	}
	unhook := context.AfterFunc(ctx, kill)
	wg.Go(func() {
		sock, err := h.Socket(ctx, "control")
		if err != nil {
			return
		}
		defer sock.Close()
		for {
			frame, err := sock.ReadText(ctx)
			if err != nil {
				kill()
				return
			}
			control(frame, p)
		}
	})
	return func() {
		close(ended)
		unhook()
		cancel()
		wg.Wait()
	}
}

// control obeys one frame; what it does not understand it ignores, as LXD does.
func control(frame []byte, p controlled) {
	var c api.InstanceExecControl
	if len(frame) > 4096 || json.Unmarshal(frame, &c) != nil {
		return
	}
	switch c.Command {
	case "window-resize":
		width, err1 := strconv.Atoi(c.Args["width"])
		height, err2 := strconv.Atoi(c.Args["height"])
		if err1 == nil && err2 == nil && checkSize(width, height) == nil && width > 0 && height > 0 {
			_ = p.Resize(width, height)
		}
	case "signal":
		if c.Signal > 0 && c.Signal <= 64 {
			_ = p.Signal(c.Signal)
		}
	}
}

// capped writes until it is full and then swallows.
type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
