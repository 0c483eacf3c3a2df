package rest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/rest"
)

func TestParseHTTPSAddress(t *testing.T) {
	for in, want := range map[string]string{
		"": "", ":8443": ":8443", "10.0.0.1": "10.0.0.1:8443", "10.0.0.1:443": "10.0.0.1:443", "[::]": "[::]:8443", "[::]:9": "[::]:9",
		"::1": "[::1]:8443", "host.example": "host.example:8443", "[fe80::1%eth0]:1": "[fe80::1%eth0]:1",
		"10.0.0.1:0": "!", "10.0.0.1:x": "!", "10.0.0.1:65536": "!", "a b:1": "!", "https://x": "!", "x:1:2": "!", "x/y": "!", "a\nb": "!",
	} {
		got, err := rest.ParseHTTPSAddress(in)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzParseHTTPSAddress(f *testing.F) {
	f.Add("[::]:8443")
	f.Add("10.0.0.1")
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := rest.ParseHTTPSAddress(s)
		if err != nil || addr == "" {
			return
		}
		if again, err := rest.ParseHTTPSAddress(addr); err != nil || again != addr {
			t.Errorf("%q → %q → %q, %v", s, addr, again, err)
		}
	})
}

// TestTheAddressChangesWhileServing: a bad address leaves the old listener alone, a good one replaces it, the socket does not notice.
func TestTheAddressChangesWhileServing(t *testing.T) {
	w := startTLS(t)
	old := w.https.Address()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	for _, addr := range []string{busy.Addr().String(), "192.0.2.1:8443"} {
		err := w.https.Listen(t.Context(), addr)
		if err == nil || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
		if w.https.Address() != old {
			t.Errorf("listens on %s", w.https.Address())
		}
		w.want(w.as(nil).do("GET", "/1.0", nil), 200, "")
	}
	_, port, _ := net.SplitHostPort(old)
	// The same port on more addresses: the old listener is in the way.
	if err := w.https.Listen(t.Context(), "0.0.0.0:"+port); err != nil {
		t.Fatal(err)
	}
	for _, a := range w.https.Addresses() {
		if strings.HasPrefix(a, "0.0.0.0") {
			t.Errorf("addresses %v", w.https.Addresses())
		}
	}
	if len(w.https.Addresses()) == 0 {
		t.Error("no address")
	}
	if err := w.https.Listen(t.Context(), ""); err != nil || w.https.Address() != "" || len(w.https.Addresses()) != 0 {
		t.Errorf("still on %s, %v", w.https.Address(), err)
	}
	if _, err := net.Dial("tcp", old); err == nil {
		t.Error("somebody still listens")
	}
	w.want(w.do("GET", "/1.0/projects", nil), 200, "")
}

func dialTLS(t *testing.T, w *tlsWorld, conf *tls.Config) (*tls.Conn, error) {
	t.Helper()
	conf.InsecureSkipVerify = true
	d := tls.Dialer{Config: conf}
	c, err := d.DialContext(t.Context(), "tcp", w.https.Address())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn), nil
}

// TestHostileTLS is S21 of the attacks.
func TestHostileTLS(t *testing.T) {
	w := startTLS(t)
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		if _, err := dialTLS(t, w, &tls.Config{MaxVersion: v, MinVersion: tls.VersionTLS10}); err == nil {
			t.Errorf("%s is accepted", tls.VersionName(v))
		}
	}
	for name, spoil := range map[string]func(*x509.Certificate){
		"wrong usage": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	} {
		bad := keypair(t, "bad", spoil)
		w.want(w.as(&bad).do("GET", "/1.0/projects", nil), 403, "not authorized")
		if a := w.as(&bad).do("POST", "/1.0/certificates", `{"password":"sesame"}`); a.code != 400 {
			t.Errorf("%s becomes trusted: %d %s", name, a.code, a.raw)
		}
	}
	// A certificate that was good when it was added.
	brief := w.add(api.CertificatePut{Name: "good"})
	forged := keypair(t, "good") // same name, other key
	w.want(w.as(&brief).do("GET", "/1.0/projects", nil), 200, "")
	w.want(w.as(&forged).do("GET", "/1.0/projects", nil), 403, "not authorized")

	c, err := dialTLS(t, w, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(c, "GET /1.0 HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 128<<10))
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 128 KiB: %d", resp.StatusCode)
	}
	big := w.as(nil).do("POST", "/1.0/certificates", `{"password":"`+strings.Repeat("a", 1<<20)+`"}`)
	if big.code != http.StatusRequestEntityTooLarge && big.code != 400 {
		t.Errorf("a body of 1 MiB from a stranger: %d %s", big.code, big.raw)
	}
}

// TestStrangersAreBounded: who opens connections and says nothing keeps nobody else out for long, and not who is trusted already.
func TestStrangersAreBounded(t *testing.T) {
	w := startTLS(t)
	w.https.Limit(100, 20, 10)
	c := w.add(api.CertificatePut{Name: "c"})
	me := w.as(&c)
	w.want(me.do("GET", "/1.0/projects", nil), 200, "") // its connection is open and trusted
	var conns []net.Conn
	for range 50 {
		n, err := net.Dial("tcp", w.https.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = n.Close() }()
		conns = append(conns, n)
	}
	// Those beyond the limit are closed at once, the rest when the time for the handshake is over.
	var wg sync.WaitGroup
	for _, n := range conns {
		wg.Go(func() {
			_ = n.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.Copy(io.Discard, n); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("a connection without a handshake stays: %v", err)
			}
		})
	}
	if got := w.https.Conns(); got > 11 {
		t.Errorf("%d connections are held", got)
	}
	w.want(me.do("GET", "/1.0/projects", nil), 200, "")
	wg.Wait()
	w.want(w.as(nil).do("GET", "/1.0", nil), 200, "")
}

// TestClientsThatHoldOn is S23 of the attacks over the network: listeners that never read, waits that are left, lists in parallel. At the end the
// connections are gone; goleak counts the goroutines when the package's tests are over.
func TestClientsThatHoldOn(t *testing.T) {
	w := startTLS(t)
	w.https.Limit(2000, 1000, 1000)
	c := w.add(api.CertificatePut{Name: "c"})
	me := w.as(&c)
	var socks []*websocket.Conn
	for range 20 {
		ws, _, err := websocket.Dial(t.Context(), me.base+"/1.0/events", &websocket.DialOptions{HTTPClient: me.client})
		if err != nil {
			t.Fatal(err)
		}
		socks = append(socks, ws)
	}
	p1 := api.DefaultProject
	for range 3000 { // more than a listener may be behind
		w.hub.Lifecycle(t.Context(), p1, "instance-created", "/1.0/instances/"+strings.Repeat("x", 500), nil)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", me.base+"/1.0/events", nil)
			if resp, err := me.client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
		wg.Go(func() { w.want(me.do("GET", "/1.0/projects?recursion=1", nil), 200, "") })
	}
	wg.Wait()
	for _, ws := range socks {
		_ = ws.CloseNow()
	}
	me.client.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); w.https.Conns() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still held", w.https.Conns())
		}
	}
}
