package ssh_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/world/scheduler"
	"github.com/shoal-project/shoal/world/ssh"
)

// says checks that what is sent to an echo comes back.
func says(t testing.TB, c net.Conn, what string) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, err := io.WriteString(c, what)
	must(t, err)
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != what {
		t.Errorf("got %q: %v", got, err)
	}
}

func TestDial(t *testing.T) {
	if !ring2(t) {
		return
	}
	file, pub, _ := key(t, "")
	s := newServer(t, []gossh.PublicKey{pub})
	tunnel := open(t, ssh.Config{Routes: []ssh.Route{route(s)}, KnownHosts: []string{"/does/not/exist", known(t, s)}, Keys: []string{file}})
	must(t, tunnel.Check(guard(t)))
	var conns []net.Conn
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		c, err := tunnel.Dial(guard(t), network, echo(t, network, address))
		must(t, err)
		says(t, c, "through "+network)
		conns = append(conns, c)
	}
	must(t, conns[0].Close())
	says(t, conns[1], "one does not end the other")
	before := len(s.processes())
	var wg sync.WaitGroup
	target := echo(t, "tcp", "127.0.0.1:0")
	for i := range 20 {
		wg.Go(func() {
			c, err := tunnel.Dial(guard(t), "tcp", target)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			says(t, c, strings.Repeat(fmt.Sprint(i), 10000))
		})
	}
	wg.Wait()
	if after := len(s.processes()); after != before {
		t.Errorf("one connection has %d processes, with twenty more targets there are %d", before, after)
	}
}

