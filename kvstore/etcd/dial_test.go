package etcd_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
	"github.com/shoal-project/shoal/kvstore/kvtest"
)

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "endpoints: [http://a:1, http://b:1]", ""},
		{"full", "endpoints: ['https://a:1']\ntrusted-ca-file: /ca\ncert-file: /c\nkey-file: /k\nusername: u\npassword: p", ""},
		{"empty", "", "no endpoints"},
		{"not yaml", "endpoints: [", "read the database configuration"},
		{"unknown name", "endpoints: ['http://a:1']\ncolour: red", "colour"},
		{"no url", "endpoints: ['a:1']", "must be a URL"},
		{"mixed", "endpoints: ['http://a:1', 'https://a:1']", "all be http or all https"},
		{"certificates for nothing", "endpoints: ['http://a:1']\ntrusted-ca-file: /ca", "are http"},
		{"half a pair", "endpoints: ['https://a:1']\ncert-file: /c", "both"},
		{"password alone", "endpoints: ['http://a:1']\npassword: p", "no username"},
		{"large", strings.Repeat("#", 1<<17), "at most"},
	} {
		_, err := etcd.ParseConfig([]byte(tt.in))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && !errs.Is(err, errs.InvalidInput) && !errs.Is(err, errs.TooLargeClass) {
			t.Errorf("%s: class %v", tt.name, errs.ClassOf(err))
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("endpoints: ['https://a:1']\ntrusted-ca-file: /ca"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := etcd.ParseConfig(data); err == nil && len(c.Endpoints) == 0 {
			t.Error("accepted without endpoints")
		}
	})
}

func listen(t testing.TB) url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}

// member is one that may be stopped before the test ends.
type member struct {
	*embed.Etcd
	stop func()
}

// servers starts etcd members that talk over loopback and returns their client addresses.
func servers(t testing.TB, n int, change func(*embed.Config)) (members []*member, addrs []string) {
	var cfgs []*embed.Config
	var initial []string
	for i := range n {
		c := embed.NewConfig()
		c.Name, c.Dir, c.LogLevel, c.UnsafeNoFsync = fmt.Sprint("m", i), t.TempDir(), "panic", true
		c.LogOutputs = []string{"/dev/null"}
		c.MaxTxnOps, c.TickMs, c.ElectionMs = 1024, 20, 200
		client, peer := listen(t), listen(t)
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		if change != nil {
			change(c)
		}
		initial = append(initial, c.Name+"="+peer.String())
		addrs = append(addrs, c.AdvertiseClientUrls[0].String())
		cfgs = append(cfgs, c)
	}
	for _, c := range cfgs {
		c.InitialCluster = strings.Join(initial, ",")
		m, err := embed.StartEtcd(c)
		if err != nil {
			t.Fatal(err)
		}
		stop := sync.OnceFunc(m.Close)
		t.Cleanup(stop)
		members = append(members, &member{m, stop})
	}
	for _, m := range members {
		select {
		case <-m.Server.ReadyNotify():
		case <-time.After(20 * time.Second):
			t.Fatal("no leader")
		}
	}
	return members, addrs
}

// The suite over the network, against three members that replicate; one cluster, emptied between the tests.
func TestConformanceOfThreeMembers(t *testing.T) {
	_, addrs := servers(t, 3, nil)
	kvtest.Run(t, time.Second, func(t *testing.T) kvstore.Backend {
		b, err := etcd.Dial(etcd.Config{Endpoints: addrs}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Txn(t.Context(), kvstore.Txn{Then: []kvstore.Op{{Type: kvstore.OpDelete, Key: "\x00", End: "\x00"}}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
	b, err := etcd.Dial(etcd.Config{Endpoints: addrs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := kvstore.New(b, kvstore.Config{})
	defer c.Close()
	s := c.NewHealth(kvstore.HealthConfig{}).Check(t.Context())
	leaders := 0
	for _, e := range s.Servers {
		if e.Leader {
			leaders++
		}
		if e.Err != nil || e.Version == "" || e.Size == 0 {
			t.Errorf("%+v", e)
		}
	}
	if s.State != kvstore.Healthy || len(s.Servers) != 3 || leaders != 1 {
		t.Errorf("%+v", s)
	}
}

// A client whose certificates are wrong gets in as soon as right ones lie under the same names.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	right, wrong := etcdtest.NewAuthority(t, at("ca")), etcdtest.NewAuthority(t, at("wrong-ca"))
	ends := etcdtest.BothUses()
	right.Sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: ends}, at("server"), at("server-key"))
	_, addrs := servers(t, 1, func(c *embed.Config) {
		u := c.ListenClientUrls[0]
		u.Scheme = "https"
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = at("server"), at("server-key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = at("ca"), true
	})
	client := func(a *etcdtest.Authority) {
		a.Sign(&x509.Certificate{ExtKeyUsage: ends}, at("client"), at("client-key"))
		data, err := os.ReadFile(a.File)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at("client-ca"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client(wrong)
	b, err := etcd.Dial(etcd.Config{Endpoints: addrs, CA: at("client-ca"), Cert: at("client"), Key: at("client-key")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := kvstore.New(b, kvstore.Config{CallTimeout: time.Second})
	defer c.Close()
	if _, err := c.Head(t.Context()); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("with wrong certificates: %v", err)
	}
	client(right)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err = c.Head(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Errorf("with right certificates: %v", err)
	}
	for _, missing := range []etcd.Config{{Endpoints: addrs, CA: at("none")}, {Endpoints: addrs, Cert: at("none"), Key: at("client-key")}, {Endpoints: addrs, CA: at("server-key")}} {
		if _, err := etcd.Dial(missing, nil); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%+v: %v", missing, err)
		}
	}
}
