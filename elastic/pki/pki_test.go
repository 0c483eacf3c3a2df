package pki_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

func authority(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func files(t *testing.T, ca *pki.CA, role pki.Role, name string) pki.Files {
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

// dial returns what the server says of the client, or the error that the client sees.
func dial(t *testing.T, server pki.Files, client *tls.Config) (pki.Holder, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server.Server("db", "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		h   pki.Holder
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close()
		if err := c.(*tls.Conn).HandshakeContext(t.Context()); err != nil {
			got <- result{err: err}
			return
		}
		s := c.(*tls.Conn).ConnectionState()
		h, err := server.Identify(&s)
		got <- result{h, err}
	}()
	d := tls.Dialer{Config: client, NetDialer: &net.Dialer{Timeout: 5 * time.Second}}
	c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		<-got
		return pki.Holder{}, err
	}
	defer c.Close()
	_, rerr := c.Read(make([]byte, 1))
	r := <-got
	if r.err == nil && rerr != io.EOF {
		return r.h, rerr
	}
	return r.h, r.err
}

func TestWhoMayConnect(t *testing.T) {
	ca, other := authority(t), authority(t)
	server := files(t, ca, pki.Member, "m1")
	plain := func(f pki.Files) *tls.Config { return f.Dial("http/1.1") }
	for _, tt := range []struct {
		name   string
		client *tls.Config
		want   pki.Holder // zero: refused
	}{
		{"member", files(t, ca, pki.Member, "m2").Dial("db"), pki.Holder{Role: pki.Member, Name: "m2"}},
		{"client", files(t, ca, pki.Client, "c").Dial("db"), pki.Holder{Role: pki.Client, Name: "c"}},
		{"member, web", plain(files(t, ca, pki.Member, "m2")), pki.Holder{Role: pki.Member, Name: "m2"}},
		{"none", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"db"}}, pki.Holder{}},
		{"none, web", &tls.Config{InsecureSkipVerify: true}, pki.Holder{}},
		{"of another cluster", func() *tls.Config {
			c := files(t, other, pki.Member, "m2").Dial("db")
			c.VerifyConnection = nil
			return c
		}(), pki.Holder{}},
		{"expects another cluster", files(t, other, pki.Member, "m2").Dial("db"), pki.Holder{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := dial(t, server, tt.client)
			if h != tt.want || (err == nil) != (tt.want != pki.Holder{}) {
				t.Errorf("%+v %v", h, err)
			}
		})
	}
	// a client's certificate serves nobody
	if _, err := dial(t, files(t, ca, pki.Client, "c"), files(t, ca, pki.Member, "m2").Dial("db")); err == nil {
		t.Error("a client was taken for a member")
	}
}

func TestChangeOfAuthority(t *testing.T) {
	a, b := authority(t), authority(t)
	server, client := files(t, a, pki.Member, "m1"), files(t, a, pki.Member, "m2")
	sc, cc := server.Server("db"), client.Dial("db")
	_ = sc
	both := append(append([]byte{}, a.CertPEM()...), b.CertPEM()...)
	for _, f := range []pki.Files{server, client} {
		if err := os.WriteFile(f.CA, both, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key, err := b.Issue(pki.Member, "m2", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Write(both, cert, key); err != nil {
		t.Fatal(err)
	}
	if h, err := dial(t, server, cc); err != nil || h.Name != "m2" {
		t.Errorf("with a certificate of the new authority: %+v %v", h, err)
	}
}

func TestRequest(t *testing.T) {
	ca := authority(t)
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = pki.LoadCA(ca.CertPEM(), keyPEM); err != nil {
		t.Fatal(err)
	}
	req, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req, pki.Member, "m1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	f := pki.In(t.TempDir())
	if err := f.Write(ca.CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(); err != nil {
		t.Error(err)
	}
	st, err := os.Stat(f.Key)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", st.Mode(), err)
	}
	old, err := ca.Sign(req, pki.Member, "m1", time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(ca.CertPEM(), old, key); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("expired: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	ca := authority(t)
	req, key, _ := pki.NewRequest()
	for name, f := range map[string]func() error{
		"role":    func() error { _, err := ca.Sign(req, "root", "m", time.Now(), time.Hour); return err },
		"name":    func() error { _, err := ca.Sign(req, pki.Member, "", time.Now(), time.Hour); return err },
		"request": func() error { _, err := ca.Sign(key, pki.Member, "m", time.Now(), time.Hour); return err },
		"no PEM":  func() error { _, err := ca.Sign(nil, pki.Member, "m", time.Now(), time.Hour); return err },
		"CA":      func() error { _, err := pki.LoadCA(ca.CertPEM(), key); return err },
		"files":   func() error { return pki.In(t.TempDir()).Check() },
	} {
		t.Run(name, func(t *testing.T) {
			if err := f(); !errs.Is(err, errs.InvalidInput) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzSign(f *testing.F) {
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	req, _, _ := pki.NewRequest()
	f.Add(req)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ca.Sign(b, pki.Member, "m", time.Now(), time.Hour); err != nil && !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%v", err)
		}
	})
}
