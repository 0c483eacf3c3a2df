package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// startTimeout bounds how long init may take to notice that it may run.
const startTimeout = 30 * time.Second

// start lets the created container run. runc's init waits in the opening of a fifo for somebody who reads from it, and
// "runc start" is a whole process that does only that and then removes the fifo (see runc's libcontainer,
// Container.Exec). We do it ourselves; another runtime is asked.
func (s *shim) start() error {
	if filepath.Base(s.cfg.Runtime) != "runc" {
		return s.runtimeStart()
	}
	path := filepath.Join(shimproto.RuntimeDir, s.cfg.ID, shimproto.ExecFifo)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return s.runtimeStart() // it knows why
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(startTimeout); ; {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 100)
		switch {
		case errors.Is(err, unix.EINTR) || err == nil && n == 0:
			if now, err := shimproto.Identify(s.init.PID); err != nil || now != s.init {
				return errors.New("init ended before it was started")
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("init did not start within %s", startTimeout)
			}
			continue
		case err != nil:
			return fmt.Errorf("wait for init: %w", err)
		}
		var b [1]byte
		if n, err := unix.Read(fd, b[:]); err != nil || n == 0 {
			return fmt.Errorf("init ended before it was started: %w", errors.Join(err, errors.New("nothing on the fifo")))
		}
		return os.Remove(path) // its absence tells the runtime, and us, that the container runs
	}
}

func (s *shim) runtimeStart() error {
	out, err := s.runtime("start", s.cfg.ID).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s start: %w: %.2000s", s.cfg.Runtime, err, out)
	}
	return nil
}
