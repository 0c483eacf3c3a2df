package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/internal/state/journal"
)

// The crash test runs this test binary as a child that performs a creation and a deletion, or recovers from them, and kills itself with
// SIGKILL at the n-th point: before and after each write of the journal and each effect. The list of points is found by
// running until the child is through; a second crash is put into the recovery after each first one.
const (
	crashDir  = "SHOAL_TEST_JOURNAL_DIR"
	crashAt   = "SHOAL_TEST_JOURNAL_AT"
	crashMode = "SHOAL_TEST_JOURNAL_MODE"
)

func crashChild() {
	dir, mode := os.Getenv(crashDir), os.Getenv(crashMode)
	at, _ := strconv.Atoi(os.Getenv(crashAt))
	n := 0
	point := func(string) {
		if n++; n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{})
	if err != nil {
		panic(err)
	}
	j.OnPoint(point)
	w := world{dir: dir, point: point, failC: mode == "fail"}
	j.Register(w.create())
	j.Register(w.remove())
	ctx := context.Background()
	if mode == "recover" {
		err = j.Recover(ctx)
	} else if err = j.Run(ctx, journal.Entry{Kind: "create", Subject: "s", Args: "id1"}); err == nil || mode == "fail" {
		w.write("created")
		if mode == "delete" {
			err = j.Run(ctx, journal.Entry{Kind: "delete", Subject: "s", Args: "id1"})
		}
	}
	if err != nil && mode != "fail" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is a directory in which each step of the operation makes a file.
type world struct {
	dir   string
	point func(string)
	failC bool
}

func (w world) path(n string) string { return filepath.Join(w.dir, n) }
func (w world) write(n string) error { return os.WriteFile(w.path(n), nil, 0o600) }
func (w world) rm(n string) error {
	if err := os.Remove(w.path(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

var files = []string{"a", "b", "c"}

func (w world) create() journal.Kind {
	return journal.NewKind("create", journal.UndoOnCrash, func(string) (out []journal.Step) {
		for _, f := range files {
			out = append(out, journal.Step{Name: f, Undo: func(context.Context) error { return w.rm(f) },
				Do: func(context.Context) error {
					if w.failC && f == "c" {
						return errors.New("no")
					}
					if err := w.write(f); err != nil {
						return err
					}
					w.point("effect")
					return nil
				}})
		}
		return out
	})
}

func (w world) remove() journal.Kind {
	return journal.NewKind("delete", journal.FinishOnCrash, func(string) (out []journal.Step) {
		for i := range files {
			f := files[len(files)-1-i]
			out = append(out, journal.Step{Name: f, Do: func(context.Context) error {
				err := w.rm(f)
				w.point("effect")
				return err
			}})
		}
		return out
	})
}

// child runs one process; killed says that it died at its point.
func child(t *testing.T, dir, mode string, at int) (killed bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	// the race detector would have each child that ends by itself wait a second
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashMode+"="+mode, crashAt+"="+strconv.Itoa(at), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signal() == syscall.SIGKILL {
		return true
	}
	t.Fatalf("%s at %d: %v\n%s", mode, at, err, out)
	return false
}

// check wants all files or none, and no entry left.
func check(t *testing.T, dir, when string) (all bool) {
	t.Helper()
	n := 0
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			n++
		}
	}
	if n != 0 && n != len(files) {
		t.Errorf("%s: %d of %d files are there", when, n, len(files))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "journal", "*")); len(left) > 0 {
		t.Errorf("%s: entries left: %s", when, strings.Join(left, " "))
	}
	return n > 0
}

func TestKilledAtEveryPoint(t *testing.T) {
	second := 4 // how many points of the recovery get a second crash
	if testing.Short() {
		second = 1
	}
	for _, mode := range []string{"create", "delete", "fail"} {
		t.Run(mode, func(t *testing.T) {
			at, runs := 1, 0
			for ; ; at++ {
				through := false
				for again := 0; again <= second && !through; again++ {
					dir := t.TempDir()
					runs++
					if !child(t, dir, mode, at) {
						through = true
						break
					}
					if again > 0 && child(t, dir, "recover", again) {
						runs++
					}
					child(t, dir, "recover", 0)
					when := fmt.Sprintf("%s killed at %d, recovery at %d", mode, at, again)
					all := check(t, dir, when)
					if _, err := os.Stat(filepath.Join(dir, "created")); err == nil && mode == "create" && !all {
						t.Errorf("%s: a creation that was reported is undone", when)
					}
				}
				if through {
					break
				}
			}
			if at < 10 {
				t.Errorf("only %d points", at)
			}
			t.Logf("%d points, %d crashes", at-1, runs)
		})
	}
}
