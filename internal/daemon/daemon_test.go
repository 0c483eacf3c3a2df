package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/daemon"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/testring"
)

// process is a daemon in a network namespace of its own.
type process struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log string
}

// build builds the daemon and its helpers once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shoal-daemon-test")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "../../cmd/shoald", "../../cmd/shoal-shim", "../../cmd/shoal-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if rings := os.Getenv("SHOAL_RINGS"); strings.Contains(rings, "2") {
		if dir, _ := build(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

func binaries(t *testing.T) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func launch(t *testing.T, bin, dir string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, log: filepath.Join(t.TempDir(), "log")}
	p.cmd = exec.Command(filepath.Join(bin, "shoald"), "--dir", dir, "--log-file", p.log)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

func (p *process) get(path string, into any) (int, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(p.dir, "unix.socket"))
	}}
	resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("http://shoal" + path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var r api.Response
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return resp.StatusCode, err
	}
	if into != nil {
		return resp.StatusCode, json.Unmarshal(r.Metadata, into)
	}
	return resp.StatusCode, nil
}

// ready polls until the daemon says so.
func (p *process) ready() {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		code, err := p.get("/internal/ready", nil)
		if code == 200 {
			return
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(p.log)
			p.t.Fatalf("not ready: %d %v\n%s", code, err, b)
		}
	}
}

func TestDaemon(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("runc"))
	bin, dir := binaries(t), filepath.Join(t.TempDir(), "state")
	p := launch(t, bin, dir)
	p.ready()

	var s api.Server
	if code, err := p.get("/1.0", &s); code != 200 || err != nil {
		t.Fatal(code, err)
	}
	e := s.Environment
	if e.Server != "shoal" || e.ServerPid != p.cmd.Process.Pid || e.Driver != "oci" || !strings.Contains(e.DriverVersion, "runc") ||
		e.Firewall != "nftables" || e.OSName == "" || e.KernelVersion == "" || len(e.KernelFeatures) == 0 || len(e.StorageDrivers) != 2 {
		t.Errorf("environment %+v", e)
	}
	var res api.Resources
	if code, err := p.get("/1.0/resources", &res); code != 200 || err != nil || res.CPU.Total == 0 || res.Memory.Total == 0 {
		t.Errorf("resources %d %v %+v", code, err, res)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "unix.socket"), &st); err != nil || st.Mode&0o777 != 0o660 {
		t.Errorf("socket mode %o, %v", st.Mode&0o777, err)
	}

	out, err := exec.Command(filepath.Join(bin, "shoald"), "--dir", dir).CombinedOutput()
	if want := "PID " + strconv.Itoa(p.cmd.Process.Pid); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("a second daemon on the directory: %v %s; want an error that names %s", err, out, want)
	}
	if code, err := p.get("/internal/ready", nil); code != 200 {
		t.Errorf("the second daemon harmed the first: %d %v", code, err)
	}

	// kill -9 leaves a stale socket; the next start takes over. SIGTERM is a clean stop.
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p = launch(t, bin, dir)
	p.ready()
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		b, _ := os.ReadFile(p.log)
		t.Errorf("after SIGTERM: %v\n%s", err, b)
	}
	if _, err := os.Stat(filepath.Join(dir, "unix.socket")); err == nil {
		t.Error("the socket is still there")
	}
}

func TestShutdownThroughTheSocket(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("runc"))
	dir := filepath.Join(t.TempDir(), "state")
	p := launch(t, binaries(t), dir)
	p.ready()
	conn, err := net.Dial("unix", filepath.Join(dir, "unix.socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("PUT /internal/shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A database that cannot be meant is refused before anything is made.
func TestBadKVStore(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "etcd.yaml")
	for _, tt := range []struct{ flag, content, want string }{
		{"consul", "", `"embedded" and etcd.config=FILE`},
		{"etcd.address=http://127.0.0.1:2379", "", "allowed are"},
		{"etcd.config=", "", "file is missing"},
		{"etcd.config=/nowhere/etcd.yaml", "", "/nowhere/etcd.yaml"},
		{"etcd.config=" + conf, "colour: red", "allowed keys: endpoints, trusted-ca-file"},
		{"etcd.config=" + conf, "endpoints: [db]", `endpoints: "db" must be a URL`},
	} {
		if err := os.WriteFile(conf, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "state")
		err := daemon.Run(t.Context(), daemon.Config{Dir: dir, KVStore: tt.flag})
		if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.flag, err, tt.want)
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s: the state directory was made", tt.flag)
		}
	}
}

func TestBadFlags(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	bin := binaries(t)
	for name, c := range map[string]struct {
		args []string
		code int
		text string
	}{
		"unknown flag":  {[]string{"--nope"}, 2, "nope"},
		"argument":      {[]string{"start"}, 2, "takes no arguments"},
		"unknown group": {[]string{"--dir", t.TempDir(), "--group", "no-such-group-here"}, 1, "no-such-group-here"},
		"long path":     {[]string{"--dir", filepath.Join(t.TempDir(), strings.Repeat("x", 120))}, 1, "too long"},
		"a file":        {[]string{"--dir", "/proc/version"}, 1, "/proc/version"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "shoald"), c.args...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.text) {
				t.Errorf("got %v: %s", err, out)
			}
		})
	}
}