// TestRefused has everything go wrong that a person can set wrong: each says what it is.
func TestRefused(t *testing.T) {
	if !ring2(t) {
		return
	}
	file, pub, private := key(t, "")
	other, _, _ := key(t, "")
	locked, lockedPub, _ := key(t, "secret")
	target := echo(t, "tcp", "127.0.0.1:0")
	s := newServer(t, []gossh.PublicKey{pub, lockedPub}, "PermitOpen "+target+" 127.0.0.1:1")
	liar := *s
	_, liar.host, _ = key(t, "")
	pinned := route(s)
	pinned[0].HostKey = gossh.FingerprintSHA256(liar.host)
	right := route(s)
	right[0].HostKey = strings.TrimSpace(string(gossh.MarshalAuthorizedKey(s.host)))
	open666 := filepath.Join(t.TempDir(), "key")
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(open666, data, 0o644))
	agents := serveAgent(t, private)
	good := ssh.Config{Routes: []ssh.Route{route(s)}, KnownHosts: []string{known(t, s)}, Keys: []string{file}}
	for name, tt := range map[string]struct {
		change func(*ssh.Config)
		target string
		class  errs.Class
		want   string // "" for what works
	}{
		"as it is":            {func(c *ssh.Config) {}, target, 0, ""},
		"another host key":    {func(c *ssh.Config) { c.KnownHosts = []string{known(t, &liar)} }, target, errs.Denied, "it may be another machine"},
		"an unknown host":     {func(c *ssh.Config) { c.KnownHosts = []string{known(t)} }, target, errs.Denied, "is not known: its key is SHA256:"},
		"no known_hosts":      {func(c *ssh.Config) { c.KnownHosts = []string{"/nowhere"} }, target, errs.Denied, "there is no file /nowhere"},
		"another pin":         {func(c *ssh.Config) { c.Routes = []ssh.Route{pinned} }, target, errs.Denied, "is not the pinned one"},
		"the right pin":       {func(c *ssh.Config) { c.Routes = []ssh.Route{right}; c.KnownHosts = nil }, target, 0, ""},
		"another user's key":  {func(c *ssh.Config) { c.Keys = []string{other} }, target, errs.Denied, "accepts none of the keys SHA256:"},
		"no key file":         {func(c *ssh.Config) { c.Keys = []string{"/nowhere"} }, target, errs.InvalidInput, "read private key: open /nowhere"},
		"no key":              {func(c *ssh.Config) { c.Keys = []string{known(t, s)} }, target, errs.InvalidInput, "read private key"},
		"a key for everybody": {func(c *ssh.Config) { c.Keys = []string{open666} }, target, errs.Denied, "chmod 600"},
		"a protected key":     {func(c *ssh.Config) { c.Keys = []string{locked} }, target, errs.Denied, "is protected by a passphrase"},
		"with its passphrase": {func(c *ssh.Config) {
			c.Keys, c.Passphrase = []string{locked}, func(string) ([]byte, error) { return []byte("secret"), nil }
		}, target, 0, ""},
		"with another": {func(c *ssh.Config) {
			c.Keys, c.Passphrase = []string{locked}, func(string) ([]byte, error) { return []byte("guess"), nil }
		}, target, errs.InvalidInput, "decryption password incorrect"},
		"only an agent":          {func(c *ssh.Config) { c.Keys, c.Agent = nil, agents }, target, 0, ""},
		"an agent that is away":  {func(c *ssh.Config) { c.Keys, c.Agent = nil, "/nowhere" }, target, errs.Denied, "the agent at /nowhere"},
		"the key and no agent":   {func(c *ssh.Config) { c.Agent = "/nowhere" }, target, 0, ""},
		"nobody at the target":   {func(c *ssh.Config) {}, "127.0.0.1:1", errs.UnavailableClass, "cannot connect to 127.0.0.1:1 (does something listen there?)"},
		"a target not permitted": {func(c *ssh.Config) {}, "127.0.0.1:2", errs.Denied, "does not allow connections to 127.0.0.1:2"},
		"no server": {func(c *ssh.Config) {
			c.Routes[0] = ssh.Route{{User: "root", Addr: "127.0.0.1:1", HostKey: pinned[0].HostKey}}
		}, target, errs.UnavailableClass, "connect to ssh server root@127.0.0.1:1"},
		"no ssh server": {func(c *ssh.Config) {
			c.Routes[0] = ssh.Route{{User: "root", Addr: target, HostKey: pinned[0].HostKey}}
			c.Timeout = 300 * time.Millisecond
		}, target, errs.UnavailableClass, "connect to ssh server root@" + target},
	} {
		c := good
		c.Routes = []ssh.Route{good.Routes[0]}
		tt.change(&c)
		tunnel := open(t, c)
		conn, err := tunnel.Dial(guard(t), "tcp", tt.target)
		switch {
		case err == nil:
			says(t, conn, name)
			fallthrough
		case tt.want == "":
			if err != nil || tt.want != "" {
				t.Errorf("%s: %v", name, err)
			}
		case !strings.Contains(err.Error(), tt.want) || errs.ClassOf(err) != tt.class:
			t.Errorf("%s: %v (%v), want %q (%v)", name, err, errs.ClassOf(err), tt.want, tt.class)
		}
	}
}

// serveAgent is an agent that has one key.
func serveAgent(t testing.TB, private any) string {
	ring := agent.NewKeyring()
	must(t, ring.Add(agent.AddedKey{PrivateKey: private}))
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "agent"))
	must(t, err)
	serve(t, l, func(c net.Conn) { _ = agent.ServeAgent(ring, c) })
	return l.Addr().String()
}

