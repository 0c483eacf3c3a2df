package run_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArgv(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  run.Command
		want []string
	}{
		{"options only", run.Command{Name: "nft", Args: []string{"-j", "-f", "-"}}, []string{"nft", "-j", "-f", "-"}},
		{"operands are guarded", run.Command{Name: "rm", Args: []string{"-f"}, Operands: []string{"--help", "-x"}}, []string{"rm", "-f", "--", "--help", "-x"}},
		{"no guard", run.Command{Name: "btrfs", Args: []string{"subvolume", "create"}, Operands: []string{"/a"}, NoGuard: true}, []string{"btrfs", "subvolume", "create", "/a"}},
	} {
		if got := tt.cmd.Argv(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRefusesHostileCommands(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  run.Command
		want string
	}{
		{"empty name", run.Command{}, "bad program name"},
		{"option as name", run.Command{Name: "-rf"}, "bad program name"},
		{"relative path", run.Command{Name: "./true"}, "must be absolute"},
		{"NUL in operand", run.Command{Name: "true", Operands: []string{"a\x00b"}}, "NUL"},
		{"NUL in argument", run.Command{Name: "true", Args: []string{"a\x00b"}}, "NUL"},
		{"unguarded option", run.Command{Name: "true", NoGuard: true, Operands: []string{"--use-compress-program=x"}}, "must not begin with a hyphen"},
		{"environment without value", run.Command{Name: "true", Env: []string{"LD_PRELOAD"}}, "bad environment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec := &run.Recorder{}
			for _, r := range []run.Runner{run.Host{}, rec} {
				_, err := r.Run(t.Context(), tt.cmd)
				if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%T: got %v, want %q", r, err, tt.want)
				}
				if _, err := r.Start(t.Context(), tt.cmd); !errs.Is(err, errs.InvalidInput) {
					t.Errorf("%T: Start: %v", r, err)
				}
			}
			if len(rec.Calls()) != 0 {
				t.Error("a refused command was recorded as run")
			}
		})
	}
}

func TestRunCapturesAndIsolates(t *testing.T) {
	t.Setenv("SECRET", "x")
	t.Setenv("KEEP", "kept")
	res, err := run.Host{}.Run(t.Context(), run.Command{Name: "env", Env: []string{"MORE=1"}, Inherit: []string{"KEEP", "ABSENT"}})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(res.Stdout))
	for _, want := range []string{"KEEP=kept", "MORE=1", "LANG=C.UTF-8"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	if slices.Contains(got, "SECRET=x") {
		t.Error("the daemon's environment leaked")
	}
	res, err = run.Host{}.Run(t.Context(), run.Command{Name: "cat", Stdin: strings.NewReader("in")})
	if err != nil || string(res.Stdout) != "in" {
		t.Errorf("got %q, %v", res.Stdout, err)
	}
	res, err = run.Host{}.Run(t.Context(), run.Command{Name: "pwd"})
	if err != nil || string(res.Stdout) != "/\n" {
		t.Errorf("working directory %q, %v", res.Stdout, err)
	}
}

func TestFailureSaysWhatHappened(t *testing.T) {
	_, err := run.Host{}.Run(t.Context(), run.Command{Name: "sh", Args: []string{"-c", "echo broken pool >&2; exit 3"}})
	var e *run.Error
	if !errors.As(err, &e) || e.ExitCode != 3 || e.Stderr != "broken pool\n" {
		t.Fatalf("got %#v", err)
	}
	if !strings.Contains(err.Error(), "exit status 3: broken pool") {
		t.Errorf("text %q", err)
	}
	_, err = run.Host{}.Run(t.Context(), run.Command{Name: "sh", Args: []string{"-c", "kill -TERM $$"}})
	if !errors.As(err, &e) || e.Signal != syscall.SIGTERM || e.ExitCode != -1 {
		t.Errorf("signal: %#v", err)
	}
}

