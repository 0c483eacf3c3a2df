package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// maxConns bounds what clients can make us hold; the run directory is root's alone, so they are our own daemons.
const maxConns = 64

// control is the socket on which the driver gives its orders. It listens before the container is created and answers after: who
// asks early waits.
type control struct {
	l     *net.UnixListener
	conns atomic.Int32
}

func listen() (*control, error) {
	_ = os.Remove(shimproto.ControlFile)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: shimproto.ControlFile, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	return &control{l: l}, nil
}

func (c *control) serve(s *shim) {
	for {
		conn, err := c.l.AcceptUnix()
		if err != nil {
			return
		}
		if c.conns.Add(1) > maxConns {
			c.conns.Add(-1)
			_ = conn.Close()
			continue
		}
		go func() {
			defer c.conns.Add(-1)
			defer conn.Close()
			s.answer(conn)
		}()
	}
}

func (s *shim) answer(conn *net.UnixConn) {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	line, fds, err := readRequest(conn)
	defer func() {
		for _, f := range fds {
			_ = f.Close()
		}
	}()
	if err != nil {
		return
	}
	var req shimproto.Request
	if err := json.Unmarshal(line, &req); err != nil {
		reply(conn, err)
		return
	}
	switch req.Op {
	case shimproto.OpStatus:
		b, _ := json.Marshal(shimproto.Reply{PID: s.init.PID})
		_, _ = conn.Write(append(b, '\n'))
	case shimproto.OpStart:
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		reply(conn, s.start())
	case shimproto.OpResize:
		reply(conn, s.console.resize(req.Width, req.Height))
	case shimproto.OpClear:
		reply(conn, s.console.clear())
	case shimproto.OpExec:
		_ = conn.SetDeadline(time.Time{})
		s.exec(conn, req, fds)
	case shimproto.OpAttach:
		reply(conn, nil)
		_ = conn.SetDeadline(time.Time{})
		s.console.attach(conn)
	default:
		reply(conn, fmt.Errorf("unknown order %q", req.Op))
	}
}

func reply(conn net.Conn, err error) {
	var r shimproto.Reply
	if err != nil {
		r.Error = err.Error()
	}
	b, _ := json.Marshal(r)
	_, _ = conn.Write(append(b, '\n'))
}

// readRequest reads the first line of a connection and the descriptors that came with its first byte.
func readRequest(conn *net.UnixConn) ([]byte, []*os.File, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, on, flags, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil || n != 1 {
		return nil, nil, errors.Join(err, errors.New("empty request"))
	}
	var files []*os.File
	if on > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return nil, nil, err
		}
		for i := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				continue // other control messages carry no descriptors
			}
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "passed"))
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return nil, files, errors.New("too many descriptors")
	}
	if b[0] == '\n' {
		return nil, files, nil
	}
	rest, err := readLine(conn)
	return append(b[:], rest...), files, err
}

// readLine reads up to a newline, byte by byte: what follows an attach order belongs to the console.
func readLine(conn net.Conn) ([]byte, error) {
	var out []byte
	var b [1]byte
	for len(out) < shimproto.MaxLine {
		if _, err := conn.Read(b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return out, nil
		}
		out = append(out, b[0])
	}
	return nil, errors.New("the request is too long")
}
