package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
)

// dial connects to the control socket below dir. A socket's path may have 107 bytes at most, ours are longer: it is named
// through a descriptor of its directory.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), shimproto.ControlFile))
	if err != nil {
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
			return nil, errs.Unavailable("the instance's monitor process is gone; the instance goes on, but needs a restart for this")
		}
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// send connects and writes a request with descriptors.
func (d *Driver) send(ctx context.Context, r *record, req shimproto.Request, fds ...*os.File) (*net.UnixConn, error) {
	if r.shimless.Load() {
		return nil, errs.Unavailable("the instance's monitor process is gone; the instance goes on, but needs a restart for this")
	}
	conn, err := dial(ctx, r.spec.Dir)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(req)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	var rights []byte
	if len(fds) > 0 {
		var nums []int
		for _, f := range fds {
			nums = append(nums, int(f.Fd()))
		}
		rights = unix.UnixRights(nums...)
	}
	if _, _, err := conn.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("send %s to the shim: %w", req.Op, err)
	}
	return conn, nil
}

// ask sends a request and returns the reply.
func (d *Driver) ask(ctx context.Context, r *record, req shimproto.Request) (shimproto.Reply, error) {
	conn, err := d.send(ctx, r, req)
	if err != nil {
		return shimproto.Reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := readLine(conn)
	if ctx.Err() != nil {
		return shimproto.Reply{}, context.Cause(ctx)
	}
	if err != nil {
		return shimproto.Reply{}, fmt.Errorf("answer of the shim to %s: %w", req.Op, err)
	}
	return parseReply(line)
}

func parseReply(line []byte) (shimproto.Reply, error) {
	var rep shimproto.Reply
	if err := json.Unmarshal(line, &rep); err != nil {
		return rep, fmt.Errorf("answer of the shim: %w", err)
	}
	if rep.Error != "" {
		return rep, errors.New(rep.Error)
	}
	return rep, nil
}

// readLine reads up to a newline byte by byte: what follows belongs to somebody else.
func readLine(conn net.Conn) ([]byte, error) {
	var out []byte
	var b [1]byte
	for len(out) < shimproto.MaxLine*4 {
		if _, err := conn.Read(b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return out, nil
		}
		out = append(out, b[0])
	}
	return nil, errors.New("the answer is too long")
}
