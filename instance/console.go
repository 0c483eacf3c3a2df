package instance

import (
	"context"
	"io"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// Console returns the operation that attaches to the console ("Showing console"): sockets "0" and "control".
func (s *Service) Console(ctx context.Context, project api.ProjectName, name string, req api.InstanceConsolePost) (op.Spec, error) {
	switch req.Type {
	case "", "console":
	case "vga":
		return op.Spec{}, errs.Invalid("VGA console is only supported by virtual machines")
	default:
		return op.Spec{}, errs.Invalid("Unknown console type %q", req.Type)
	}
	if err := checkSize(req.Width, req.Height); err != nil {
		return op.Spec{}, err
	}
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	if err := e.mustRun(); err != nil {
		return op.Spec{}, err
	}
	d, err := s.driverOf(e)
	if err != nil {
		return op.Spec{}, err
	}
	spec := instanceOp("Showing console", e.name())
	spec.Class, spec.Sockets = op.Websocket, []string{"0", "control"}
	spec.Run = func(ctx context.Context, h op.Handle) error { return s.attachConsole(ctx, h, d, e, req) }
	s.event(ctx, e.name(), "instance-console", map[string]any{"type": "console"})
	return spec, nil
}

// attachConsole copies both ways until the client leaves or the instance stops.
func (s *Service) attachConsole(ctx context.Context, h op.Handle, d driver.Driver, e *entry, req api.InstanceConsolePost) error {
	sock, err := h.Socket(ctx, "0")
	if err != nil {
		return err
	}
	defer sock.Close()
	con, err := d.Console(ctx, e.id)
	if err != nil {
		return err
	}
	defer con.Close()
	if req.Width > 0 && req.Height > 0 {
		_ = con.Resize(req.Width, req.Height)
	}
	gone := make(chan struct{}, 1)
	leave := func() {
		select {
		case gone <- struct{}{}:
		default: // somebody said so before
		}
	}
	stop := watch(ctx, h, session{con, leave})
	defer stop()
	go func() { _, _ = io.Copy(con, sock); leave() }()
	go func() { _, _ = io.Copy(sock, con); leave() }()
	<-gone
	return nil
}

// session lets the control socket steer a console: what would kill a command ends the session.
type session struct {
	driver.Console
	leave func()
}

func (c session) Signal(sig int) error {
	if sig == 9 {
		c.leave()
	}
	return nil
}

// drain waits for the rest of the output; a background process that keeps the terminal open does not hold it up for ever.
func drain(out <-chan struct{}) {
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-out:
	case <-t.C:
	}
}

// ConsoleLog returns what the console printed lately, also of a stopped instance.
func (s *Service) ConsoleLog(ctx context.Context, project api.ProjectName, name string) ([]byte, error) {
	e, err := s.find(project, name)
	if err != nil {
		return nil, err
	}
	d, err := s.driverOf(e)
	if err != nil {
		return nil, err
	}
	return d.ConsoleLog(ctx, s.consoleSpec(e))
}

// ClearConsoleLog empties it.
func (s *Service) ClearConsoleLog(ctx context.Context, project api.ProjectName, name string) error {
	e, err := s.find(project, name)
	if err != nil {
		return err
	}
	d, err := s.driverOf(e)
	if err != nil {
		return err
	}
	err = d.ClearConsoleLog(ctx, s.consoleSpec(e))
	if err == nil {
		s.event(ctx, e.name(), "instance-console-reset", nil)
	}
	return err
}

// consoleSpec is as much of a spec as finding the console log of an instance takes, running or stopped.
func (s *Service) consoleSpec(e *entry) driver.Spec {
	r := e.name()
	return driver.Spec{ID: e.id, Dir: s.runDir(e.id), LogDir: s.logDir(r), Hostname: r.name.String()}
}
