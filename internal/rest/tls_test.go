package rest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/trust"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/rest"
	"github.com/shoal-project/shoal/internal/state"
)

// keypair makes a self-signed certificate; change may spoil it.
func keypair(t *testing.T, cn string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, f := range change {
		f(tpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func der(c tls.Certificate) string { return base64.StdEncoding.EncodeToString(c.Certificate[0]) }

// sesame is the hash of the trust password of these tests, which is slow to compute on purpose.
var sesame = sync.OnceValue(func() string {
	hash, err := trust.HashPassword("sesame")
	if err != nil {
		panic(err)
	}
	return hash
})

// tlsWorld is a server that is reached over the network too.
type tlsWorld struct {
	*world
	https *rest.HTTPS
	trust *trust.Service
	cert  tls.Certificate // of the server
}

// standing is a clock that stands still: attempts that were used up do not come back, however slow the test is.
type standing struct {
	clock.Clock
	now time.Time
}

func (s standing) Now() time.Time { return s.now }

// trustOver makes a trust store in which only the projects default, p1 and secret are known.
func (w *tlsWorld) trustOver(db *state.DB, password string) *trust.Service {
	w.t.Helper()
	s, err := trust.New(trust.Deps{State: db, Logger: slog.New(slog.DiscardHandler), Clock: standing{clock.Real{}, time.Now()}, Fingerprint: trust.Fingerprint(w.cert.Leaf),
		Addresses: func() []string { return w.https.Addresses() }, PasswordHash: func() string { return password }})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// overTLS opens the network for w, whose services are svc with the trust store added.
func overTLS(t *testing.T, w *world, svc rest.Services) *tlsWorld {
	t.Helper()
	tw := &tlsWorld{world: w, cert: keypair(t, "server")}
	tw.https = rest.NewHTTPS(w.srv, &tw.cert)
	tw.trust = tw.trustOver(state.NewMemory(), sesame())
	stop := tw.trust.OnRevoke(tw.https.Revoke)
	svc.Trust = tw.trust
	w.srv.SetReady(svc)
	t.Cleanup(func() {
		stop()
		w.srv.CloseStreams()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tw.https.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := tw.https.Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return tw
}

// startTLS is a server that is ready, on the unix socket and the network.
func startTLS(t *testing.T) *tlsWorld {
	w := notReady(t)
	return overTLS(t, w, w.services())
}

// as returns the world as seen by the holder of a certificate; nil is somebody without one.
func (w *tlsWorld) as(cert *tls.Certificate) *world {
	w.t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{TLSClientConfig: conf}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &world{t: w.t, dir: w.dir, srv: w.srv, ops: w.ops, hub: w.hub, client: &http.Client{Transport: tr}, base: "https://" + w.https.Address()}
}

// add makes a certificate that is trusted.
func (w *tlsWorld) add(put api.CertificatePut) tls.Certificate {
	w.t.Helper()
	c := keypair(w.t, put.Name)
	put.Certificate = der(c)
	w.want(w.do("POST", "/1.0/certificates", put), 201, "")
	return c
}

func fp(c tls.Certificate) string { return trust.Fingerprint(c.Leaf) }

// token makes a token and returns its text and the operation's URL.
func (w *tlsWorld) token(put api.CertificatePut) (text, url string) {
	w.t.Helper()
	a := w.do("POST", "/1.0/certificates", api.CertificatesPost{CertificatePut: put, Token: true})
	w.want(a, 202, "")
	var o api.Operation
	a.into(w.t, &o)
	t := api.CertificateToken{ClientName: put.Name, Fingerprint: o.Metadata["fingerprint"].(string), Secret: o.Metadata["secret"].(string)}
	for _, v := range o.Metadata["addresses"].([]any) {
		t.Addresses = append(t.Addresses, v.(string))
	}
	return t.String(), a.Operation
}
