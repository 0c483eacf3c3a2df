package instance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/test/instancetest"
)

// socket is both ends of one connected websocket: the methods of op.Socket are the server's, the fields the client's.
type socket struct {
	fromClient *io.PipeReader
	typed      *io.PipeWriter // what the client sends; Close is its end mark
	mu         sync.Mutex
	seen       bytes.Buffer  // what the client has got
	ended      chan struct{} // closed with the server's end mark
	frames     chan []byte   // text frames of the client; closed when it leaves
	end        func()
}

func newSocket() *socket {
	s := &socket{ended: make(chan struct{}), frames: make(chan []byte, 16)}
	s.fromClient, s.typed = io.Pipe()
	s.end = sync.OnceFunc(func() { close(s.ended); _ = s.fromClient.Close() })
	return s
}

func (s *socket) Read(p []byte) (int, error) { return s.fromClient.Read(p) }
func (s *socket) Write(p []byte) (int, error) {
	select {
	case <-s.ended:
		return 0, errors.New("written after the end mark")
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(p)
}
func (s *socket) Close() error { s.end(); return nil }
func (s *socket) ReadText(ctx context.Context) ([]byte, error) {
	select {
	case b, ok := <-s.frames:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-s.ended:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *socket) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// client is an operation whose websockets are connected.
type client struct {
	instancetest.Handle
	socks map[string]*socket
}

func newClient(names ...string) *client {
	c := &client{socks: map[string]*socket{}}
	for _, n := range names {
		c.socks[n] = newSocket()
	}
	return c
}

func (c *client) Socket(ctx context.Context, name string) (op.Socket, error) {
	if s := c.socks[name]; s != nil {
		return s, nil
	}
	<-ctx.Done() // a client that does not connect it
	return nil, ctx.Err()
}

// command is a process of the double: the test plays the guest.
type command struct {
	tty, guest *os.File // the two ends of the terminal
	mu         sync.Mutex
	log        []string // resizes and signals
	exit       chan int
}

func (c *command) TTY() *os.File { return c.tty }
func (c *command) note(format string, a ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf(format, a...))
	return nil
}
func (c *command) Resize(w, h int) error { return c.note("%dx%d", w, h) }
func (c *command) Signal(sig int) error {
	if sig == 9 {
		c.leave(137)
	}
	return c.note("signal %d", sig)
}
func (c *command) Wait() (int, error)          { return <-c.exit, nil }
func (c *command) Read(p []byte) (int, error)  { return c.tty.Read(p) }
func (c *command) Write(p []byte) (int, error) { return c.tty.Write(p) }
func (c *command) Close() error                { return c.tty.Close() }

// leave ends the command.
func (c *command) leave(code int) {
	select {
	case c.exit <- code:
		_ = c.guest.Close()
	default:
	}
}

func (c *command) has(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(strings.Join(c.log, ","), what)
}

// terminals replaces commands and consoles of the fake driver by ones that the test plays.
type terminals struct {
	driver.Driver
	started chan *command
}

func (d *terminals) open() (*command, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	c := &command{tty: os.NewFile(uintptr(fds[0]), "tty"), guest: os.NewFile(uintptr(fds[1]), "guest"), exit: make(chan int, 1)}
	d.started <- c
	return c, nil
}

func (d *terminals) Exec(context.Context, string, driver.ExecRequest) (driver.Process, error) {
	return d.open()
}
func (d *terminals) Console(context.Context, string) (driver.Console, error) { return d.open() }

// withTerminal is a world with the running instance c1, whose commands and consoles the test plays.
func withTerminal(t *testing.T) (*instancetest.World, *terminals) {
	t.Helper()
	d := &terminals{started: make(chan *command, 1)}
	w := instancetest.New(t, func(deps *instance.Deps) {
		d.Driver = deps.Drivers[api.TypeContainer]
		deps.Drivers = map[string]driver.Driver{api.TypeContainer: d}
	})
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	return w, d
}

// run starts an operation with a client; the channel gets its result.
func run(ctx context.Context, t *testing.T, c *client, spec op.Spec, err error) chan error {
	t.Helper()
	must(t, err)
	if spec.Class != op.Websocket || len(spec.Sockets) < 2 {
		t.Fatalf("operation %+v", spec)
	}
	done := make(chan error, 1)
	go func() { done <- spec.Run(ctx, c) }()
	return done
}

func exec(t *testing.T, w *instancetest.World, interactive bool, cmd ...string) (op.Spec, error) {
	t.Helper()
	return w.Exec(t.Context(), project, "c1", api.InstanceExecPost{Command: cmd, WaitForWS: true, Interactive: interactive, Width: 80, Height: 24})
}

func TestExecTerminal(t *testing.T) {
	for _, tt := range []struct {
		name    string
		control bool
		play    func(t *testing.T, c *client, p *command, cancel func())
		code    int
		output  string
	}{
		{"ends by itself", true, func(t *testing.T, _ *client, p *command, _ func()) {
			_, _ = p.guest.WriteString("out\r\n")
			p.leave(3)
		}, 3, "out\r\n"},
		{"without a control socket", false, func(t *testing.T, _ *client, p *command, _ func()) { p.leave(0) }, 0, ""},
		{"typing", true, func(t *testing.T, c *client, p *command, _ func()) {
			_, _ = c.socks["0"].typed.Write([]byte("ls\r"))
			b := make([]byte, 3)
			if _, err := io.ReadFull(p.guest, b); err != nil || string(b) != "ls\r" {
				t.Errorf("the guest got %q %v", b, err)
			}
			_, _ = p.guest.Write(b)
			p.leave(0)
		}, 0, "ls\r"},
		{"resize and signals", true, func(t *testing.T, c *client, p *command, _ func()) {
			for _, frame := range []string{
				`{"command":"window-resize","args":{"width":"120","height":"40"}}`,
				`junk`, `{"command":"window-resize","args":{"width":"-1","height":"40"}}`, `{"command":"window-resize","args":{"width":"99999","height":"1"}}`,
				`{"command":"signal","signal":0}`, `{"command":"signal","signal":65}`, `{"command":"` + strings.Repeat("x", 8192) + `"}`,
				`{"command":"signal","signal":15}`,
			} {
				c.socks["control"].frames <- []byte(frame)
			}
			eventually(t, "the signal", func() bool { return p.has("signal 15") })
			p.mu.Lock()
			got := strings.Join(p.log, ",")
			p.mu.Unlock()
			if got != "120x40,signal 15" {
				t.Errorf("steered: %s", got)
			}
			p.leave(0)
		}, 0, ""},
		{"client leaves", true, func(t *testing.T, c *client, p *command, _ func()) { close(c.socks["control"].frames) }, 137, ""},
		{"operation is cancelled", true, func(t *testing.T, _ *client, _ *command, cancel func()) { cancel() }, 137, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, d := withTerminal(t)
			c := newClient("0")
			if tt.control {
				c = newClient("0", "control")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			spec, err := exec(t, w, true, "sh")
			done := run(ctx, t, c, spec, err)
			p := <-d.started
			tt.play(t, c, p, cancel)
			must(t, <-done)
			for name, s := range c.socks {
				select {
				case <-s.ended:
				default:
					t.Errorf("socket %s has no end mark", name)
				}
			}
			if got := c.socks["0"].got(); got != tt.output {
				t.Errorf("output %q, want %q", got, tt.output)
			}
			if c.Metadata["return"] != tt.code {
				t.Errorf("return %v, want %d", c.Metadata["return"], tt.code)
			}
		})
	}
}

func TestExecPipes(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	_, err := exec(t, w, false, "true")
	wantErr(t, err, errs.InvalidInput, "Instance is not running")
	must(t, do(t, w, "c1", "start"))
	for _, tt := range []struct {
		name           string
		cmd            []string
		stdin          string
		code           int
		stdout, stderr string
		err            string
	}{
		{"streams apart", []string{"sh", "-c", "echo a; echo b >&2; exit 3"}, "", 3, "a\n", "b\n", ""},
		{"input until its end mark", []string{"cat"}, "hello", 0, "hello", "", ""},
		{"not found", []string{"nope"}, "", 127, "", "", "Command not found"},
		{"not executable", []string{"/etc"}, "", 126, "", "", "Command not executable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient("0", "1", "2", "control")
			spec, err := exec(t, w, false, tt.cmd...)
			done := run(t.Context(), t, c, spec, err)
			if tt.stdin != "" {
				_, _ = c.socks["0"].typed.Write([]byte(tt.stdin))
			}
			_ = c.socks["0"].typed.Close()
			if err := <-done; tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if c.socks["1"].got() != tt.stdout || c.socks["2"].got() != tt.stderr || c.Metadata["return"] != tt.code {
				t.Errorf("%q %q %v", c.socks["1"].got(), c.socks["2"].got(), c.Metadata["return"])
			}
			for name, s := range c.socks {
				select {
				case <-s.ended:
				default:
					t.Errorf("socket %s has no end mark", name)
				}
			}
		})
	}
	t.Run("client leaves", func(t *testing.T) {
		c := newClient("0", "1", "2", "control")
		spec, err := exec(t, w, false, "sleep")
		done := run(t.Context(), t, c, spec, err)
		eventually(t, "the command", func() bool { return w.Guests.Calls("exec") == 5 })
		close(c.socks["control"].frames)
		must(t, <-done)
		if c.Metadata["return"] != 137 {
			t.Errorf("return %v", c.Metadata["return"])
		}
	})
	must(t, do(t, w, "c1", "stop"))
}

