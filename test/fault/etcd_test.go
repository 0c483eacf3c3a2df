package fault_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
	"github.com/shoal-project/shoal/test/harness"
)

// outside is a world whose database is an etcd that somebody else runs, with TLS, in the world's namespaces.
type outside struct {
	*world
	dir     string
	files   etcdtest.TLS // of the server
	config  string
	cluster *etcdtest.Cluster
}

func newOutside(t *testing.T) *outside {
	harness.Needs(t)
	o := &outside{world: &world{harness.New(t, harness.Build(t)), t}, dir: t.TempDir()}
	o.files = etcdtest.TLS{CA: o.at("ca"), Cert: o.at("server"), Key: o.at("server-key")}
	o.certify()
	// Two of them, apart: the second is another cluster.
	o.cluster = etcdtest.New(t, etcdtest.Options{TLS: &o.files, Dir: o.at("etcd"), Command: o.Inside, FirstPort: 2379})
	o.config = o.configure("etcd.yaml", o.cluster)
	o.Env = []string{"SHOAL_KVSTORE=etcd.config=" + o.config}
	return o
}

func (o *outside) at(name string) string { return filepath.Join(o.dir, name) }

// certify makes everything anew, the authority too, under the same names.
func (o *outside) certify() {
	ca := etcdtest.NewAuthority(o.t, o.at("ca"))
	ca.Sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: etcdtest.BothUses()}, o.files.Cert, o.files.Key)
	ca.Sign(&x509.Certificate{ExtKeyUsage: etcdtest.BothUses()}, o.at("client"), o.at("client-key"))
}

func (o *outside) configure(name string, c *etcdtest.Cluster) string {
	text := fmt.Sprintf("endpoints: [%q]\ntrusted-ca-file: %q\ncert-file: %q\nkey-file: %q\n", c.Endpoints()[0], o.at("ca"), o.at("client"), o.at("client-key"))
	o.must(os.WriteFile(o.at(name), []byte(text), 0o600))
	return o.at(name)
}

// database is what the daemon says of its database.
func (o *outside) database() api.ServerDatabase {
	var s api.Server
	o.Get(o.t, "/1.0", &s)
	if s.Environment.Database == nil {
		o.t.Fatal("the daemon does not say where its database is")
	}
	return *s.Environment.Database
}

// refused starts one more daemon and expects that it ends with an error.
func (o *outside) refused(want string, args ...string) {
	o.t.Helper()
	out, err := o.Inside(append([]string{"timeout", "30", filepath.Join(o.Bin, "shoald")}, args...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		o.t.Errorf("%v: %v, want %q\n%s", args, err, want, out)
	}
}

// writable waits until changes go through.
func (o *outside) writable(project string) {
	o.t.Helper()
	harness.Eventually(o.t, "changes go through", func() bool {
		_, err := o.Run("POST", "/1.0/projects", object{"name": project})
		return err == nil || strings.Contains(err.Error(), "already exists")
	})
}

// TestDaemonOnEtcd has the database come late, die, and come back under certificates of another authority; instances do not notice, and the daemon
// is not restarted for it. At the end both die at once.
func TestDaemonOnEtcd(t *testing.T) {
	o := newOutside(t)

	o.must(o.Launch())
	harness.Eventually(t, "the socket is open while the daemon waits for its database", func() bool {
		r, err := o.Do("GET", "/1.0", nil)
		return err == nil && r.Code == 503
	})
	out, err := o.Client("shoal", "admin", "etcd-debug")
	if err == nil || !strings.Contains(out, "connection refused") || !strings.Contains(out, "nothing listens on port 2379") {
		t.Errorf("without its database: %v\n%s", err, out)
	}
	o.must(o.cluster.StartMember(0))
	harness.Eventually(t, "the daemon goes on", func() bool {
		r, err := o.Do("GET", "/internal/ready", nil)
		return err == nil && r.Code == 200
	})
	o.setUp()
	keep := o.watch("keep")
	if d := o.database(); d.Type != "etcd" || d.State != "healthy" || d.Endpoints[0] != "https://127.0.0.1:2379" || d.Config != o.config {
		t.Errorf("%+v", d)
	}
	if out, err := o.Client("shoal", "admin", "etcd-debug"); err != nil || !strings.Contains(out, "heartbeat of n") {
		t.Errorf("all is well: %v\n%s", err, out)
	}

	o.cluster.Kill(0)
	if _, err := o.Run("POST", "/1.0/projects", object{"name": "not-now"}); !harness.Refused(err) || !strings.HasPrefix(err.Error(), "503") {
		t.Errorf("a change without the database: %v", err)
	}
	keep.untouched() // and is read, and entered
	o.certify()
	o.must(o.cluster.StartMember(0))
	o.writable("later")
	keep.untouched()
	if out, err := o.Client("shoal", "admin", "etcd-debug"); err != nil {
		t.Errorf("under other certificates: %v\n%s", err, out)
	}

	o.must(o.Stop())
	o.must(o.Start())
	keep.untouched()
	o.cluster.Kill(0)
	o.must(o.Kill())
	o.must(o.cluster.StartMember(0))
	o.must(o.Start())
	keep.untouched()
	keep.gapless()
	o.Check(t)
	o.remove("keep")
	o.Check(t)
}

// TestDatabasesAreNotMixedUp starts daemons with databases that are not theirs: each is refused and nothing is changed.
func TestDatabasesAreNotMixedUp(t *testing.T) {
	o := newOutside(t)
	another := etcdtest.New(t, etcdtest.Options{TLS: &o.files, Dir: o.at("another"), Command: o.Inside, FirstPort: 2479})
	o.must(o.cluster.StartMember(0))
	o.must(another.StartMember(0))
	o.must(o.Start())
	o.writable("mine")
	o.refused("is used by machine", "--dir", o.at("second"), "--kvstore", "etcd.config="+o.config)
	o.must(o.Stop())
	o.refused("belongs to the etcd cluster", "--dir", o.State)
	o.refused("belongs to cluster", "--dir", o.State, "--kvstore", "etcd.config="+o.configure("another.yaml", another))

	embedded := &world{harness.New(t, o.Bin), t}
	o.must(embedded.Start())
	o.must(embedded.Stop())
	o.refused("has a database of its own", "--dir", embedded.State, "--kvstore", "etcd.config="+o.config)
	o.must(embedded.Start()) // as before

	o.must(o.Start())
	var p api.Project
	o.Get(t, "/1.0/projects/mine", &p)
	o.Check(t)
}
