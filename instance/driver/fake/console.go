package fake

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

const consoleMax = 1 << 20

// console echoes what is typed, as a terminal without a program behind it does.
type console struct {
	mu    sync.Mutex
	log   []byte
	conns map[*attached]struct{}
}

func newConsole() *console { return &console{conns: map[*attached]struct{}{}} }

func (c *console) print(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, s...)
	if over := len(c.log) - consoleMax; over > 0 {
		c.log = c.log[over:]
	}
	for a := range c.conns {
		a.buf.put([]byte(s))
	}
}

func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.conns {
		a.buf.close()
	}
	clear(c.conns)
}

type attached struct {
	c   *console
	buf *buffer
}

func (a *attached) Read(p []byte) (int, error) { return a.buf.read(p) }
func (a *attached) Write(p []byte) (int, error) {
	a.c.mu.Lock()
	_, on := a.c.conns[a]
	a.c.mu.Unlock()
	if !on {
		return 0, io.ErrClosedPipe
	}
	a.c.print(string(p))
	return len(p), nil
}
func (a *attached) Resize(_, _ int) error { return nil }
func (a *attached) Close() error {
	a.c.mu.Lock()
	defer a.c.mu.Unlock()
	delete(a.c.conns, a)
	a.buf.close()
	return nil
}

// Console implements [driver.Driver].
func (d *Driver) Console(ctx context.Context, id string) (driver.Console, error) {
	var out driver.Console
	err := d.h.do(ctx, "console", id, func() error {
		return d.with(id, func(g *guest) error {
			if g.state == exited {
				return errs.Invalid("Instance is not running")
			}
			a := &attached{c: g.console, buf: newBuffer()}
			g.console.mu.Lock()
			g.console.conns[a] = struct{}{}
			g.console.mu.Unlock()
			out = a
			return nil
		})
	})
	return out, err
}

// ConsoleLog implements [driver.Driver].
func (d *Driver) ConsoleLog(ctx context.Context, spec driver.Spec) ([]byte, error) {
	var out []byte
	err := d.h.do(ctx, "consolelog", spec.ID, func() error {
		c := d.h.console(spec.ID)
		c.mu.Lock()
		defer c.mu.Unlock()
		out = append(out, c.log...)
		return nil
	})
	return out, err
}

// ClearConsoleLog implements [driver.Driver].
func (d *Driver) ClearConsoleLog(ctx context.Context, spec driver.Spec) error {
	return d.h.do(ctx, "clearconsolelog", spec.ID, func() error {
		c := d.h.console(spec.ID)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.log = nil
		return nil
	})
}

// console returns the ID's console; its log outlives the instance's runs.
func (h *Host) console(id string) *console {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.consoles[id]
	if c == nil {
		c = newConsole()
		h.consoles[id] = c
	}
	return c
}

// buffer is an unbounded pipe: writers never wait for readers.
type buffer struct {
	mu     sync.Mutex
	cond   *sync.Cond
	data   []byte
	closed bool
}

func newBuffer() *buffer {
	b := &buffer{}
	b.cond = sync.NewCond(&b.mu)
	return b
}

func (b *buffer) put(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	b.cond.Broadcast()
}

func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Broadcast()
}

func (b *buffer) read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 && !b.closed {
		b.cond.Wait()
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func newPipe() (net.Conn, net.Conn) { return net.Pipe() }
