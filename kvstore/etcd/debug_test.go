package etcd_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
)

// findings flattens a report to "path: status text; hint" lines of all checks with the status.
func findings(r api.DatabaseReport, status string) (out []string) {
	var walk func(path string, list []api.DatabaseCheck)
	walk = func(path string, list []api.DatabaseCheck) {
		for _, c := range list {
			if c.Status == status {
				out = append(out, path+c.Name+": "+c.Text+"; "+c.Hint)
			}
			walk(path+c.Name+"/", c.Checks)
		}
	}
	walk("", r.Checks)
	return out
}

// secured is a TLS server that knows its clients by certificates of the same authority, in a directory with one file per thing.
type secured struct {
	t    *testing.T
	dir  string
	ca   *etcdtest.Authority
	addr string
}

func (s *secured) at(name string) string { return filepath.Join(s.dir, name) }

// config writes a configuration file: the right one with the lines changed.
func (s *secured) config(endpoint string, lines map[string]string) string {
	all := map[string]string{"trusted-ca-file": s.at("ca"), "cert-file": s.at("client"), "key-file": s.at("client-key")}
	for k, v := range lines {
		all[k] = v
	}
	text := fmt.Sprintf("endpoints: [%q]\n", endpoint)
	for k, v := range all {
		if v != "" {
			text += fmt.Sprintf("%s: %q\n", k, v)
		}
	}
	f, err := os.CreateTemp(s.dir, "*.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
	return f.Name()
}

func (s *secured) server(cert string) string {
	_, addrs := servers(s.t, 1, func(c *embed.Config) {
		u := c.ListenClientUrls[0]
		u.Scheme = "https"
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = s.at(cert), s.at(cert+"-key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = s.at("ca"), true
		c.ClientTLSInfo.SkipClientSANVerify = true
	})
	return addrs[0]
}

func newSecured(t *testing.T) *secured {
	s := &secured{t: t, dir: t.TempDir()}
	s.ca = etcdtest.NewAuthority(t, s.at("ca"))
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	s.ca.Sign(&x509.Certificate{IPAddresses: here, ExtKeyUsage: etcdtest.BothUses()}, s.at("server"), s.at("server-key"))
	s.ca.Sign(&x509.Certificate{ExtKeyUsage: etcdtest.BothUses()}, s.at("client"), s.at("client-key"))
	s.addr = s.server("server")
	return s
}

// client returns a client with the right certificates.
func (s *secured) client() *clientv3.Client {
	tlsc, err := etcd.Config{Endpoints: []string{s.addr}, CA: s.at("ca"), Cert: s.at("client"), Key: s.at("client-key")}.TLSForTest()
	if err != nil {
		s.t.Fatal(err)
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{s.addr}, TLS: tlsc, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func (s *secured) debug(file string) api.DatabaseReport {
	return etcd.Debug(s.t.Context(), etcd.DebugOptions{File: file, Prefix: "/shoal/v1/", Beats: "/shoal/v1/beats/", Step: 2 * time.Second})
}

// TestDebugNamesWhatIsWrong breaks one thing at a time of a real server with TLS, or of what the client has, and expects a problem with a hint.
func TestDebugNamesWhatIsWrong(t *testing.T) {
	s := newSecured(t)
	old := time.Now().Add(-48 * time.Hour)
	expired := func() *x509.Certificate {
		return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: etcdtest.BothUses(), NotBefore: old, NotAfter: old.Add(24 * time.Hour)}
	}
	s.ca.Sign(expired(), s.at("old"), s.at("old-key"))
	s.ca.Sign(&x509.Certificate{DNSNames: []string{"db.example"}, ExtKeyUsage: etcdtest.BothUses()}, s.at("elsewhere"), s.at("elsewhere-key"))
	other := etcdtest.NewAuthority(t, s.at("other-ca"))
	other.Sign(&x509.Certificate{ExtKeyUsage: etcdtest.BothUses()}, s.at("stranger"), s.at("stranger-key"))
	oldServer, elsewhere := s.server("old"), s.server("elsewhere")
	_, plain := servers(t, 1, nil)
	nobody := "https://" + listenNowhere(t)

	for _, tt := range []struct {
		name, file string
		want       []string // a problem that has all of it, hint included; none: no problem at all
	}{
		{"all right", s.config(s.addr, nil), nil},
		{"server's certificate has expired", s.config(oldServer, nil), []string{"server certificate", "expired", "renew it"}},
		{"wrong authority", s.config(s.addr, map[string]string{"trusted-ca-file": s.at("other-ca")}), []string{"server certificate", "unknown authority", "set trusted-ca-file to that authority"}},
		{"wrong host", s.config(elsewhere, nil), []string{"server certificate", "127.0.0.1", "(db.example)"}},
		{"own certificate has expired", s.config(s.addr, map[string]string{"cert-file": s.at("old"), "key-file": s.at("old-key")}), []string{"certificates/client/CN=old", "expired", "renew it"}},
		{"own certificate is of a stranger", s.config(s.addr, map[string]string{"cert-file": s.at("stranger"), "key-file": s.at("stranger-key")}), []string{"server: no answer", "must be signed by the server's"}},
		{"no certificate of one's own", s.config(s.addr, map[string]string{"cert-file": "", "key-file": ""}), []string{"server: no answer", "set cert-file and key-file"}},
		{"key of another certificate", s.config(s.addr, map[string]string{"key-file": s.at("old-key")}), []string{"certificates/client", "does not match", "key-file must hold"}},
		{"no such authority's file", s.config(s.addr, map[string]string{"trusted-ca-file": s.at("none")}), []string{"certificates/authorities", "no such file", "trusted-ca-file must name"}},
		{"nobody listens", s.config(nobody, nil), []string{"connection", "refused", "nothing listens on port"}},
		{"no such name", s.config("https://db.invalid:1", nil), []string{"name", "db.invalid", "spelled right"}},
		{"TLS to a plain server", s.config(strings.Replace(plain[0], "http:", "https:", 1), nil), []string{"tls", "write http:// in endpoints"}},
		{"plain to a TLS server", s.config(strings.Replace(s.addr, "https:", "http:", 1), map[string]string{"trusted-ca-file": "", "cert-file": "", "key-file": ""}), []string{"server", "write https:// in endpoints"}},
		{"not a file", s.dir, []string{"configuration", "must be a regular file", "a YAML file with endpoints"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := s.debug(tt.file)
			got := findings(r, api.CheckError)
			if len(got) != r.Problems {
				t.Errorf("%d problems counted, %d are there", r.Problems, len(got))
			}
			if tt.want == nil && len(got) > 0 || tt.want != nil && !anyHasAll(got, tt.want) {
				t.Errorf("want %q in one of:\n%s\nreport:\n%s", tt.want, strings.Join(got, "\n"), r)
			}
			for _, f := range got {
				if strings.HasSuffix(f, "; ") {
					t.Errorf("a problem without a hint: %s", f)
				}
			}
			if data, err := json.Marshal(r); err != nil || strings.Contains(string(data), "PRIVATE KEY") {
				t.Errorf("as JSON: %s %v", data, err)
			}
		})
	}
}

func anyHasAll(lines, parts []string) bool {
	for _, l := range lines {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(l, p)
		}
		if all {
			return true
		}
	}
	return false
}

// listenNowhere is an address of this machine on which nobody listens.
func listenNowhere(t *testing.T) string {
	u := listen(t)
	return u.Host
}

// TestDebugShowsWhatIsThere looks at what a working cluster says of itself.
func TestDebugShowsWhatIsThere(t *testing.T) {
	s := newSecured(t)
	cl := s.client()
	text := s.debug(s.config(s.addr, nil)).String()
	h, err := cl.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"connection: to 127.0.0.1:", "TLS 1.3", "names: 127.0.0.1", "issuer: CN=ca", "valid: 20", "client certificate: the server asks for one, signed by CN=ca",
		"server: etcd 3.", "CN=client", "user: none", fmt.Sprintf("cluster id: %x", h.Header.ClusterId), "leader, etcd 3.", "transaction size: 1024 operations", "no daemon has used",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestDebugHeartbeat looks at a cluster with keys of ours and a heartbeat that is not there, alive, old, or nonsense.
func TestDebugHeartbeat(t *testing.T) {
	s := newSecured(t)
	cl := s.client()
	file := s.config(s.addr, nil)
	put := func(key, value string) {
		if _, err := cl.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/shoal/v1/config/x", "1")
	expect := func(what string, want ...string) {
		t.Helper()
		got := findings(s.debug(file), api.CheckError)
		if len(want) == 0 && len(got) > 0 || len(want) > 0 && (len(got) != 1 || !anyHasAll(got, want)) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	expect("missing", "client/heartbeat: none", "is shoald running")
	put("/shoal/v1/beats/n1", time.Now().UTC().Format(time.RFC3339))
	expect("alive")
	put("/shoal/v1/beats/n2", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	expect("old", "heartbeat of n2: 1h0m", "cannot write")
	put("/shoal/v1/beats/n2", "now")
	expect("nonsense", "heartbeat of n2", "is no time")
}

// TestDebugLogin tries users on a cluster with authentication.
func TestDebugLogin(t *testing.T) {
	s := newSecured(t)
	cl := s.client()
	ctx := t.Context()
	for _, u := range []string{"root", "narrow"} {
		if _, err := cl.UserAdd(ctx, u, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cl.RoleAdd(ctx, "some"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.UserGrantRole(ctx, "narrow", "some"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.UserGrantRole(ctx, "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, password string
		want           []string
	}{
		{"root", "secret", nil},
		{"root", "wrong", []string{"client/login", "authentication failed", "username or password is wrong"}},
		{"nobody", "secret", []string{"client/login", "authentication failed", "username or password is wrong"}},
		{"narrow", "secret", []string{"client/read", "permission denied", "role is too narrow"}},
		// The client certificate names a user that does not exist.
		{"", "", []string{"client/read", ""}},
	} {
		r := s.debug(s.config(s.addr, map[string]string{"username": tt.user, "password": tt.password}))
		got := findings(r, api.CheckError)
		if tt.want == nil && len(got) > 0 || tt.want != nil && !anyHasAll(got, tt.want) {
			t.Errorf("%s/%s: want %q in\n%s", tt.user, tt.password, tt.want, strings.Join(got, "\n"))
		}
		if tt.password != "" && strings.Contains(r.String(), tt.password+"\n") {
			t.Errorf("the password is shown:\n%s", r)
		}
	}
}

// elsewhereDialer knows names that DNS does not know, and counts what is dialled through it.
type elsewhereDialer struct {
	net.Dialer
	to    string
	dials chan string
}

func (d *elsewhereDialer) LookupHost(context.Context, string) ([]string, error) {
	return []string{"127.0.0.1"}, nil
}

func (d *elsewhereDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.dials <- address
	return d.Dialer.DialContext(ctx, network, d.to)
}

func TestDebugDialer(t *testing.T) {
	_, addrs := servers(t, 1, nil)
	u, err := url.Parse(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("endpoints: ['http://db.service:7']"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &elsewhereDialer{to: u.Host, dials: make(chan string, 100)}
	r := etcd.Debug(t.Context(), etcd.DebugOptions{File: file, Prefix: "/shoal/v1/", Beats: "/shoal/v1/beats/", Dialer: d})
	if r.Problems != 0 || len(d.dials) < 2 || <-d.dials != "db.service:7" {
		t.Errorf("%d dials:\n%s", len(d.dials), r)
	}
}
