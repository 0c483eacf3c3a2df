package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/client"
)

// TestAServerOnTheNetworkIsPinned: nothing is sent to one that has another certificate.
func TestAServerOnTheNetworkIsPinned(t *testing.T) {
	asked := 0
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"type":"sync","status_code":200,"metadata":{"auth":"untrusted"}}`))
	})
	srv := httptest.NewTLSServer(serve)
	defer srv.Close()
	cert, verified, err := client.ServerCertificate(t.Context(), srv.URL)
	if err != nil || verified || client.Fingerprint(cert) != client.Fingerprint(srv.Certificate()) {
		t.Fatalf("got verified %v, %v", verified, err)
	}
	c, err := client.Connect(t.Context(), client.Options{URL: srv.URL, ServerCertificate: cert})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, _, err := c.Server(t.Context()); err != nil || s.Auth != "untrusted" || asked != 1 {
		t.Errorf("got %+v, %v, asked %d times", s, err, asked)
	}
	other := *cert
	other.Raw = append([]byte{}, cert.Raw...)
	other.Raw[len(other.Raw)-1] ^= 1
	var changed *client.CertificateChangedError
	if _, err := client.Connect(t.Context(), client.Options{URL: srv.URL, ServerCertificate: &other}); !errors.As(err, &changed) || !strings.Contains(err.Error(), "cannot trust") {
		t.Errorf("got %v", err)
	}
	// Without a certificate that was accepted only the machine's authorities count.
	if _, err := client.Connect(t.Context(), client.Options{URL: srv.URL}); err == nil || !strings.Contains(err.Error(), "shoal remote add") {
		t.Errorf("got %v", err)
	}
	if asked != 1 {
		t.Errorf("%d requests reached a server that is not the one", asked-1)
	}
	for _, bad := range []string{"http://x", "https://", "x", "unix:///x"} {
		if _, err := client.Connect(t.Context(), client.Options{URL: bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
