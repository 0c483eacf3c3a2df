package elastic

import (
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// socket lets etcdctl in, for root only: its mode says so, and each caller is asked for who it is besides. It belongs to no member: where no copy
// runs, connections are closed.
type socket struct {
	l    *net.UnixListener
	wg   sync.WaitGroup
	mu   sync.Mutex
	m    *Member
	srv  *rpcServer
	from func() *Member
}

func listenSocket(path string, from func() *Member) (*socket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	s := &socket{l: l, from: from}
	s.wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if !mayUse(c) || !s.serve(c) {
				c.Close()
			}
		}
	})
	return s, nil
}

// mayUse says whether root, or the user that this process runs as, is at the other end.
func mayUse(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && (u.Uid == 0 || int(u.Uid) == os.Geteuid())
	})
	return err == nil && ok
}

func (s *socket) serve(c net.Conn) bool {
	m := s.from()
	if m == nil {
		return false
	}
	s.mu.Lock()
	if s.m != m {
		old := s.srv
		s.m, s.srv = m, newRPC(m, s.l.Addr())
		if old != nil {
			defer old.close()
		}
	}
	srv := s.srv
	s.mu.Unlock()
	return srv.take(c)
}

// drop ends what is connected to a member that stops.
func (s *socket) drop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	old := s.srv
	s.m, s.srv = nil, nil
	s.mu.Unlock()
	if old != nil {
		old.close()
	}
}

func (s *socket) close() {
	if s == nil {
		return
	}
	s.l.Close()
	s.wg.Wait()
	s.drop()
}
