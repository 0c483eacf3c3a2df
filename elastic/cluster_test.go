package elastic_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
)

// fleet is a cluster in this process, on the loopback.
type fleet struct {
	t      *testing.T
	ca     *pki.CA
	root   string
	nodes  map[string]*elastic.Node
	cfg    map[string]elastic.NodeConfig
	change func(*elastic.NodeConfig) // of each machine
}

func newFleet(t *testing.T, change func(*elastic.NodeConfig)) *fleet {
	t.Helper()
	t.Parallel() // much of the time is etcd waiting for five quiet seconds
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, ca: ca, root: t.TempDir(), nodes: map[string]*elastic.Node{}, cfg: map[string]elastic.NodeConfig{}, change: change}
}

// open starts a machine, for the first time or again in its directory and at its address.
func (f *fleet) open(name string) *elastic.Node {
	f.t.Helper()
	n, err := f.tryOpen(name)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fleet) tryOpen(name string) (*elastic.Node, error) {
	f.t.Helper()
	cfg, known := f.cfg[name]
	if !known {
		certs := pki.In(filepath.Join(f.root, name))
		cert, key, err := f.ca.Issue(pki.Member, name, time.Now(), time.Hour)
		if err == nil {
			err = certs.Write(f.ca.CertPEM(), cert, key)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		cfg = elastic.NodeConfig{Config: elastic.Config{Name: name, Dir: filepath.Join(f.root, name, "db"), NoSync: true, Tick: 50 * time.Millisecond, Election: 500 * time.Millisecond},
			Address: "127.0.0.1:0", Certs: certs, Ping: 200 * time.Millisecond, Offline: 2 * time.Second}
		if os.Getenv("SHOAL_TEST_LOG") != "" {
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("on", name)
		}
		if f.change != nil {
			f.change(&cfg)
		}
	}
	l, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		f.t.Fatal(err)
	}
	cfg.Listener, cfg.Address = l, l.Addr().String()
	n, err := elastic.Open(f.t.Context(), cfg)
	if err != nil {
		l.Close()
		return nil, err
	}
	f.cfg[name], f.nodes[name] = cfg, n
	f.t.Cleanup(func() { closeNode(f.t, n) })
	return n, nil
}

func closeNode(t *testing.T, n *elastic.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

func (f *fleet) stop(name string) {
	f.t.Helper()
	closeNode(f.t, f.nodes[name])
	delete(f.nodes, name)
}

// start opens machines a, b, …: the first founds the cluster, the others join it.
func (f *fleet) start(names ...string) {
	f.t.Helper()
	for i, name := range names {
		n := f.open(name)
		if i == 0 && len(f.nodes) == 1 {
			if err := n.Bootstrap(f.t.Context()); err != nil {
				f.t.Fatal(err)
			}
			continue
		}
		f.join(name)
	}
}

func (f *fleet) join(name string) {
	f.t.Helper()
	for other := range f.nodes {
		if other != name {
			if err := f.nodes[name].Join(f.t.Context(), f.cfg[other].Address); err != nil {
				f.t.Fatal(err)
			}
			return
		}
	}
}

// roles is the cluster as machine name sees it: "a=voter* b=standby c=spare", * the leader, ! who does not answer.
func (f *fleet) roles(name string) string {
	v, _ := f.nodes[name].Members()
	var out []string
	for _, m := range v.Members {
		mark := ""
		if m.Leader {
			mark += "*"
		}
		if !m.Online {
			mark += "!"
		}
		out = append(out, m.Name+"="+m.Role.String()+mark)
	}
	return strings.Join(out, " ")
}

// tally counts the roles as machine name sees them.
func (f *fleet) tally(name string) string {
	v, _ := f.nodes[name].Members()
	n := [3]int{}
	for _, m := range v.Members {
		n[m.Role]++
	}
	return fmt.Sprintf("%d voters, %d standbys, %d spares", n[elastic.Voter], n[elastic.Standby], n[elastic.Spare])
}

// until waits for a condition; it fails the test after half a minute.
func (f *fleet) until(what string, ok func() bool) time.Duration {
	f.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > 90*time.Second { // many clusters share two processors here
			for name := range f.nodes {
				view, _ := f.nodes[name].Members()
				f.t.Logf("%s: %s; %+v; %+v", name, f.roles(name), f.nodes[name].Status(), view)
			}
			f.t.Fatalf("waited too long: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func (f *fleet) untilTally(name, want string) time.Duration {
	f.t.Helper()
	return f.until(want, func() bool { return f.tally(name) == want })
}

// put writes through a machine, again when a leader was just changing: that is what a user's client does.
func (f *fleet) put(name, key, value string) {
	f.t.Helper()
	f.until("a write through "+name, func() bool { return f.tryPut(name, key, value, 2*time.Second) == nil })
}

func (f *fleet) tryPut(name, key, value string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), d)
	defer cancel()
	c, _, err := f.nodes[name].Client(ctx)
	if err == nil {
		_, err = c.Put(ctx, key, value)
	}
	return err
}

func (f *fleet) get(name, key string) (value string) {
	f.t.Helper()
	f.until("a read through "+name, func() bool {
		ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Second)
		defer cancel()
		c, _, err := f.nodes[name].Client(ctx)
		if err != nil {
			return false
		}
		r, err := c.Get(ctx, key)
		if err == nil && len(r.Kvs) > 0 {
			value = string(r.Kvs[0].Value)
		}
		return err == nil
	})
	return value
}

// leader returns the machine that leads.
func (f *fleet) leader() (name string) {
	f.t.Helper()
	f.until("a leader", func() bool {
		for name = range f.nodes {
			if f.nodes[name].Status().Leader {
				return true
			}
		}
		return false
	})
	return name
}

func TestGrowsByItself(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a")
	f.put("a", "k", "v")
	f.start("b")
	f.untilTally("a", "1 voters, 1 standbys, 0 spares")
	begin := time.Now()
	f.start("c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	t.Logf("third machine: %v", time.Since(begin))
	f.start("d", "e", "f")
	f.untilTally("f", "3 voters, 2 standbys, 1 spares")
	for name := range f.nodes { // voters, standbys and the spare alike
		f.put(name, "by-"+name, name)
		if got := f.get(name, "k"); got != "v" {
			t.Errorf("%s reads %q", name, got)
		}
	}
	for name := range f.nodes {
		if got := f.get("a", "by-"+name); got != name {
			t.Errorf("what %s wrote is %q", name, got)
		}
	}
}
