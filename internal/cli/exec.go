package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// execFlags are the flags of exec.
type execFlags struct {
	env         []string
	cwd, mode   string
	user, group uint32
	force, none bool
	noStdin     bool
}

func (a *app) cmdExec() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use: "exec <instance> [flags] [--] <command line>", Short: "Execute commands in instances", Args: nargs(2, -1), DisableFlagsInUseLine: true,
		Long: `Execute commands in instances

The command is executed directly, so there is no shell and its patterns (variables, redirects, …) won't be understood. For
a shell: shoal exec <instance> -- sh -c "cd /tmp && pwd"

The session is interactive when both standard input and output are terminals. The exit code is the command's.`,
		Example: "  shoal exec web -- apt-get update\n  shoal exec web --user 1000 --cwd /tmp --env A=b -- env\n  shoal exec web bash",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeInstances(cmd, args, s)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.exec(cmd.Context(), &f, args) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.env, "env", nil, "Environment variable to set (e.g. HOME=/home/foo)")
	fs.StringVar(&f.mode, "mode", "auto", "Override the terminal mode (auto, interactive or non-interactive)")
	fs.BoolVarP(&f.force, "force-interactive", "t", false, "Force pseudo-terminal allocation")
	fs.BoolVarP(&f.none, "force-noninteractive", "T", false, "Disable pseudo-terminal allocation")
	fs.BoolVarP(&f.noStdin, "disable-stdin", "n", false, "Disable stdin (reads from /dev/null)")
	fs.Uint32Var(&f.user, "user", 0, "User ID to run the command as")
	fs.Uint32Var(&f.group, "group", 0, "Group ID to run the command as")
	fs.StringVar(&f.cwd, "cwd", "", "Directory to run the command in")
	return cmd
}

// interactive decides whether the command gets a terminal.
func (f *execFlags) interactive(in, out bool) (bool, error) {
	switch {
	case f.force && f.none:
		return false, usagef("You can't pass -t and -T at the same time")
	case f.mode != "auto" && (f.force || f.none):
		return false, usagef("You can't pass -t or -T at the same time as --mode")
	}
	switch f.mode {
	case "interactive":
		return true, nil
	case "non-interactive":
		return false, nil
	case "auto":
		return f.force || (in && out && !f.none && !f.noStdin), nil
	}
	return false, usagef("Invalid mode %q: it has to be auto, interactive or non-interactive", f.mode)
}

func (a *app) exec(ctx context.Context, f *execFlags, args []string) error {
	name, err := a.named(args[0], "instance")
	if err != nil {
		return err
	}
	args = args[1:]
	if args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return usagef("Missing command")
	}
	env := map[string]string{}
	if t := os.Getenv("TERM"); t != "" {
		env["TERM"] = t
	}
	for _, e := range f.env {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	inFd, inTTY := terminal(a.In)
	outFd, outTTY := terminal(a.Out)
	interactive, err := f.interactive(inTTY, outTTY)
	if err != nil {
		return err
	}
	req := api.InstanceExecPost{Command: args, Interactive: interactive, Environment: env, User: f.user, Group: f.group, Cwd: f.cwd}
	s := client.ExecStreams{Stdin: a.In, Stdout: a.Out, Stderr: a.Err}
	if f.noStdin {
		s.Stdin = nil
	}
	if interactive && outTTY {
		req.Width, req.Height, _ = term.GetSize(outFd)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	s.Control = func(ctx context.Context, send func(api.InstanceExecControl) error) {
		forward(ctx, send, outFd, interactive && outTTY)
	}
	restore := raw(inFd, interactive && inTTY)
	code, err := c.Exec(ctx, name, req, s)
	restore()
	if err != nil && code <= 0 {
		return err
	}
	if code != 0 {
		return &exitCodeError{code, err}
	}
	return nil
}

// raw hands every key to the other side until restore is called.
func raw(fd int, on bool) (restore func()) {
	if !on {
		return func() {}
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(fd, old) }
}

// forward sends changes of the window's size and the signals of this process to the other side.
func forward(ctx context.Context, send func(api.InstanceExecControl) error, outFd int, resize bool) {
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(sig)
	if resize {
		// The window may have changed while the session was made.
		_ = sendSize(send, outFd)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-sig:
			n, _ := s.(syscall.Signal)
			var err error
			switch {
			case n == syscall.SIGWINCH && resize:
				err = sendSize(send, outFd)
			case n != syscall.SIGWINCH:
				err = send(api.InstanceExecControl{Command: "signal", Signal: int(n)})
			}
			if err != nil {
				return
			}
		}
	}
}

