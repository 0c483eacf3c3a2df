package compat_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoal-project/shoal/test/harness"
)

func TestLXC(t *testing.T)   { testClient(t, "lxc") }
func TestShoal(t *testing.T) { testClient(t, "shoal") }

func TestMain(m *testing.M) { harness.Main(m) }

func testClient(t *testing.T, name string) {
	harness.Needs(t)
	bin := harness.Build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return errors.New("no test to clean up after")
			}
			w := harness.New(tb, bin)
			tb.Cleanup(func() { w.CheckEmpty(tb) })
			env.Values["world"] = w
			env.Vars = append(env.Vars, w.Environ()...)
			env.Setenv("CLIENT", name)
			env.Setenv("TERM", "xterm")
			env.Setenv("BIGIMAGE", os.Getenv("SHOAL_TEST_IMAGE_DIR"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			// With a configuration lxc does not greet its user.
			conf := filepath.Join(env.WorkDir, "home/.config/lxc")
			if err := os.MkdirAll(conf, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(conf, "config.yml"), []byte("default-remote: local\n"), 0o600); err != nil {
				return err
			}
			return w.Start()
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "bigimage":
				return os.Getenv("SHOAL_TEST_IMAGE_DIR") != "", nil
			case "shoal", "lxc":
				return cond == name, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "retry": cmdRetry, "tty": cmdTTY, "inside": cmdInside, "daemon": cmdDaemon, "image": cmdImage,
		},
	})
}

func worldOf(ts *testscript.TestScript) *harness.World { return ts.Value("world").(*harness.World) }

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N cmd...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ee *exec.ExitError
		if !errors.As(err, &ee) {
			ts.Fatalf("%v", err)
		}
		got = ee.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func cmdRetry(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(harness.Patience)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err != nil) == neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still not after %s: %v", harness.Patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func cmdTTY(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: tty FILE cmd...")
	}
	path := args[1]
	if !strings.Contains(path, "/") {
		for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
			if st, err := os.Stat(filepath.Join(dir, path)); err == nil && !st.IsDir() {
				path = filepath.Join(dir, path)
				break
			}
		}
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"SHOAL_DIR", "LXD_DIR", "HOME", "PATH", "TERM", "EDITOR"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	out, ended, failed := onTerminal(cmd, ts.ReadFile(args[0]))
	ts.Logf("[terminal]\n%s", out)
	ts.Check(failed)
	if (ended != nil) != neg {
		ts.Fatalf("on the terminal: %v", ended)
	}
}

func cmdInside(ts *testscript.TestScript, neg bool, args []string) {
	cmd := worldOf(ts).Inside(args...)
	err := ts.Exec(cmd.Path, cmd.Args[1:]...)
	if (err != nil) != neg {
		ts.Fatalf("inside: %v", err)
	}
}

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon start|stop|kill")
	}
	w := worldOf(ts)
	switch args[0] {
	case "start":
		ts.Check(w.Start())
	case "stop":
		ts.Check(w.Stop())
	case "kill":
		ts.Check(w.Kill())
	default:
		ts.Fatalf("daemon %s: unknown", args[0])
	}
}

func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: image FILE")
	}
	for _, ext := range []string{".meta.tar.gz", ".squashfs", ".tar.gz"} {
		ts.Check(os.Link(filepath.Join(worldOf(ts).Bin, "tiny"+ext), ts.MkAbs(args[0]+ext)))
	}
}
