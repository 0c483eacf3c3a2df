package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// execs numbers commands, for the names of their files.
type execs struct{ n atomic.Uint64 }

// command is one that runs inside the container as our child.
type command struct {
	mu     sync.Mutex
	pid    int
	reaped bool
}

// exec starts a command and stays with its connection until the command ends. The runtime detaches, so the command holds the
// client's descriptors itself, nothing stands between them, and nothing but us waits: a background child that keeps stdout open
// does not keep the exit code back.
func (s *shim) exec(conn *net.UnixConn, req shimproto.Request, fds []*os.File) {
	cmd, pty, err := s.startCommand(req, fds)
	for _, f := range fds {
		_ = f.Close() // else the client never sees the end of its pipes
	}
	if err != nil {
		reply(conn, err)
		return
	}
	b, _ := json.Marshal(shimproto.Reply{PID: cmd.pid})
	var rights []byte
	if pty >= 0 {
		rights = unix.UnixRights(pty)
	}
	_, _, werr := conn.WriteMsgUnix(append(b, '\n'), rights, nil)
	if pty >= 0 {
		_ = unix.Close(pty)
	}
	if werr == nil {
		go cmd.obey(conn)
	}
	code := cmd.wait()
	b, _ = json.Marshal(shimproto.Reply{Exited: true, Code: code})
	_, _ = conn.Write(append(b, '\n'))
}

func (s *shim) startCommand(req shimproto.Request, fds []*os.File) (*command, int, error) {
	want := 3
	if req.Preserve {
		want = 4
	}
	if len(fds) != want {
		return nil, -1, fmt.Errorf("want %d descriptors, got %d", want, len(fds))
	}
	if req.Spec == "" || req.Spec != filepath.Base(req.Spec) {
		return nil, -1, fmt.Errorf("bad name %q of a process file", req.Spec)
	}
	defer os.Remove(req.Spec)
	name := "exec" + strconv.FormatUint(s.execs.n.Add(1), 10)
	pidFile := name + ".pid"
	defer os.Remove(pidFile)
	args := []string{"exec", "--detach", "--process", req.Spec, "--pid-file", pidFile}
	var ptys *ptyReceiver
	if req.Terminal {
		var err error
		if ptys, err = awaitPTY(name+".sock", req.Width, req.Height); err != nil {
			return nil, -1, err
		}
		defer ptys.close()
		args = append(args, "--console-socket", name+".sock")
	}
	if req.Preserve {
		args = append(args, "--preserve-fds", "1")
	}
	run := s.runtime(append(args, s.cfg.ID)...)
	run.Stdin, run.Stdout, run.Stderr, run.ExtraFiles = fds[0], fds[1], fds[2], fds[3:]
	if err := run.Run(); err != nil {
		return nil, -1, fmt.Errorf("%s exec: %w", s.cfg.Runtime, err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, -1, err
	}
	cmd := &command{}
	if cmd.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return nil, -1, fmt.Errorf("pid file of the command: %w", err)
	}
	if ptys == nil {
		return cmd, -1, nil
	}
	fd, err := ptys.receive(5 * time.Second)
	if err != nil {
		_ = unix.Kill(cmd.pid, unix.SIGKILL)
		cmd.wait()
		return nil, -1, fmt.Errorf("receive the terminal: %w", err)
	}
	return cmd, fd, nil
}

// wait reaps the command and returns its code. The lock is taken only once it is a zombie, so that a signal meets
// either the command or nobody, never a process that got its number.
func (c *command) wait() int {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	var ws unix.WaitStatus
	if _, err := unix.Wait4(c.pid, &ws, 0, nil); err != nil {
		return 255
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// obey passes signals on until the client goes. A command outlives its client: whoever wants it to end says so.
func (c *command) obey(conn *net.UnixConn) {
	for {
		line, err := readLine(conn)
		if err != nil {
			return
		}
		var req shimproto.Request
		if json.Unmarshal(line, &req) != nil || req.Op != shimproto.OpSignal || req.Signal <= 0 || req.Signal > 64 {
			continue
		}
		c.mu.Lock()
		if !c.reaped {
			_ = unix.Kill(c.pid, unix.Signal(req.Signal))
		}
		c.mu.Unlock()
	}
}
