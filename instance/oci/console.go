package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
)

type console struct {
	*net.UnixConn
	d *Driver
	r *record
}

// Resize tells the terminal its size in characters.
func (c *console) Resize(width, height int) error {
	if width <= 0 || height <= 0 || width > 1<<15 || height > 1<<15 {
		return errs.Invalid("console size %dx%d: want 1 to 32768 in both directions", width, height)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.d.ask(ctx, c.r, shimproto.Request{Op: shimproto.OpResize, Width: uint16(width), Height: uint16(height)})
	return err
}

// Console implements [driver.Driver]. A client that does not read for half a second is dropped by the shim, so that it does
// not hold up the guest.
func (d *Driver) Console(ctx context.Context, id string) (driver.Console, error) {
	r, err := d.running(id)
	if err != nil {
		return nil, err
	}
	conn, err := d.send(ctx, r, shimproto.Request{Op: shimproto.OpAttach})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := readLine(conn)
	if err == nil {
		_, err = parseReply(line)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("attach to the console of %s: %w", id, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &console{conn, d, r}, nil
}

// openLog opens the console log; nil and no error when there is none. The directory is ours, but a link in it is followed by nobody.
func openLog(spec driver.Spec, flags int) (*os.File, error) {
	if !filepath.IsAbs(spec.LogDir) {
		return nil, errs.Invalid("log directory %q is not an absolute path", spec.LogDir)
	}
	f, err := os.OpenFile(filepath.Join(spec.LogDir, shimproto.ConsoleFile), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// ConsoleLog implements [driver.Driver].
func (d *Driver) ConsoleLog(_ context.Context, spec driver.Spec) ([]byte, error) {
	f, err := openLog(spec, os.O_RDONLY)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, shimproto.ConsoleBytes))
}

// ClearConsoleLog implements [driver.Driver].
func (d *Driver) ClearConsoleLog(ctx context.Context, spec driver.Spec) error {
	if r, err := d.running(spec.ID); err == nil {
		if _, err := d.ask(ctx, r, shimproto.Request{Op: shimproto.OpClear}); !errs.Is(err, errs.UnavailableClass) {
			return err
		}
	}
	f, err := openLog(spec, os.O_WRONLY)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	return f.Truncate(0)
}
