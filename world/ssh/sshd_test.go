package ssh_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/world/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ring2 prepares for Debian's ssh server: namespaces of the test's own, and a /run of its own for the directory that the server wants.
func ring2(t *testing.T) bool {
	testring.Need(t, 2, testring.Root, testring.Binary("sshd"))
	if !testring.OwnNetns(t) {
		return false
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	must(t, os.Mkdir("/run/sshd", 0o755))
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) // sessions outlive the server that is killed; kill collects them
	return true
}

// key makes a pair of keys, the private one in a file.
func key(t testing.TB, passphrase string) (file string, pub gossh.PublicKey, private ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = gossh.MarshalPrivateKey(private, "")
	} else {
		block, err = gossh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	must(t, err)
	file = filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	pub, err = gossh.NewPublicKey(private.Public())
	must(t, err)
	return file, pub, private
}

// server is an ssh server of Debian's on loopback.
type server struct {
	t    testing.TB
	dir  string
	addr string
	host gossh.PublicKey
	cmd  *exec.Cmd
	log  *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// newServer starts a server that lets the user root in with one of the keys.
func newServer(t testing.TB, users []gossh.PublicKey, settings ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &server{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	l.Close()
	var hostKey string
	hostKey, s.host, _ = key(t, "")
	var authorized []byte
	for _, u := range users {
		authorized = append(authorized, gossh.MarshalAuthorizedKey(u)...)
	}
	must(t, os.WriteFile(s.file("authorized_keys"), authorized, 0o600))
	_, port, _ := net.SplitHostPort(s.addr)
	lines := append([]string{"ListenAddress 127.0.0.1", "Port " + port, "HostKey " + hostKey, "AuthorizedKeysFile " + s.file("authorized_keys"),
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "StrictModes no", "PermitRootLogin yes", "PidFile none", "MaxStartups 100"}, settings...)
	must(t, os.WriteFile(s.file("config"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) file(name string) string { return filepath.Join(s.dir, name) }

// start starts it and waits until it answers.
func (s *server) start() {
	s.t.Helper()
	binary, err := exec.LookPath("sshd") // it wants its whole path
	must(s.t, err)
	s.log = &buffer{}
	s.cmd = exec.Command(binary, "-D", "-e", "-f", s.file("config"))
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	must(s.t, s.cmd.Start())
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("sshd does not listen:\n%s", s.log)
		}
	}
}

// processes returns it and all that it started.
func (s *server) processes() []int {
	parents := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		data, _ := os.ReadFile(f)
		_, rest, ok := strings.Cut(string(data), ") ")
		if fields := strings.Fields(rest); ok && len(fields) > 1 {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			parent, _ := strconv.Atoi(fields[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	all := []int{s.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		all = append(all, parents[all[i]]...)
	}
	return all
}

func (s *server) signal(sig unix.Signal) {
	for _, pid := range s.processes() {
		_ = unix.Kill(pid, sig)
	}
}

// kill ends it with all its sessions, as a machine that goes down.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	all := s.processes()
	for _, pid := range all {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	_ = s.cmd.Wait()
	for _, pid := range all[1:] {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	s.cmd = nil
}

// route returns a route of these servers.
func route(servers ...*server) ssh.Route {
	var r ssh.Route
	for _, s := range servers {
		r = append(r, ssh.Hop{User: "root", Addr: s.addr})
	}
	return r
}

// known writes a known_hosts file of servers, with hashed names.
func known(t testing.TB, servers ...*server) string {
	t.Helper()
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintln(&b, knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(s.addr))}, s.host))
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	must(t, os.WriteFile(file, []byte(b.String()), 0o600))
	return file
}

// open makes a tunnel with short times.
func open(t testing.TB, c ssh.Config) *ssh.Tunnel {
	t.Helper()
	if c.KeepAlive == 0 {
		c.KeepAlive = 200 * time.Millisecond
	}
	c.MaxPause = 200 * time.Millisecond
	tunnel, err := ssh.New(c)
	must(t, err)
	t.Cleanup(func() { must(t, tunnel.Close()) })
	return tunnel
}

// echo is a target that sends back what it gets.
func echo(t testing.TB, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	serve(t, l, func(c net.Conn) {
		buf := make([]byte, 1024)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return l.Addr().String()
}

// serve has f serve each connection until the test ends.
func serve(t testing.TB, l net.Listener, f func(net.Conn)) {
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
}

// guard bounds what waits for something that should come; only a test that fails gets to it.
func guard(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
