package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoal-project/shoal/client"
)

// The exit codes of the program.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// Streams are what a command reads and writes. Terminals are recognised when they are *os.File.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// app is what all commands share.
type app struct {
	Streams
	version string
	project string
	debug   bool
	quiet   bool

	forceLocal bool
	remote     string        // server of the names that were read so far; empty: the default one
	conf       *remotes      // see remotes()
	lines      *bufio.Reader // answers on standard input, see ask

	traceMu sync.Mutex
}

// usageError is a mistake in the arguments; the program ends with exitUsage.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitCodeError ends the program with a code; a nil err is silent.
type exitCodeError struct {
	code int
	err  error
}

func (e *exitCodeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitCodeError) Unwrap() error { return e.err }

// Main runs one command and returns the program's exit code.
func Main(ctx context.Context, version string, args []string, s Streams) int {
	a := &app{Streams: s, version: version}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var code *exitCodeError
	var usage *usageError
	switch {
	case errors.As(err, &code):
		if code.err != nil {
			a.errorf("Error: %s\n", code.err)
		}
		return code.code
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		a.errorf("Error: %s\nRun \"%s --help\" for usage.\n", err, cmd.CommandPath())
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	a.errorf("Error: %s\n", err)
	return exitError
}

// connect returns a client for the server that the command's names are on and the project that was asked for.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	name, r, err := a.server()
	if err != nil {
		return nil, err
	}
	o, err := a.optionsFor(name, r)
	if err != nil {
		return nil, err
	}
	return client.Connect(ctx, o)
}

func (a *app) optionsFor(name string, r remote) (client.Options, error) {
	o := client.Options{Project: a.project, UserAgent: "shoal " + a.version}
	if o.Project == "" {
		o.Project = os.Getenv("SHOAL_PROJECT")
	}
	if o.Project == "" {
		o.Project = r.Project
	}
	if a.debug {
		o.Trace = a.trace
	}
	if path, ok := strings.CutPrefix(r.Addr, "unix:"); ok {
		o.Socket = strings.TrimPrefix(path, "//")
		return o, nil
	}
	o.URL = r.Addr
	var err error
	if o.Certificate, err = a.clientCertificate(false); err == nil {
		o.ServerCertificate, err = serverCertificate(name)
	}
	return o, err
}

// trace prints what the client says, JSON indented.
func (a *app) trace(format string, args ...any) {
	for i, v := range args {
		if data, ok := v.([]byte); ok {
			var b bytes.Buffer
			if json.Indent(&b, data, "\t", "\t") == nil {
				args[i] = "\t" + b.String()
			}
		}
	}
	a.traceMu.Lock()
	defer a.traceMu.Unlock()
	a.errorf("DEBUG "+format+"\n", args...)
}

func (a *app) printf(format string, args ...any) { _, _ = fmt.Fprintf(a.Out, format, args...) }
func (a *app) errorf(format string, args ...any) { _, _ = fmt.Fprintf(a.Err, format, args...) }

// sayf prints a message that --quiet suppresses.
func (a *app) sayf(format string, args ...any) {
	if !a.quiet {
		a.printf(format+"\n", args...)
	}
}

// terminal returns the file descriptor of a stream and whether it is a terminal.
func terminal(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok || f == nil {
		return -1, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// stdinDocument returns what is piped into the command, nil when standard input is a terminal or a device.
func (a *app) stdinDocument() ([]byte, error) {
	if f, ok := a.In.(*os.File); ok {
		st, err := f.Stat()
		if err != nil || st.Mode()&os.ModeCharDevice != 0 {
			return nil, nil
		}
	}
	if a.In == nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(a.In, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("standard input is larger than %d bytes", maxDocument)
	}
	return data, nil
}

// maxDocument bounds a YAML document that a user hands in.
const maxDocument = 4 << 20

// nargs checks the number of arguments; max < 0 means any number.
func nargs(minArgs, maxArgs int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < minArgs || (maxArgs >= 0 && len(args) > maxArgs) {
			return usagef("Invalid number of arguments\nUsage: %s", cmd.UseLine())
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return nil
	}, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(subs...)
	return cmd
}
