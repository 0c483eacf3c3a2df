package etcdtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Options say what kind of cluster.
type Options struct {
	Members int // 0 means 1
	TLS     *TLS
	Dir     string // for the members' data; empty: a temporary one
	// Command makes the command of a member, where it has to run in namespaces; nil: the command itself. Then FirstPort must be set too, the first
	// of 2 × Members that are free there.
	Command   func(args ...string) *exec.Cmd
	FirstPort int
}

// Cluster is a cluster whose members are processes. Its methods may be called from several goroutines.
type Cluster struct {
	t       testing.TB
	o       Options
	members []*process
}

type process struct {
	conf member
	mu   sync.Mutex
	cmd  *exec.Cmd // nil: it does not run
	in   io.Closer
}

// New prepares a cluster whose members do not run yet.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	o.Members = max(1, o.Members)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c := &Cluster{t: t, o: o}
	ports := make([]int, 2*o.Members)
	for i := range ports {
		if o.FirstPort != 0 {
			ports[i] = o.FirstPort + i
			continue
		}
		l := freePort(t)
		defer func() { _ = l.Close() }() // after all have been taken: no two are the same
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	scheme := "http"
	if o.TLS != nil {
		scheme = "https"
	}
	var all []string
	for i := range o.Members {
		m := member{Name: fmt.Sprint("m", i), Dir: filepath.Join(o.Dir, fmt.Sprint("m", i)), TLS: o.TLS,
			Client: fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[2*i]), Peer: fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1])}
		all = append(all, m.Name+"="+m.Peer)
		c.members = append(c.members, &process{conf: m})
	}
	for _, p := range c.members {
		p.conf.Cluster = strings.Join(all, ",")
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.Kill(i)
		}
	})
	return c
}

// freePort finds a port below those that the kernel gives to connections: one of those could be taken while a member is down.
func freePort(t testing.TB) net.Listener {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.N(20000)))
		if err == nil {
			return l
		}
	}
	t.Fatal("no free port")
	return nil
}

// Start is New and starts all members. It does not wait for a leader: a client's first call does. The members end with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := New(t, o)
	for i := range c.members {
		if err := c.StartMember(i); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Endpoints are the client URLs of the members.
func (c *Cluster) Endpoints() (out []string) {
	for _, p := range c.members {
		out = append(out, p.conf.Client)
	}
	return out
}

// StartMember starts a member, again after Kill, and returns when it listens. A member that runs is left alone.
func (c *Cluster) StartMember(i int) error {
	p := c.members[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	conf, err := json.Marshal(p.conf)
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	if c.o.Command != nil {
		cmd = c.o.Command(exe)
	}
	cmd.Env = append(os.Environ(), memberEnv+"="+string(conf))
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		_ = in.Close()
		_ = cmd.Wait()
		return fmt.Errorf("member %s: %q %w %s", p.conf.Name, line, err, stderr.String())
	}
	p.cmd, p.in = cmd, in
	return nil
}

// Kill ends a member as kill -9 does, also one that is paused, and returns when it is gone.
func (c *Cluster) Kill(i int) {
	p := c.members[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if c.o.Command == nil {
		_ = p.cmd.Process.Kill()
	}
	_ = p.in.Close() // what the command started ends too
	_ = p.cmd.Wait()
	p.cmd = nil
}

// Pause stops a member's process where it stands: its connections stay open and say nothing. Resume has it go on, late and none the wiser.
// Neither works where Options.Command is set.
func (c *Cluster) Pause(i int) { c.signal(i, syscall.SIGSTOP) }

// Resume ends a Pause.
func (c *Cluster) Resume(i int) { c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) {
	p := c.members[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && c.o.Command == nil {
		_ = p.cmd.Process.Signal(s)
	}
}