func TestMissingProgramNamesPackage(t *testing.T) {
	_, err := run.Host{}.Look("mkfs.erofs-nope")
	if !errs.Is(err, errs.UnsupportedClass) {
		t.Fatalf("got %v", err)
	}
	_, err = run.Host{}.Run(t.Context(), run.Command{Name: "/nonexistent/mkfs.btrfs"})
	if !errs.Is(err, errs.UnsupportedClass) || !strings.Contains(err.Error(), `"btrfs-progs"`) {
		t.Fatalf("got %v", err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	noise := run.Command{Name: "sh", Args: []string{"-c", "head -c 3000000 /dev/zero; head -c 100000 /dev/zero >&2; echo end >&2; exit 1"}}
	res, err := run.Host{}.Run(t.Context(), noise)
	var e *run.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if len(res.Stdout) != run.DefaultMaxOutput || len(e.Stderr) > 5000 || !strings.HasSuffix(e.Stderr, "end\n") {
		t.Errorf("stdout %d, stderr %d bytes", len(res.Stdout), len(e.Stderr))
	}
	_, err = run.Host{}.Run(t.Context(), run.Command{Name: "echo", Args: []string{"0123456789"}, MaxOutput: 5})
	if !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("got %v", err)
	}
}

// The whole group must go: a child of the program that was left behind would hold files and mounts.
func TestEndOfContextKillsTheGroup(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		cause   error
	}{{"timeout", 300 * time.Millisecond, context.DeadlineExceeded}, {"cancel", 0, context.Canceled}} {
		t.Run(tt.name, func(t *testing.T) {
			pidfile := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			childPID := make(chan int, 1)
			go func() {
				pid := waitPID(ctx, pidfile)
				childPID <- pid
				if tt.timeout == 0 {
					cancel()
				}
			}()
			_, err := run.Host{}.Run(ctx, run.Command{
				Name: "sh", Timeout: tt.timeout,
				Args: []string{"-c", "sleep 1000 & echo $! > " + pidfile + "; wait"},
			})
			if !errors.Is(err, tt.cause) || !errs.Is(err, errs.UnavailableClass) {
				t.Errorf("got %v", err)
			}
			pid := <-childPID
			deadline := time.Now().Add(10 * time.Second)
			for pid != 0 && alive(pid) {
				if time.Now().After(deadline) {
					t.Fatalf("child %d lives on", pid)
				}
				time.Sleep(5 * time.Millisecond) // poll until the deadline
			}
		})
	}
}

func waitPID(ctx context.Context, file string) int {
	for ctx.Err() == nil {
		b, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && bytes.HasSuffix(b, []byte("\n")) {
			return pid
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// alive reports whether pid runs; a zombie that its new parent has not reaped does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := run.Host{}.Start(ctx, run.Command{Name: "sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // must not end the process
	if !alive(p.PID()) {
		t.Error("process died with its context")
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var e *run.Error
	for range 2 {
		if err := p.Wait(); !errors.As(err, &e) || e.Signal != syscall.SIGKILL {
			t.Errorf("got %v", err)
		}
	}
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestRecorder(t *testing.T) {
	rec := &run.Recorder{Reply: func(c run.Command) (run.Result, error) {
		if c.Name == "false" {
			return run.Result{}, &run.Error{Command: c.String(), ExitCode: 1}
		}
		return run.Result{Stdout: []byte("ok")}, nil
	}}
	res, err := rec.Run(t.Context(), run.Command{Name: "btrfs", Args: []string{"version"}})
	if err != nil || string(res.Stdout) != "ok" {
		t.Errorf("%q, %v", res.Stdout, err)
	}
	p, err := rec.Start(t.Context(), run.Command{Name: "false", Operands: []string{"x"}})
	if err != nil || p.Wait() == nil {
		t.Errorf("start: %v", err)
	}
	want := [][]string{{"btrfs", "version"}, {"false", "--", "x"}}
	if got := rec.Calls(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}
