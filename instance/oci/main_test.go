package oci_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/drivertest"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/testring"
)

// bin holds shoal-shim and shoal-agent, built once for all tests.
var bin = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(binEnv); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "shoal-oci-bin-")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "../../cmd/shoal-shim", "../../cmd/shoal-agent")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	built = dir
	return dir, nil
})

var built string // what bin has made, for TestMain to remove

const (
	binEnv   = "SHOAL_TEST_OCI_BIN"   // set for child processes of this test
	childEnv = "SHOAL_TEST_OCI_CHILD" // makes this binary play a daemon
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := childDaemon(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func needHost(t testing.TB) {
	t.Helper()
	testring.Need(t, 2, testring.Root, testring.Binary("runc"), testring.Binary("busybox"), testring.Filesystem("overlay"))
}

// testInit is /sbin/init of the small guest: it powers off on SIGPWR, as an LXC guest does.
const testInit = `#!/bin/sh
trap 'poweroff -f' PWR
echo ` + drivertest.Ready + `
while :; do sleep 1000 & wait $!; done
`

// busyboxRoot makes a root of one static program.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "tmp", "usr/bin"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	path, err := exec.LookPath("busybox")
	must(t, err)
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	for _, a := range []string{
		"sh", "cat", "echo", "true", "false", "env", "pwd", "id", "sleep", "reboot", "poweroff", "stty", "ls", "ps", "kill", "mkfifo",
		"nproc", "head", "grep", "sed", "umask", "readlink", "ip", "hostname", "touch", "mknod", "mount", "dd", "seq",
	} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", a)))
	}
	must(t, os.WriteFile(filepath.Join(root, "sbin/init"), []byte(testInit), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	return root
}

var serial atomic.Int64

// place is where one test's instances live.
type place struct {
	dir   string
	lower string
	ids   driver.IDMap
}

func newPlace(t testing.TB) *place {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "shoal-oci-test-") // the upper layer cannot lie on an overlay, which /tmp may be
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &place{dir: dir, lower: busyboxRoot(t), ids: driver.IDMap{Base: 1000000, Size: 65536}}
}

func (p *place) spec(t testing.TB) driver.Spec {
	t.Helper()
	id := fmt.Sprintf("t%d-%d", os.Getpid(), serial.Add(1))
	at := filepath.Join(p.dir, id)
	for _, d := range []string{"run", "log", "data/upper", "data/work"} {
		must(t, os.MkdirAll(filepath.Join(at, d), 0o755))
	}
	return driver.Spec{
		ID: id, Dir: filepath.Join(at, "run"), LogDir: filepath.Join(at, "log"), Hostname: "guest", IDMap: p.ids,
		Root: driver.Root{Lower: []string{p.lower}, Data: filepath.Join(at, "data")},
	}
}

// driver returns a driver that is closed after the instances that the test makes are removed.
func (p *place) driver(t testing.TB, deps driver.Deps) *oci.Driver {
	t.Helper()
	d := p.open(t, deps)
	t.Cleanup(d.Close)
	return d
}

func (p *place) open(t testing.TB, deps driver.Deps, change ...func(*oci.Config)) *oci.Driver {
	t.Helper()
	dir, err := bin()
	must(t, err)
	d, err := newDriver(context.WithoutCancel(t.Context()), p.dir, dir, deps, slog.New(slog.NewTextHandler(t.Output(), nil)), change...)
	must(t, err)
	return d
}

func newDriver(ctx context.Context, dir, bin string, deps driver.Deps, log *slog.Logger, change ...func(*oci.Config)) (*oci.Driver, error) {
	cfg := oci.Config{
		Deps: deps, Dir: filepath.Join(dir, "driver"), Shim: filepath.Join(bin, "shoal-shim"), Agent: filepath.Join(bin, "shoal-agent"),
		Runner: run.Host{}, Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	return oci.New(ctx, cfg)
}

// started returns a running instance that is removed at the end.
func (p *place) started(t testing.TB, d *oci.Driver, change func(*driver.Spec)) (driver.Spec, int) {
	t.Helper()
	s := p.spec(t)
	if change != nil {
		change(&s)
	}
	remove(t, d, s.ID)
	c, err := d.Create(t.Context(), s)
	must(t, err)
	must(t, d.Start(t.Context(), s.ID))
	return s, c.PID
}

func remove(t testing.TB, d *oci.Driver, id string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := d.Kill(ctx, id); err != nil {
			t.Errorf("kill: %v", err)
		}
		if err := d.Cleanup(ctx, id); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %s", what)
		}
		<-tick.C
	}
}
