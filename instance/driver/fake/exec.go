package fake

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// process is a command of the fake guest.
type process struct {
	once sync.Once
	done chan struct{}
	code int
	tty  *os.File // our end; a pipe, as no terminal is needed to echo
	size [2]int
	mu   sync.Mutex
}

func (p *process) kill(code int) {
	p.once.Do(func() {
		p.code = code
		close(p.done)
	})
}

func (p *process) TTY() *os.File { return p.tty }
func (p *process) Resize(w, h int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size = [2]int{w, h}
	return nil
}
func (p *process) Signal(sig int) error { p.kill(128 + sig); return nil }
func (p *process) Wait() (int, error)   { <-p.done; return p.code, nil }

// Exec implements [driver.Driver]. The fake guest knows: true, false, env, pwd, id, cat, echo, sleep, reboot, poweroff
// and sh -c with the commands "exit N" and "echo WORD [>&2]" joined by "; ". /etc is not executable, all else not found.
func (d *Driver) Exec(ctx context.Context, id string, req driver.ExecRequest) (driver.Process, error) {
	p := &process{done: make(chan struct{})}
	err := d.h.do(ctx, "exec", id, func() error {
		if len(req.Command) == 0 {
			return errs.Invalid("the command is empty")
		}
		var g *guest
		if err := d.with(id, func(x *guest) error {
			if err := alive(x); err != nil {
				return err
			}
			g = x
			x.procs[p] = struct{}{}
			return nil
		}); err != nil {
			return err
		}
		stdout := req.Stdout
		if req.Terminal {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			p.tty, stdout = r, w
		}
		d.wg.Go(func() {
			p.kill(d.command(id, p, req, orDiscard(stdout), orDiscard(req.Stderr)))
			if req.Terminal {
				_ = stdout.(*os.File).Close()
			}
			d.h.mu.Lock()
			delete(g.procs, p)
			d.h.mu.Unlock()
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (d *Driver) command(id string, p *process, req driver.ExecRequest, out, errOut io.Writer) int {
	args := req.Command[1:]
	switch req.Command[0] {
	case "true":
	case "false":
		return 1
	case "env":
		for _, k := range slices.Sorted(maps.Keys(req.Env)) {
			fmt.Fprintf(out, "%s=%s\n", k, req.Env[k])
		}
	case "pwd":
		fmt.Fprintln(out, req.Cwd)
	case "id":
		fmt.Fprintln(out, req.User)
	case "echo":
		fmt.Fprintln(out, strings.Join(args, " "))
	case "cat":
		if req.Stdin != nil {
			_, _ = io.Copy(out, req.Stdin)
		}
	case "sleep":
		<-p.done
	case "reboot":
		d.h.Exit(id, driver.Exit{Code: 129, Reboot: true})
	case "poweroff":
		d.h.Exit(id, driver.Exit{Code: 130})
	case "sh":
		return shell(args, out, errOut)
	case "/etc":
		return 126
	default:
		return 127
	}
	return 0
}

func shell(args []string, out, errOut io.Writer) int {
	if len(args) != 2 || args[0] != "-c" {
		return 2
	}
	for _, cmd := range strings.Split(args[1], "; ") {
		w := out
		if c, ok := strings.CutSuffix(cmd, " >&2"); ok {
			w, cmd = errOut, c
		}
		name, arg, _ := strings.Cut(cmd, " ")
		switch name {
		case "echo":
			fmt.Fprintln(w, arg)
		case "exit":
			n, err := strconv.Atoi(arg)
			if err != nil {
				return 2
			}
			return n
		default:
			return 127
		}
	}
	return 0
}
