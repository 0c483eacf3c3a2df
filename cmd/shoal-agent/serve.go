package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/agentproto"
)

// server starts commands for the driver at the other end of a socket. Requests are taken one after the other; a command that has
// started is waited for through its pidfd, so that neither a thread nor a number that may be reused stands for it.
type server struct {
	sock *os.File
	raw  syscall.RawConn

	mu       sync.Mutex
	commands map[uint64]*command // by number
	tidy     *time.Timer         // runs when there are none
}

// tidyAfter is how long after the last command memory is given back: it is the guest's, once for every container.
const tidyAfter = time.Second

// command is a process that we have started and not reaped yet.
type command struct {
	pid int
	fd  *os.File // its pidfd
}

// serveRequests works until the driver closes its end, and returns: the daemon is gone or needs us no more. Commands that run go on
// and become children of the guest's init.
func serveRequests() error {
	// The socket is standard input; it must not be a command's. Standard output is /dev/null, and what the runtime would have said on
	// standard error is no longer of interest.
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Dup3(1, 0, 0), unix.Dup3(1, 2, 0), unix.SetNonblock(fd, true)); err != nil {
		return err
	}
	_ = unix.Close(3) // the descriptor that we were executed from
	s := &server{
		sock: os.NewFile(uintptr(fd), "driver"), commands: map[uint64]*command{}, tidy: time.AfterFunc(tidyAfter, debug.FreeOSMemory),
	}
	if s.raw, err = s.sock.SyscallConn(); err != nil {
		return err
	}
	for {
		b, fds, err := s.receive()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.obey(b, fds)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// receive returns one packet and the descriptors that came with it.
func (s *server) receive() ([]byte, []int, error) {
	var n, on, flags int
	var err error
	size := 0
	// First its size: a buffer for the longest would stay in memory for ever.
	if rerr := s.raw.Read(func(fd uintptr) bool {
		size, _, err = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	}); rerr != nil || err != nil {
		return nil, nil, errors.Join(rerr, err)
	}
	if size == 0 {
		return nil, nil, io.EOF
	}
	if size > agentproto.MaxRequest {
		return nil, nil, fmt.Errorf("request of %d bytes", size)
	}
	b, oob := make([]byte, size), make([]byte, unix.CmsgSpace(4*4))
	if cerr := s.raw.Control(func(fd uintptr) {
		n, on, flags, _, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	}); cerr != nil || err != nil {
		return nil, nil, errors.Join(cerr, err)
	}
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		return nil, nil, errors.New("cut request")
	}
	if on == 0 {
		return b[:n], nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(msgs) != 1 {
		return nil, nil, fmt.Errorf("control messages: %w", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	return b[:n], fds, err
}

// obey does what a request says. An error ends the session.
func (s *server) obey(b []byte, fds []int) error {
	req, err := agentproto.ParseRequest(b)
	if err != nil {
		return err
	}
	if len(fds) != req.Descriptors() {
		return fmt.Errorf("%d descriptors with %q, want %d", len(fds), req.Op, req.Descriptors())
	}
	if req.Op == agentproto.OpSignal {
		s.signal(req)
		return nil
	}
	if !take(fds[0]) {
		return s.send(agentproto.Reply{N: req.N, State: agentproto.Revoked}, -1)
	}
	start := startFiles
	if req.Op == agentproto.OpExec {
		start = startCommand
	}
	cmd, pty, fail := start(req, fds[1:])
	if fail != nil {
		return s.send(*fail, -1)
	}
	err = s.send(agentproto.Reply{N: req.N, State: agentproto.Started}, pty)
	if pty >= 0 {
		_ = unix.Close(pty)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.commands[req.N] = cmd
	s.tidy.Stop()
	s.mu.Unlock()
	go s.await(req.N, cmd)
	return nil
}

// take takes a token; false when the driver was first.
func take(fd int) bool {
	var b [8]byte
	for {
		_, err := unix.Read(fd, b[:])
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// signal reaches a command or, when it has ended, nobody.
func (s *server) signal(req agentproto.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cmd := s.commands[req.N]; cmd != nil {
		if raw, err := cmd.fd.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.Signal(req.Signal), nil, 0) })
		}
	}
}

// await reaps a command and reports its code.
func (s *server) await(n uint64, cmd *command) {
	code := cmd.reap()
	s.mu.Lock()
	delete(s.commands, n)
	if len(s.commands) == 0 {
		s.tidy.Reset(tidyAfter)
	}
	s.mu.Unlock()
	_ = cmd.fd.Close()
	_ = s.send(agentproto.Reply{N: n, State: agentproto.Exited, Code: code}, -1) // a broken socket shows in receive
}

// reap waits for a command's end and returns its code.
func (c *command) reap() int {
	code := 255 // of one whose end could not be seen
	raw, err := c.fd.SyscallConn()
	if err != nil {
		return code
	}
	_ = raw.Read(func(uintptr) bool {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(c.pid, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR || err == nil && pid == 0 {
			return false
		}
		switch {
		case err != nil:
		case ws.Signaled():
			code = 128 + int(ws.Signal())
		default:
			code = ws.ExitStatus()
		}
		return true
	})
	return code
}

func (s *server) send(r agentproto.Reply, fd int) error {
	if len(r.Error) > agentproto.MaxError {
		r.Error = r.Error[:agentproto.MaxError]
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	var serr error
	err = s.raw.Write(func(sock uintptr) bool {
		serr = unix.Sendmsg(int(sock), b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return serr != unix.EAGAIN
	})
	return errors.Join(err, serr)
}