// TestRoutes goes to the first server that answers, and over jumps.
func TestRoutes(t *testing.T) {
	if !ring2(t) {
		return
	}
	file, pub, _ := key(t, "")
	s1, s2, s3 := newServer(t, []gossh.PublicKey{pub}), newServer(t, []gossh.PublicKey{pub}), newServer(t, []gossh.PublicKey{pub}, "AllowTcpForwarding no")
	cfg := ssh.Config{KnownHosts: []string{known(t, s1, s2, s3)}, Keys: []string{file}}
	target := echo(t, "tcp", "127.0.0.1:0")
	cfg.Routes = []ssh.Route{route(s1), route(s2)}
	tunnel := open(t, cfg)
	use := func(on, off *server) {
		t.Helper()
		c, err := tunnel.Dial(guard(t), "tcp", target)
		must(t, err)
		says(t, c, "hello")
		must(t, c.Close())
		if len(on.processes()) < 2 || len(off.processes()) > 1 {
			t.Errorf("%s has %d processes, %s has %d", on.addr, len(on.processes()), off.addr, len(off.processes()))
		}
	}
	use(s1, s2)
	s1.kill()
	for { // the tunnel may not have noticed, then the dial fails over
		if c, err := tunnel.Dial(guard(t), "tcp", target); err == nil {
			says(t, c, "over the second")
			c.Close()
			break
		}
	}
	if len(s2.processes()) < 2 {
		t.Error("the second is not used")
	}
	s1.start()
	jump := open(t, ssh.Config{Routes: []ssh.Route{route(s1, s2)}, KnownHosts: cfg.KnownHosts, Keys: cfg.Keys})
	c, err := jump.Dial(guard(t), "tcp", target)
	must(t, err)
	says(t, c, strings.Repeat("over two servers ", 5000))
	for _, tt := range []struct {
		routes []ssh.Route
		class  errs.Class
		want   string
	}{
		{[]ssh.Route{route(s3, s1)}, errs.Denied, "does not allow connections to " + s1.addr},
		{[]ssh.Route{{route(s1)[0], {User: "root", Addr: "127.0.0.1:1"}}}, errs.UnavailableClass, "through root@" + s1.addr + ": ssh server root@" + s1.addr + " cannot connect to 127.0.0.1:1"},
		{[]ssh.Route{{route(s1)[0], {User: "nobody-here", Addr: s2.addr}}}, errs.Denied, "accepts none of the keys"},
		{[]ssh.Route{{{User: "root", Addr: "127.0.0.1:1"}}, {{User: "root", Addr: "127.0.0.1:2"}}}, errs.UnavailableClass, "no ssh route works: connect to ssh server root@127.0.0.1:1"},
		{[]ssh.Route{{{User: "nobody-here", Addr: s1.addr}}, {{User: "root", Addr: "127.0.0.1:2"}}}, errs.Denied, "no ssh route works"},
	} {
		err := open(t, ssh.Config{Routes: tt.routes, KnownHosts: cfg.KnownHosts, Keys: cfg.Keys}).Check(guard(t))
		if err == nil || !strings.Contains(err.Error(), tt.want) || errs.ClassOf(err) != tt.class {
			t.Errorf("%v: %v (%v), want %q", tt.routes, err, errs.ClassOf(err), tt.want)
		}
	}
}

// TestSilentServer stops the server as a cable that is pulled does: what was dialled ends, closing never waits for it, and when it is back the
// tunnel is too.
func TestSilentServer(t *testing.T) {
	if !ring2(t) {
		return
	}
	file, pub, _ := key(t, "")
	s := newServer(t, []gossh.PublicKey{pub})
	cfg := ssh.Config{Routes: []ssh.Route{route(s)}, KnownHosts: []string{known(t, s)}, Keys: []string{file}, Timeout: time.Second}
	tunnel, target := open(t, cfg), echo(t, "tcp", "127.0.0.1:0")
	c1, err := tunnel.Dial(guard(t), "tcp", target)
	must(t, err)
	c2, err := tunnel.Dial(guard(t), "tcp", target)
	must(t, err)
	slow := cfg
	slow.KeepAlive = time.Hour
	patient := open(t, slow)
	c3, err := patient.Dial(guard(t), "tcp", target)
	must(t, err)
	says(t, c1, "hello")
	s.signal(unix.SIGSTOP)
	must(t, c3.Close()) // a read or close that waits for the server would wait for an hour
	if _, err := c3.Read(make([]byte, 1)); err == nil {
		t.Error("read from a closed connection")
	}
	must(t, patient.Close())
	must(t, c2.SetReadDeadline(time.Now().Add(30*time.Second)))
	if _, err := c2.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the silent server was not given up: %v", err)
	}
	if err := tunnel.Check(guard(t)); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("connected to a server that does not answer: %v", err)
	}
	s.signal(unix.SIGCONT)
	for ctx := guard(t); tunnel.Check(ctx) != nil; {
		must(t, ctx.Err())
	}
	c, err := tunnel.Dial(guard(t), "tcp", target)
	must(t, err)
	says(t, c, "hello again")
}