func TestConsole(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(t *testing.T, w *instancetest.World, c *client, p *command, cancel func())
	}{
		{"client leaves", func(_ *testing.T, _ *instancetest.World, c *client, _ *command, _ func()) {
			close(c.socks["control"].frames)
		}},
		{"client ends its input", func(_ *testing.T, _ *instancetest.World, c *client, _ *command, _ func()) {
			_ = c.socks["0"].typed.Close()
		}},
		{"operation is cancelled", func(_ *testing.T, _ *instancetest.World, _ *client, _ *command, cancel func()) { cancel() }},
		{"console ends", func(_ *testing.T, _ *instancetest.World, _ *client, p *command, _ func()) { _ = p.guest.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, d := withTerminal(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := newClient("0", "control")
			spec, err := w.Console(t.Context(), project, "c1", api.InstanceConsolePost{Width: 80, Height: 24})
			done := run(ctx, t, c, spec, err)
			p := <-d.started
			c.socks["control"].frames <- []byte(`{"command":"window-resize","args":{"width":"120","height":"40"}}`)
			eventually(t, "the resize", func() bool { return p.has("80x24,120x40") })
			_, _ = p.guest.WriteString("login: ")
			_, _ = c.socks["0"].typed.Write([]byte("root\r"))
			b := make([]byte, 5)
			if _, err := io.ReadFull(p.guest, b); err != nil || string(b) != "root\r" {
				t.Errorf("the guest got %q %v", b, err)
			}
			eventually(t, "the prompt", func() bool { return c.socks["0"].got() == "login: " })
			tt.play(t, w, c, p, cancel)
			must(t, <-done)
			for name, s := range c.socks {
				select {
				case <-s.ended:
				default:
					t.Errorf("socket %s has no end mark", name)
				}
			}
			if p.has("signal") {
				t.Error("leaving the console sent a signal to the guest")
			}
			wantStatus(t, w, "c1", api.Running)
			_ = p.guest.Close()
		})
	}
	w, _ := withTerminal(t)
	_, err := w.Console(t.Context(), project, "c1", api.InstanceConsolePost{Type: "vga"})
	wantErr(t, err, errs.InvalidInput, "VGA console")
	_, err = w.Console(t.Context(), project, "c1", api.InstanceConsolePost{Width: -1})
	wantErr(t, err, errs.InvalidInput, "terminal size")
}
