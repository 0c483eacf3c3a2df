package elastic_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

// web asks the machine's port over HTTPS and returns the status and the text.
func web(t *testing.T, c *tls.Config, method, addr, path string) (int, string) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: c}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+addr+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return res.StatusCode, string(b)
}

// rpc reads a key over the port's gRPC.
func rpc(t *testing.T, c *tls.Config, addr string) error {
	t.Helper()
	d := &tls.Dialer{Config: c}
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addr}, DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return d.DialContext(ctx, "tcp", a) })}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = cl.Get(ctx, "k")
	return err
}

func issue(t *testing.T, ca *pki.CA, role pki.Role, name string) pki.Files {
	t.Helper()
	cert, key, err := ca.Issue(role, name, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	f := pki.In(t.TempDir())
	if err := f.Write(ca.CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhoMayUseThePort(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) {
		c.API = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the API at "+r.URL.Path) })
	})
	f.start("a")
	addr := f.cfg["a"].Address
	foreign, err := pki.NewCA("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	blind := func(c *tls.Config) *tls.Config { c.VerifyConnection = nil; return c }
	nobody := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	}
	who := map[string]func(protocols ...string) *tls.Config{
		"nobody":  nobody,
		"foreign": func(p ...string) *tls.Config { return blind(issue(t, foreign, pki.Member, "a").Dial(p...)) },
		"client":  issue(t, f.ca, pki.Client, "c").Dial,
		"member":  issue(t, f.ca, pki.Member, "m").Dial,
	}
	for name, dial := range who {
		for _, path := range []string{"/raft", "/raft/stream/message/1", "/raft/snapshot", "/members", "/members/promote/1", "/version", "/leases", "/leases/internal", "/downgrade/enabled", "/members/hashkv",
			"/internal/elastic/ping", "/internal/elastic/start", "/internal/elastic/stop", "/internal/elastic/join", "/internal/elastic/about", "/internal/elastic/none"} {
			status, text := web(t, dial(), "POST", addr, path)
			if refused := status == http.StatusForbidden && strings.Contains(text, "member"); refused != (name != "member") {
				t.Errorf("%s at %s: %d %s", name, path, status, text)
			}
		}
		if status, text := web(t, dial(), "GET", addr, "/1.0"); status != http.StatusOK || text != "the API at /1.0" {
			t.Errorf("%s at the API: %d %s", name, status, text)
		}
		err := rpc(t, dial("shoal-db"), addr)
		if (err == nil) != (name == "client" || name == "member") {
			t.Errorf("%s with the database's protocol: %v", name, err)
		}
		if err := rpc(t, dial("h2"), addr); err == nil {
			t.Errorf("%s reached the database as HTTP/2", name)
		}
	}
	// without TLS nothing answers
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /members HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	if bytes.Contains(b, []byte("HTTP/1.1 200")) || bytes.Contains(b, []byte("peerURLs")) {
		t.Errorf("without TLS: %s", b)
	}
}

func TestSocket(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c.Socket = filepath.Join(c.Dir, "s")
	})
	f.start("a")
	path := f.cfg["a"].Socket
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + path}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.Put(t.Context(), elastic.SizeKey, "1"); err != nil {
		t.Fatal(err)
	}
	f.until("the key counts", func() bool { v, _ := f.nodes["a"].Members(); return v.Targets.Voters == 1 })
	if m, err := cl.MemberList(t.Context()); err != nil || len(m.Members) != 1 || m.Members[0].Name != "a" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestAddressChanges(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) { c.Offline = 20 * time.Second })
	f.start("a", "b", "c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	ids := f.nodes["b"].Status().Member
	f.stop("b")
	cfg := f.cfg["b"]
	old := cfg.Address
	cfg.Address = "127.0.0.2:0"
	f.cfg["b"] = cfg
	f.open("b")
	f.until("the new address", func() bool {
		v, _ := f.nodes["a"].Members()
		for _, m := range v.Members {
			if m.Name == "b" {
				return m.Address == f.cfg["b"].Address && m.Address != old && m.Online
			}
		}
		return false
	})
	f.until("b follows", func() bool { return f.nodes["b"].Status().Quorum })
	f.put("b", "k", "v")
	if got := f.nodes["b"].Status().Member; got != ids {
		t.Errorf("the member was %s and is %s", ids, got)
	}
	f.stop("c") // b counts
	f.put("a", "without", "c")
}

// TestLoneMemberBecomesCluster takes the data that a single machine has today into a cluster.
func TestLoneMemberBecomesCluster(t *testing.T) {
	f := newFleet(t, nil)
	m := start(t, elastic.Config{Name: "a", Dir: filepath.Join(f.root, "a", "db")})
	put(t, m, "k", "v")
	stop(t, m)
	f.open("a")
	f.leader()
	f.start("b", "c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	if got := f.get("c", "k"); got != "v" {
		t.Errorf("k is %q", got)
	}
	f.stop("a")
	if _, err := elastic.Start(t.Context(), elastic.Config{Name: "a", Dir: filepath.Join(f.root, "a", "db")}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("a member of a cluster was started alone: %v", err)
	}
}

func TestNothingStartsByItself(t *testing.T) {
	f := newFleet(t, nil)
	n := f.open("a")
	if s := n.Status(); s.Running || s.Cluster != "" {
		t.Errorf("%+v", s)
	}
	if _, _, err := n.Client(t.Context()); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("a client of no cluster: %v", err)
	}
	if err := n.Join(t.Context()); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("joining nobody: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := n.Join(ctx, "127.0.0.1:1"); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("joining a machine that is not there: %v", err)
	}
	f.stop("a")
	if s := f.open("a").Status(); s.Running || s.ID != "" {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestBadNodeConfig(t *testing.T) {
	f := newFleet(t, nil)
	f.open("a")
	good := f.cfg["a"]
	for name, change := range map[string]func(*elastic.NodeConfig){
		"name":     func(c *elastic.NodeConfig) { c.Name = "a/b" },
		"address":  func(c *elastic.NodeConfig) { c.Address = "a" },
		"port":     func(c *elastic.NodeConfig) { c.Address = "a:0" },
		"listener": func(c *elastic.NodeConfig) { c.Listener = nil },
		"certs":    func(c *elastic.NodeConfig) { c.Certs = pki.In("/nowhere") },
		"targets":  func(c *elastic.NodeConfig) { c.Targets = elastic.Targets{Voters: 2} },
		"offline":  func(c *elastic.NodeConfig) { c.Offline = c.Ping },
	} {
		cfg := good
		change(&cfg)
		if _, err := elastic.Open(t.Context(), cfg); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add("3", "2")
	f.Add("", "")
	f.Add(" 5\n", "-1")
	f.Fuzz(func(t *testing.T, voters, standbys string) {
		got, err := elastic.ParseTargets(voters, standbys, elastic.Targets{Voters: 3, Standbys: 2})
		if got.Voters%2 != 1 || got.Voters < 1 || got.Voters > 7 || got.Standbys < 0 || got.Standbys > 5 {
			t.Errorf("%+v", got)
		}
		if err != nil && !errs.Is(err, errs.InvalidInput) {
			t.Error(err)
		}
	})
}
