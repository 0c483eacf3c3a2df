package processes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
)

// Machines are processes, each a machine of one cluster. What fails ends the test; all processes end with it. For one goroutine, but for Ask.
type Machines struct {
	T    *testing.T
	ca   *pki.CA
	root string
	Base Config // what each machine begins with
	All  map[string]*Machine
	http *http.Client
}

// Machine is a process and those before it on the same directory.
type Machine struct {
	Config Config
	Log    bytes.Buffer // of all its processes; read it when none runs, or when the test has failed
	cmd    *exec.Cmd
}

// New returns an empty cluster with an authority of its own.
func New(t *testing.T, base Config) *Machines {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &Machines{T: t, ca: ca, root: t.TempDir(), Base: base, All: map[string]*Machine{}, http: &http.Client{Transport: tr}}
}

// Run starts a machine, new or again on what its last process left.
func (ms *Machines) Run(name string) {
	ms.T.Helper()
	m := ms.All[name]
	if m == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			ms.T.Fatal(err)
		}
		c := ms.Base
		c.Name, c.Dir, c.Address = name, filepath.Join(ms.root, name), l.Addr().String()
		l.Close()
		cert, key, err := ms.ca.Issue(pki.Member, name, time.Now(), time.Hour)
		if err == nil {
			err = pki.In(c.Dir).Write(ms.ca.CertPEM(), cert, key)
		}
		if err != nil {
			ms.T.Fatal(err)
		}
		m = &Machine{Config: c}
		ms.All[name] = m
	}
	b, err := json.Marshal(m.Config)
	if err != nil {
		ms.T.Fatal(err)
	}
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Env = append(os.Environ(), env+"="+string(b))
	m.cmd.Stdout, m.cmd.Stderr = &m.Log, &m.Log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		ms.T.Fatal(err)
	}
	cmd := m.cmd
	ms.T.Cleanup(func() {
		_ = cmd.Process.Kill() // may be dead
		_ = cmd.Wait()
	})
	ms.Until(name+" answers", func() bool { _, err := ms.Ask(name, "/status", time.Second); return err == nil })
}

// Kill kills a machine as a power failure does, and fails the test if it had panicked.
func (ms *Machines) Kill(name string) {
	ms.T.Helper()
	m := ms.All[name]
	if err := m.cmd.Process.Kill(); err != nil {
		ms.T.Fatal(err)
	}
	_ = m.cmd.Wait() // killed
	if strings.Contains(m.Log.String(), "panic:") {
		ms.T.Errorf("%s panicked:\n%s", name, &m.Log)
	}
}

// Signal sends a signal.
func (ms *Machines) Signal(name string, s syscall.Signal) {
	ms.T.Helper()
	if err := ms.All[name].cmd.Process.Signal(s); err != nil {
		ms.T.Fatal(err)
	}
}

// Ask calls a machine, for at most d.
func (ms *Machines) Ask(name, path string, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+ms.All[name].Config.Address+path, nil)
	if err != nil {
		return "", err
	}
	res, err := ms.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", b)
	}
	return strings.TrimSpace(string(b)), err
}

// Must is Ask with an answer.
func (ms *Machines) Must(name, path string) string {
	ms.T.Helper()
	s, err := ms.Ask(name, path, 30*time.Second)
	if err != nil {
		ms.T.Fatalf("%s%s: %v", name, path, err)
	}
	return s
}

// Until polls, and returns how long it took.
func (ms *Machines) Until(what string, ok func() bool) time.Duration {
	ms.T.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > 40*time.Second {
			for name, m := range ms.All {
				s, err := ms.Ask(name, "/view", time.Second)
				ms.T.Logf("%s: %s %v\n%s", name, s, err, &m.Log)
			}
			ms.T.Fatalf("waited too long: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

// Start starts machines and makes a cluster of them, the first one's.
func (ms *Machines) Start(names ...string) {
	ms.T.Helper()
	for i, name := range names {
		ms.Run(name)
		if i == 0 {
			ms.Must(name, "/bootstrap")
		} else {
			ms.Must(name, "/join?via="+url.QueryEscape(ms.All[names[0]].Config.Address))
		}
	}
}

// View is what a machine knows of the cluster, nothing if it does not answer.
func (ms *Machines) View(name string) (v elastic.View) {
	if s, err := ms.Ask(name, "/view", time.Second); err == nil {
		_ = json.Unmarshal([]byte(s), &v) // a view of nothing does for an error
	}
	return v
}

// Status is what a machine says of itself, nothing if it does not answer.
func (ms *Machines) Status(name string) (s elastic.Status) {
	if text, err := ms.Ask(name, "/status", time.Second); err == nil {
		_ = json.Unmarshal([]byte(text), &s)
	}
	return s
}

// Tally counts roles, as a machine sees them.
func (ms *Machines) Tally(name string) string {
	n := [3]int{}
	for _, m := range ms.View(name).Members {
		n[m.Role]++
	}
	return fmt.Sprintf("%d voters, %d standbys, %d spares", n[elastic.Voter], n[elastic.Standby], n[elastic.Spare])
}

// Until polls, and returns how long it took.
// UntilTally waits for a tally.
func (ms *Machines) UntilTally(name, want string) time.Duration {
	ms.T.Helper()
	return ms.Until(want, func() bool { return ms.Tally(name) == want })
}

// Leader waits for one of these to lead and returns it.
func (ms *Machines) Leader(of ...string) (name string) {
	ms.T.Helper()
	ms.Until("a leader", func() bool {
		i := slices.IndexFunc(of, func(n string) bool { return ms.Status(n).Leader })
		if i >= 0 {
			name = of[i]
		}
		return i >= 0
	})
	return name
}
