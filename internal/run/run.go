package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Limits that hold where a Command says nothing else.
const (
	DefaultTimeout   = 2 * time.Minute
	DefaultMaxOutput = 1 << 20 // bytes of captured standard output
	stderrTail       = 4 << 10 // bytes kept of the end of standard error
)

// Command describes one call of a host program. The zero values of all fields but Name are usable.
type Command struct {
	// Name is a program, looked up on a fixed search path (never the one of whoever started the daemon),
	// or an absolute path.
	Name string
	// Args are sub-commands and options that our own code wrote. Values from outside belong into
	// Operands or, as "--option=value", behind an option.
	Args []string
	// Operands follow after "--".
	Operands []string
	// NoGuard leaves "--" away for programs that do not know it; operands that begin with "-" are refused.
	NoGuard bool

	Env     []string // "KEY=value", added to the fixed environment (PATH, HOME, LANG)
	Inherit []string // names of variables to take over from the daemon's environment, for example "https_proxy"
	Dir     string   // working directory; empty: /

	Stdin  io.Reader // nil: /dev/null
	Stdout io.Writer // nil: captured into Result.Stdout, up to MaxOutput
	Stderr io.Writer // nil: the tail is kept for the error

	// Timeout ends the program; 0 means DefaultTimeout, negative none. Start ignores it.
	Timeout time.Duration
	// MaxOutput limits captured standard output in bytes; 0 means DefaultMaxOutput. More is an error.
	MaxOutput int

	ExtraFiles  []*os.File // become descriptors 3, 4, …
	SysProcAttr *syscall.SysProcAttr
}

// Argv returns the argument vector, the program's name included, as it will be executed.
func (c Command) Argv() []string {
	argv := append([]string{c.Name}, c.Args...)
	if len(c.Operands) > 0 && !c.NoGuard {
		argv = append(argv, "--")
	}
	return append(argv, c.Operands...)
}

// String returns the command for logs and errors: separated by spaces, arguments quoted where needed.
func (c Command) String() string {
	argv := c.Argv()
	for i, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n\r\"'\\$") {
			argv[i] = fmt.Sprintf("%q", a)
		}
	}
	return strings.Join(argv, " ")
}

// Validate reports errs.InvalidInput for what can never be executed safely.
func (c Command) Validate() error {
	if c.Name == "" || strings.HasPrefix(c.Name, "-") {
		return errs.Invalid("bad program name %q", c.Name)
	}
	if strings.Contains(c.Name, "/") && c.Name[0] != '/' {
		return errs.Invalid("program %q: a path must be absolute", c.Name)
	}
	for _, a := range c.Argv() {
		if strings.ContainsRune(a, 0) {
			return errs.Invalid("%s: an argument contains a NUL byte: %q", c.Name, a)
		}
	}
	for _, e := range c.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			return errs.Invalid("%s: bad environment entry %q", c.Name, e)
		}
	}
	if c.NoGuard {
		for _, o := range c.Operands {
			if strings.HasPrefix(o, "-") {
				return errs.Invalid("%s: operand %q must not begin with a hyphen", c.Name, o)
			}
		}
	}
	return nil
}

// Result is what a program left behind.
type Result struct {
	Stdout   []byte // empty when Command.Stdout was set
	Stderr   string // the last few KiB; empty when Command.Stderr was set
	Duration time.Duration
}

// Error says how a program failed.
type Error struct {
	Command  string // as [Command.String] gives it
	ExitCode int    // -1 when it was ended by a signal or never ran
	Signal   syscall.Signal
	Stderr   string // the last few KiB
	Err      error  // the cause below, for errors.Is
}

// Error names the program, how it ended and the last line that it wrote to standard error.
func (e *Error) Error() string {
	how := fmt.Sprintf("exit status %d", e.ExitCode)
	switch {
	case e.Signal != 0:
		how = fmt.Sprintf("ended by signal %d (%v)", int(e.Signal), e.Signal)
	case e.ExitCode < 0 && e.Err != nil:
		how = e.Err.Error()
	}
	if e.ExitCode < 0 && e.Signal != 0 && e.Err != nil {
		how += ": " + e.Err.Error()
	}
	if s := strings.TrimSpace(e.Stderr); s != "" {
		how += ": " + s
	}
	return e.Command + ": " + how
}

// Unwrap returns the cause, for example context.DeadlineExceeded.
func (e *Error) Unwrap() error { return e.Err }

// Process is a program that goes on running. Its methods are safe for concurrent use.
type Process interface {
	PID() int
	// Wait blocks until the program ends and returns what Run would; every caller gets the same answer.
	Wait() error
	// Signal sends a signal to the program; os.ErrProcessDone when it has ended.
	Signal(sig os.Signal) error
}

// Runner runs host programs. Implementations are safe for concurrent use.
type Runner interface {
	// Run runs a program to its end. Result is filled as far as possible with an error too. When ctx ends
	// or the time is over, the program and all that it started in its process group are killed.
	Run(ctx context.Context, c Command) (Result, error)
	// Start starts a program and leaves it alone: neither ctx nor the end of the daemon ends it. Stdout and
	// Stderr that are nil go to /dev/null; give files, not writers, to what shall outlive the daemon.
	Start(ctx context.Context, c Command) (Process, error)
}
