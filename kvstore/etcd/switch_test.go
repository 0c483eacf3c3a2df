package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/kvtest"
)

// openNode starts a machine of a cluster on the loopback.
func openNode(t *testing.T, ca *pki.CA, name string, change func(*elastic.NodeConfig)) *elastic.Node {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := ca.Issue(pki.Member, name, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certs := pki.In(dir)
	if err := certs.Write(ca.CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := elastic.NodeConfig{Config: elastic.Config{Name: name, Dir: filepath.Join(dir, "db"), NoSync: true, Tick: 50 * time.Millisecond, Election: 500 * time.Millisecond},
		Listener: l, Address: l.Addr().String(), Certs: certs, Ping: 100 * time.Millisecond, Offline: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	n, err := elastic.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

func clusterCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestSwitchConformance runs the suite over a machine with a copy and over a spare, whose client goes over the network. It is slow: each
// test forms a cluster.
func TestSwitchConformance(t *testing.T) {
	testring.Need(t, 2)
	lone := func(c *elastic.NodeConfig) {
		c.Tick, c.Election, c.Targets = 10*time.Millisecond, 100*time.Millisecond, elastic.Targets{Voters: 1}
	}
	for _, from := range []string{"voter", "spare"} {
		t.Run(from, func(t *testing.T) {
			ca := clusterCA(t)
			kvtest.Run(t, time.Second, func(t *testing.T) kvstore.Backend {
				n := openNode(t, ca, "a", lone)
				if err := n.Bootstrap(t.Context()); err != nil {
					t.Fatal(err)
				}
				if from == "spare" {
					v := untilView(t, n, func(v elastic.View) bool { return len(v.Members) == 1 })
					n = openNode(t, ca, "b", lone)
					if err := n.Join(t.Context(), v.Members[0].Address); err != nil {
						t.Fatal(err)
					}
				}
				b := etcd.NewSwitch(n)
				t.Cleanup(func() { b.Close() })
				return b
			})
		})
	}
}

func untilView(t *testing.T, n *elastic.Node, ok func(elastic.View) bool) elastic.View {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		v, changed := n.Members()
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waited too long: %+v", v)
		}
	}
}

// TestRolesChangeUnderneath writes and watches through one machine while that becomes a spare, a standby and a voter again.
func TestRolesChangeUnderneath(t *testing.T) {
	ca := clusterCA(t)
	a := openNode(t, ca, "a", nil)
	if err := a.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	via := untilView(t, a, func(v elastic.View) bool { return len(v.Members) == 1 }).Members[0].Address
	b, c := openNode(t, ca, "b", nil), openNode(t, ca, "c", nil)
	for _, n := range []*elastic.Node{b, c} {
		if err := n.Join(t.Context(), via); err != nil {
			t.Fatal(err)
		}
	}
	kv := kvstore.New(etcd.NewSwitch(c), kvstore.Config{})
	defer kv.Close()

	const last = "enough"
	got := map[string]string{}
	watched := make(chan error, 1)
	go func() {
		watched <- kv.NewWatcher("p/").Run(t.Context(), func(b kvstore.Batch) error {
			for _, e := range b.Events {
				got[e.KV.Key] = string(e.KV.Value)
				if e.KV.Key == "p/"+last {
					return errEnough
				}
			}
			return nil
		})
	}()
	stop, written := make(chan struct{}), make(chan map[string]bool, 1)
	go func() {
		acked := map[string]bool{}
		defer func() { written <- acked }()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			key := fmt.Sprint("p/", i)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, _, err := kv.Update(ctx, key, []byte("v"), 0)
			if err == nil {
				acked[key] = true
			} else if !errs.Is(err, errs.UnavailableClass) {
				t.Errorf("write %d: %v", i, err)
			}
			if _, _, err := kv.Get(ctx, key); err != nil && !errs.Is(err, errs.UnavailableClass) {
				t.Errorf("read %d: %v", i, err)
			}
			cancel()
		}
	}()
	role := func(want elastic.Role) func(elastic.View) bool {
		return func(v elastic.View) bool {
			for _, m := range v.Members {
				if m.Name == "c" {
					return m.Role == want
				}
			}
			return false
		}
	}
	untilView(t, c, role(elastic.Voter))
	seen := []string{}
	for _, step := range []struct {
		t    elastic.Targets
		want elastic.Role
	}{{elastic.Targets{Voters: 1}, elastic.Spare}, {elastic.Targets{Voters: 1, Standbys: 2}, elastic.Standby}, {elastic.Targets{Voters: 3}, elastic.Voter}} {
		if err := b.SetTargets(t.Context(), step.t); err != nil {
			t.Fatal(err)
		}
		untilView(t, c, role(step.want))
		seen = append(seen, c.Status().Role.String())
	}
	close(stop)
	acked := <-written
	if _, _, err := kv.Update(t.Context(), "p/"+last, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; !errors.Is(err, errEnough) {
		t.Errorf("the watch ended: %v", err)
	}
	for key := range acked {
		if got[key] != "v" {
			t.Errorf("%s was written and not seen", key)
		}
	}
	t.Logf("%d writes while the machine was %s", len(acked), strings.Join(seen, ", "))
}

func TestSwitchWithoutCluster(t *testing.T) {
	n := openNode(t, clusterCA(t), "a", nil)
	b := etcd.NewSwitch(n)
	if _, err := b.Range(t.Context(), kvstore.Range{Key: "k"}); !errors.Is(err, kvstore.ErrNoQuorum) {
		t.Errorf("a read in no cluster: %v", err)
	}
	if _, err := b.Watch(t.Context(), "p", 0).Next(); !errors.Is(err, kvstore.ErrNoQuorum) {
		t.Errorf("a watch in no cluster: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Range(t.Context(), kvstore.Range{Key: "k"}); !errors.Is(err, kvstore.ErrClosed) {
		t.Errorf("a read after the end: %v", err)
	}
}
