package compat_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"

	"github.com/shoal-project/shoal/test/harness"
)

// screen collects what a program writes on its terminal.
type screen struct {
	mu   sync.Mutex
	data []byte
	from int // everything before this has been expected already
	more chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.data = append(s.data, p...)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// expect waits until something after what was expected last matches.
func (s *screen) expect(expr string, closed <-chan struct{}) error {
	re, err := regexp.Compile(expr)
	if err != nil {
		return err
	}
	deadline := time.After(harness.Patience)
	for last := false; ; {
		s.mu.Lock()
		loc := re.FindIndex(s.data[s.from:])
		if loc != nil {
			s.from += loc[1]
		}
		seen := string(s.data[s.from:])
		s.mu.Unlock()
		if loc != nil {
			return nil
		}
		if last {
			return fmt.Errorf("the program ended without %q; it wrote %q", expr, seen)
		}
		select {
		case <-s.more:
		case <-closed:
			last = true
		case <-deadline:
			return fmt.Errorf("no %q on the terminal, only %q", expr, seen)
		}
	}
}

// onTerminal runs a command on a terminal of 80x24 and plays the steps. It returns all that was written, how the command
// ended, and which step failed.
func onTerminal(cmd *exec.Cmd, steps string) (out string, ended, failed error) {
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = tty.Close() }()
	s := &screen{more: make(chan struct{}, 1)}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			_, _ = s.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	failed = play(steps, s, tty, closed)
	if failed != nil {
		_ = cmd.Process.Kill()
	}
	timer := time.AfterFunc(harness.Patience, func() { _ = cmd.Process.Kill() })
	ended = cmd.Wait()
	timer.Stop()
	<-closed
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.data), ended, failed
}

func play(steps string, s *screen, tty *os.File, closed <-chan struct{}) error {
	for line := range strings.Lines(steps) {
		line = strings.TrimRight(line, "\n")
		verb, arg, _ := strings.Cut(line, " ")
		switch verb {
		case "", "#":
		case "expect":
			if err := s.expect(arg, closed); err != nil {
				return err
			}
		case "send":
			text, err := strconv.Unquote(`"` + arg + `"`)
			if err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			if _, err := tty.Write([]byte(text)); err != nil {
				return err
			}
		case "detach":
			if err := detach(tty, closed); err != nil {
				return err
			}
		case "resize":
			var cols, rows uint16
			if _, err := fmt.Fscanf(bytes.NewBufferString(arg), "%dx%d", &cols, &rows); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			if err := pty.Setsize(tty, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown step %q", line)
		}
	}
	return nil
}

// detach presses ctrl+a q until the program has ended. Once is not enough: lxc looks only at the first byte of what it
// reads, so the two keys have to arrive one by one, and a terminal does not tell when a program has read what was typed.
func detach(tty *os.File, closed <-chan struct{}) error {
	deadline := time.After(harness.Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := tty.Write([]byte{"\x01q"[i%2]}); err != nil {
			return nil // it has closed the terminal
		}
		select {
		case <-closed:
			return nil
		case <-deadline:
			return errors.New("still attached after ctrl+a q")
		case <-tick.C:
		}
	}
}
