package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

const consoleSocket = "console.sock"

// slowClient is how long an attached client may keep the console waiting before it is dropped.
const slowClient = 500 * time.Millisecond

// ptyReceiver waits for the runtime to hand over the container's terminal.
type ptyReceiver struct {
	l   *net.UnixListener
	got chan ptyResult
}

type ptyResult struct {
	fd  int
	err error
}

func awaitPTY(socket string, width, height uint16) (*ptyReceiver, error) {
	_ = os.Remove(socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	r := &ptyReceiver{l: l, got: make(chan ptyResult, 1)}
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			r.got <- ptyResult{err: err}
			return
		}
		defer c.Close()
		fd, err := receiveFD(c)
		if err == nil && width > 0 && height > 0 { // here, so that it is there before the command looks
			err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
		}
		r.got <- ptyResult{fd, err}
	}()
	return r, nil
}

func (r *ptyReceiver) close() { _ = r.l.Close() } // removes the socket too

func (r *ptyReceiver) receive(timeout time.Duration) (int, error) {
	select {
	case res := <-r.got:
		return res.fd, res.err
	case <-time.After(timeout):
		return -1, errors.New("the runtime did not send it")
	}
}

func receiveFD(c *net.UnixConn) (int, error) {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("want one control message, got %d: %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("want one descriptor, got %d: %v", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// console is the container's terminal: its log and the clients that are attached.
type console struct {
	pty    *os.File
	slave  int // see newConsole
	pumped chan struct{}

	mu      sync.Mutex
	path    string
	log     *os.File
	size    int64
	clients map[net.Conn]struct{}
}

func newConsole(fd int, logPath string) (*console, error) {
	// A slave end stays open with us: systemd closes its own and opens /dev/console only now and then, and while no
	// slave is open the master's reads fail.
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("open the console's other end: %w", errno)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	c := &console{
		pty: os.NewFile(uintptr(fd), "console"), slave: int(peer), pumped: make(chan struct{}),
		path: logPath, clients: map[net.Conn]struct{}{},
	}
	return c, c.openLog()
}

func (c *console) openLog() error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open the console log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	c.log, c.size = f, st.Size()
	return nil
}

// pump copies the terminal to the log and to the clients until the terminal is gone.
func (c *console) pump() {
	defer close(c.pumped)
	buf := make([]byte, 4096)
	for {
		n, err := c.pty.Read(buf)
		if n > 0 {
			c.broadcast(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (c *console) broadcast(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log != nil {
		if c.size+int64(len(p)) > shimproto.ConsoleBytes {
			c.shrink()
		}
		n, _ := c.log.Write(p) // a full disk must not stop the container
		c.size += int64(n)
	}
	for conn := range c.clients {
		_ = conn.SetWriteDeadline(time.Now().Add(slowClient))
		if _, err := conn.Write(p); err != nil {
			_ = conn.Close()
			delete(c.clients, conn)
		}
	}
}

// shrink keeps the newest half of the log: written beside and renamed, so that a reader always finds a whole one. Where even
// that fails (a full disk), the log starts anew.
func (c *console) shrink() {
	tmp := c.path + ".tmp"
	err := func() error {
		f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		keep := int64(shimproto.ConsoleBytes / 2)
		if _, err := io.Copy(f, io.NewSectionReader(c.log, max(0, c.size-keep), keep)); err != nil {
			return err
		}
		return os.Rename(tmp, c.path)
	}()
	if err != nil {
		_ = os.Remove(tmp)
		_ = c.log.Truncate(0)
		c.size = 0
		return
	}
	old := c.log
	if c.openLog() == nil {
		_ = old.Close()
	}
}

func (c *console) clear() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = 0
	return c.log.Truncate(0)
}

func (c *console) resize(width, height uint16) error {
	raw, err := c.pty.SyscallConn()
	if err != nil {
		return err
	}
	var ioErr error
	if err := raw.Control(func(fd uintptr) {
		ioErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}); err != nil {
		return err
	}
	return ioErr
}

// attach serves one client until it goes.
func (c *console) attach(conn net.Conn) {
	c.mu.Lock()
	c.clients[conn] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.clients, conn)
		c.mu.Unlock()
	}()
	buf := make([]byte, 1024)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			// A guest that does not read its terminal loses input, as on a real line.
			_ = c.pty.SetWriteDeadline(time.Now().Add(slowClient))
			if _, werr := c.pty.Write(buf[:n]); werr != nil && !errors.Is(werr, os.ErrDeadlineExceeded) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// finish takes what the terminal still holds and lets the clients go. Init has ended, and with it all processes of the container:
// once our slave end is closed, the pump meets the end.
func (c *console) finish() {
	_ = unix.Close(c.slave)
	select {
	case <-c.pumped:
	case <-time.After(time.Second):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.clients {
		_ = conn.Close()
	}
	clear(c.clients)
}
