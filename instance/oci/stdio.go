package oci

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
)

// stdio are the three streams of a command: their ends go to it, ours are copied from and to the request's.
type stdio struct {
	theirs         []*os.File
	stdin          *os.File // nil: the command reads /dev/null
	stdout, stderr *os.File // nil with a terminal; stderr then is where the runtime says why it could not start the command
}

func newStdio(req driver.ExecRequest) (*stdio, error) {
	s := &stdio{}
	err := s.open(req)
	if err != nil {
		s.closeTheirs()
		s.closeOurs()
		return nil, err
	}
	return s, nil
}

func (s *stdio) open(req driver.ExecRequest) error {
	if req.Terminal || req.Stdin == nil {
		if err := s.null(); err != nil {
			return err
		}
	} else {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.theirs, s.stdin = append(s.theirs, r), w
	}
	if req.Terminal {
		if err := s.null(); err != nil {
			return err
		}
	} else {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		s.theirs, s.stdout = append(s.theirs, w), r
	}
	if req.Terminal {
		return nil
	}
	return s.messages()
}

// messages opens standard error, unless it is open.
func (s *stdio) messages() error {
	if s.stderr != nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.theirs, s.stderr = append(s.theirs, w), r
	return nil
}

func (s *stdio) null() error {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		s.theirs = append(s.theirs, f)
	}
	return err
}

func (s *stdio) closeTheirs() {
	for _, f := range s.theirs {
		_ = f.Close()
	}
}

func (s *stdio) closeOurs() {
	for _, f := range []*os.File{s.stdin, s.stdout, s.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// run copies until the streams end; pump counts those of output.
func (s *stdio) run(req driver.ExecRequest, pump *sync.WaitGroup) {
	if s.stdin != nil {
		go func() { // not waited for: a reader that never ends must not keep the exit code back
			_, _ = io.Copy(s.stdin, req.Stdin)
			_ = s.stdin.Close()
		}()
	}
	if req.Terminal {
		_ = s.stderr.Close()
		return
	}
	pump.Go(func() { copyOut(req.Stdout, s.stdout) })
	pump.Go(func() { copyOut(req.Stderr, s.stderr) })
}

// drainTime is how long reading goes on after the command has ended when nothing comes: what it wrote itself is there at once, and
// a background child may hold the pipe open for ever.
const drainTime = 100 * time.Millisecond

// drain lets the copies end even if a child of the command keeps its end open.
func (s *stdio) drain() {
	for _, f := range []*os.File{s.stdout, s.stderr} {
		if f != nil {
			_ = f.SetReadDeadline(time.Now().Add(drainTime))
		}
	}
}

// copyOut copies until the end of the pipe, or, after drain, until it is empty. However slow the client is, it gets all.
func copyOut(to io.Writer, from *os.File) {
	defer from.Close()
	if to == nil {
		to = io.Discard
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = readNow(from, buf) // the deadline says nothing about whether there is something
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				to = io.Discard // the client went: the command must not block on a full pipe
			}
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// readNow reads what is there without waiting.
func readNow(f *os.File, buf []byte) (int, error) {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var rerr error
	if err := raw.Read(func(fd uintptr) bool {
		n, rerr = unix.Read(int(fd), buf)
		return true
	}); err != nil {
		return 0, err
	}
	_ = f.SetReadDeadline(time.Unix(1, 0)) // the next Read comes back here
	return max(n, 0), rerr
}
