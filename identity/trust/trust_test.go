package trust_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/identity/trust"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/state"
)

func certificate(t *testing.T, cn string, life time.Duration) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func service(t *testing.T, db *state.DB, change ...func(*trust.Deps)) *trust.Service {
	t.Helper()
	d := trust.Deps{State: db, Logger: slog.New(slog.DiscardHandler), Fingerprint: strings.Repeat("ab", 32),
		Addresses: func() []string { return []string{"10.0.0.1:8443"} }}
	for _, f := range change {
		f(&d)
	}
	s, err := trust.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func issue(t *testing.T, s *trust.Service, put api.CertificatePut) string {
	t.Helper()
	o, err := s.Issue(t.Context(), put)
	if err != nil {
		t.Fatal(err)
	}
	tok := api.CertificateToken{ClientName: put.Name, Fingerprint: o.Metadata["fingerprint"].(string),
		Addresses: o.Metadata["addresses"].([]string), Secret: o.Metadata["secret"].(string)}
	tok.ExpiresAt, _ = o.Metadata["expiresAt"].(time.Time)
	return tok.String()
}

func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, state.NewMemory(), func(d *trust.Deps) { d.TokenExpiry = func() string { return "1H" } })
		text := issue(t, s, api.CertificatePut{Name: "late"})
		if tok, err := api.ParseCertificateToken(text); err != nil || tok.ExpiresAt.Sub(time.Now()) != time.Hour {
			t.Errorf("token %+v, %v", tok, err)
		}
		time.Sleep(time.Hour)
		if n := len(s.Tokens()); n != 0 {
			t.Errorf("%d tokens are listed", n)
		}
		_, err := s.Enrol(t.Context(), trust.Attempt{Peer: certificate(t, "x", 24*time.Hour), Password: text})
		if !errs.Is(err, errs.Denied) || err.Error() != "Token has expired" {
			t.Errorf("got %v", err)
		}
		if got := s.List(access.Caller{Kind: access.Full}); len(got) != 0 {
			t.Errorf("trusted: %v", got)
		}
	})
}

// TestACertificateLosesItsRightsWhenItExpires: while its connection stays open.
func TestACertificateLosesItsRightsWhenItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, state.NewMemory())
		c := certificate(t, "x", time.Hour)
		if _, err := s.Add(t.Context(), api.CertificatePut{Certificate: trust.Encode(c)}); err != nil {
			t.Fatal(err)
		}
		if k := s.Caller(c).Kind; k != access.Full {
			t.Errorf("kind %v", k)
		}
		time.Sleep(2 * time.Hour)
		if k := s.Caller(c).Kind; k != access.Untrusted {
			t.Errorf("kind %v after it has expired", k)
		}
	})
}

// TestOneTokenTwoMembers: a token is good on every member, and once in all of them.
func TestOneTokenTwoMembers(t *testing.T) {
	db := state.NewMemory()
	a, b := service(t, db), service(t, db)
	text := issue(t, a, api.CertificatePut{Name: "x"})
	peers := make([]*x509.Certificate, 18)
	for i := range peers {
		peers[i] = certificate(t, "x", time.Hour)
	}
	var wg sync.WaitGroup
	won := make([]bool, len(peers))
	for i, p := range peers {
		wg.Go(func() {
			s := []*trust.Service{a, b}[i%2]
			_, err := s.Enrol(context.Background(), trust.Attempt{Peer: p, Password: text, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})})
			won[i] = err == nil
			if err != nil && !errs.Is(err, errs.Denied) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, w := range won {
		if w {
			n++
		}
	}
	if n != 1 || len(b.List(access.Caller{Kind: access.Full})) != 1 {
		t.Errorf("%d got in, %d are trusted", n, len(b.List(access.Caller{Kind: access.Full})))
	}
}

// TestGuessesAreCountedPerAddress: who guesses does not lock out others.
func TestGuessesAreCountedPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := service(t, state.NewMemory())
		try := func(addr string) error {
			_, err := s.Enrol(t.Context(), trust.Attempt{Peer: certificate(t, "x", time.Hour), Password: "guess", Address: netip.MustParseAddr(addr)})
			return err
		}
		limited := func(err error) bool { h, ok := err.(interface{ HTTPStatus() int }); return ok && h.HTTPStatus() == 429 }
		for i := range trust.AttemptBurst {
			if err := try("10.0.0.1"); limited(err) {
				t.Errorf("attempt %d: %v", i, err)
			}
			if err := try("fd00::1"); limited(err) {
				t.Errorf("attempt %d: %v", i, err)
			}
		}
		if !limited(try("10.0.0.1")) || !limited(try("::ffff:10.0.0.1")) || !limited(try("fd00::2")) {
			t.Error("more attempts than allowed were let through")
		}
		if limited(try("10.0.0.2")) || limited(try("fd00:0:0:1::1")) {
			t.Error("another address is locked out")
		}
		time.Sleep(time.Second)
		if limited(try("10.0.0.1")) {
			t.Error("still locked out after a second")
		}
	})
}

// TestForgetProject: a project that is made again under an old name is nobody's.
func TestForgetProject(t *testing.T) {
	s := service(t, state.NewMemory())
	c := certificate(t, "x", time.Hour)
	if _, err := s.Add(t.Context(), api.CertificatePut{Restricted: true, Projects: []string{"p1", "p2"}, Certificate: trust.Encode(c)}); err != nil {
		t.Fatal(err)
	}
	text := issue(t, s, api.CertificatePut{Name: "y", Restricted: true, Projects: []string{"p1"}})
	p1, _ := api.ParseProjectName("p1")
	if err := s.ForgetProject(t.Context(), p1); err != nil {
		t.Fatal(err)
	}
	if who := s.Caller(c); who.Sees(p1) || who.Kind != access.Restricted || len(who.Projects) != 1 {
		t.Errorf("got %+v", who)
	}
	d := certificate(t, "y", time.Hour)
	if _, err := s.Enrol(t.Context(), trust.Attempt{Peer: d, Password: text}); err != nil {
		t.Fatal(err)
	}
	if who := s.Caller(d); who.Kind != access.Restricted || len(who.Projects) != 0 {
		t.Errorf("got %+v", who)
	}
}

func TestServerKeypair(t *testing.T) {
	dir := t.TempDir()
	root, err := fsroot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	a, err := trust.ServerKeypair(root, "host", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := trust.ServerKeypair(root, "other", time.Now())
	if err != nil || trust.Fingerprint(a.Leaf) != trust.Fingerprint(b.Leaf) {
		t.Errorf("the certificate changed: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, trust.KeyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", st.Mode(), err)
	}
	// The daemon died between the two files.
	if err := os.Remove(filepath.Join(dir, trust.CertFile)); err != nil {
		t.Fatal(err)
	}
	if c, err := trust.ServerKeypair(root, "host", time.Now()); err != nil || !a.PrivateKey.(*ecdsa.PrivateKey).Equal(c.PrivateKey) {
		t.Errorf("the key changed: %v", err)
	}
	// A key is never made for a certificate that is there.
	if err := os.Remove(filepath.Join(dir, trust.KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := trust.ServerKeypair(root, "host", time.Now()); err == nil || !strings.Contains(err.Error(), trust.KeyFile) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseCertificate(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := trust.ParseCertificate(s)
		if err != nil {
			return
		}
		if again, err := trust.ParseCertificate(trust.Encode(c)); err != nil || trust.Fingerprint(again) != trust.Fingerprint(c) {
			t.Errorf("not the same again: %v", err)
		}
	})
}