func sendSize(send func(api.InstanceExecControl) error, fd int) error {
	w, h, err := term.GetSize(fd)
	if err != nil {
		return nil
	}
	return send(api.InstanceExecControl{Command: "window-resize", Args: map[string]string{"width": strconv.Itoa(w), "height": strconv.Itoa(h)}})
}

func (a *app) cmdConsole() *cobra.Command {
	var showLog bool
	var kind string
	cmd := &cobra.Command{
		Use: "console <instance>", Short: "Attach to instance consoles", Args: nargs(1, 1), ValidArgsFunction: completer(a.completeInstances).first(),
		Long:    "Attach to instance consoles\n\nCtrl+a q detaches. --show-log prints what the console has said so far.",
		Example: "  shoal console web\n  shoal console web --show-log",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if !showLog {
				return a.console(cmd.Context(), c, name, kind)
			}
			if kind != "console" {
				return usagef("The --show-log flag is only supported for by 'console' output type")
			}
			log, err := c.ConsoleLog(cmd.Context(), name)
			if err != nil {
				return err
			}
			defer func() { _ = log.Close() }()
			a.printf("\nConsole log:\n\n")
			_, err = io.Copy(a.Out, log)
			a.printf("\n")
			return err
		},
	}
	cmd.Flags().BoolVar(&showLog, "show-log", false, "Retrieve the instance's console log")
	cmd.Flags().StringVarP(&kind, "type", "t", "console", "Type of connection to establish: 'console' for serial console")
	return cmd
}

// console connects the terminal with an instance's console.
func (a *app) console(ctx context.Context, c *client.Client, name, kind string) error {
	if kind != "console" {
		return usagef("Unknown output type %q: only 'console' is supported", kind)
	}
	inFd, inTTY := terminal(a.In)
	outFd, outTTY := terminal(a.Out)
	o := client.ConsoleOptions{Stdin: &escapeReader{r: a.In}, Stdout: a.Out}
	if outTTY {
		o.Width, o.Height, _ = term.GetSize(outFd)
	}
	o.Control = func(ctx context.Context, send func(api.InstanceExecControl) error) {
		winch := make(chan os.Signal, 1)
		signal.Notify(winch, syscall.SIGWINCH)
		defer signal.Stop(winch)
		for outTTY && sendSize(send, outFd) == nil {
			select {
			case <-ctx.Done():
				return
			case <-winch:
			}
		}
	}
	a.printf("To detach from the console, press: <ctrl>+a q\n")
	restore := raw(inFd, inTTY)
	defer restore()
	return c.Console(ctx, name, o)
}

// escapeReader ends when Ctrl+a q is typed. A Ctrl+a before any other key is passed on with it.
type escapeReader struct {
	r     io.Reader
	armed bool
	done  bool
}

func (e *escapeReader) Read(p []byte) (int, error) {
	if e.done {
		return 0, io.EOF
	}
	// Room for a Ctrl+a that was held back.
	buf := make([]byte, max(len(p)-1, 1))
	n, err := e.r.Read(buf)
	out := 0
	for _, b := range buf[:n] {
		switch {
		case e.armed && b == 'q':
			e.done = true
			return out, io.EOF
		case e.armed:
			e.armed = false
			p[out], p[out+1] = 0x01, b
			out += 2
		case b == 0x01:
			e.armed = true
		default:
			p[out] = b
			out++
		}
	}
	return out, err
}