// TestEtcd reaches an etcd that listens on loopback and on a socket through an ssh server that is killed and comes back: watches go on,
// and a host that takes part in a schedule over it, lost meanwhile to those who still see the store, is there again by itself.
func TestEtcd(t *testing.T) {
	if !ring2(t) {
		return
	}
	file, pub, _ := key(t, "")
	s := newServer(t, []gossh.PublicKey{pub})
	for _, end := range startEtcd(t) {
		tunnel := open(t, ssh.Config{Routes: []ssh.Route{route(s)}, KnownHosts: []string{known(t, s)}, Keys: []string{file}})
		b, err := etcd.Dial(etcd.Config{Endpoints: []string{end}, Dial: tunnel.Dial}, nil)
		must(t, err)
		kv := kvstore.New(b, kvstore.Config{})
		sched, err := scheduler.New(scheduler.Deps{KV: kv, Host: "laptop"})
		must(t, err)
		o, err := sched.Observe("web")
		must(t, err)
		_, err = sched.Configure(guard(t), "web", scheduler.DefaultSpec(), scheduler.AnyRevision)
		must(t, err)
		_, err = sched.Join(guard(t), "web", scheduler.JoinOptions{TTL: scheduler.MinTTL})
		must(t, err)
		takesPart := besides(t, end)
		takesPart(true)
		exists := func(want bool) {
			t.Helper()
			for {
				r, err := o.Next(guard(t))
				must(t, err)
				if (r.Spec != nil) == want {
					return
				}
			}
		}
		exists(true)
		s.kill()
		takesPart(false) // its lease has run out
		s.start()
		takesPart(true)
		ctx := guard(t)
		for { // what was under way when it broke is told so
			if err := sched.Delete(ctx, "web", true); err == nil || errs.Is(err, errs.NotFoundClass) {
				break
			}
			must(t, ctx.Err())
		}
		exists(false)
		must(t, sched.Close(guard(t)))
		must(t, kv.Close())
		must(t, tunnel.Close())
	}
}

// besides looks, without the tunnel, until the laptop takes part in the schedule, or does not.
func besides(t *testing.T, end string) func(want bool) {
	b, err := etcd.Dial(etcd.Config{Endpoints: []string{end}, Dial: new(net.Dialer).DialContext}, nil)
	must(t, err)
	kv := kvstore.New(b, kvstore.Config{})
	t.Cleanup(func() { must(t, kv.Close()) })
	sched, err := scheduler.New(scheduler.Deps{KV: kv, Host: "server"})
	must(t, err)
	t.Cleanup(func() { must(t, sched.Close(guard(t))) })
	return func(want bool) {
		t.Helper()
		for ctx := guard(t); ; time.Sleep(10 * time.Millisecond) {
			schedule, err := sched.Get(ctx, "web")
			must(t, err)
			if slices.ContainsFunc(schedule.Candidates, func(c scheduler.Candidate) bool { return c.Host == "laptop" }) == want {
				return
			}
		}
	}
}

func startEtcd(t testing.TB) (endpoints []string) {
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel, c.UnsafeNoFsync, c.LogOutputs = "m1", t.TempDir(), "panic", true, []string{"/dev/null"}
	socket := filepath.Join(t.TempDir(), "etcd:0")
	var urls []url.URL
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		urls = append(urls, url.URL{Scheme: "http", Host: l.Addr().String()})
		l.Close()
	}
	tcp, peer := urls[0], urls[1]
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{tcp, {Scheme: "unix", Path: socket}}, []url.URL{tcp}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = "m1=" + peer.String()
	m, err := embed.StartEtcd(c)
	must(t, err)
	t.Cleanup(m.Close)
	select {
	case <-m.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd does not start")
	}
	return []string{tcp.String(), "unix://" + socket}
}
