package rest_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
)

func TestCertificatesOverHTTP(t *testing.T) {
	w := startTLS(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"p1"}`), 201, "")
	c := keypair(t, "laptop")
	post := api.CertificatePut{Certificate: der(c)} // the name is the certificate's
	a := w.do("POST", "/1.0/certificates", post)
	w.want(a, 201, "")
	if a.header.Get("Location") != "/1.0/certificates/"+fp(c) {
		t.Errorf("location %q", a.header.Get("Location"))
	}
	w.want(w.do("POST", "/1.0/certificates", post), 409, "Certificate already in trust store")
	var got api.Certificate
	a = w.do("GET", "/1.0/certificates/"+fp(c)[:12], nil)
	a.into(t, &got)
	if got.Name != "laptop" || got.Type != "client" || got.Restricted || got.Projects == nil || got.Fingerprint != fp(c) || !strings.HasPrefix(got.Certificate, "-----BEGIN CERTIFICATE") {
		t.Errorf("got %+v", got)
	}
	me := w.as(&c)
	w.want(me.do("GET", "/1.0/projects", nil), 200, "")
	got.Restricted, got.Projects = true, []string{"p1"}
	w.want(w.do("PUT", "/1.0/certificates/"+fp(c), got.CertificatePut, "If-Match", "x"), 412, "")
	w.want(w.do("PUT", "/1.0/certificates/"+fp(c), got.CertificatePut, "If-Match", a.header.Get("ETag")), 200, "")
	w.want(me.do("POST", "/1.0/projects", `{"name":"p2"}`), 403, "not authorized") // at once, on the same connection
	w.want(w.do("PATCH", "/1.0/certificates/"+fp(c), `{"name":"renamed"}`), 200, "")
	var list []api.Certificate
	w.do("GET", "/1.0/certificates?recursion=1", nil).into(t, &list)
	if len(list) != 1 || list[0].Name != "renamed" || !list[0].Restricted || !slices.Equal(list[0].Projects, []string{"p1"}) {
		t.Errorf("list %+v", list)
	}
	w.want(w.do("DELETE", "/1.0/certificates/"+fp(c), nil), 200, "")
	w.want(w.do("GET", "/1.0/certificates/"+fp(c), nil), 404, "Certificate not found")
	w.want(me.do("GET", "/1.0/projects", nil), 403, "not authorized")
}

func TestBadCertificatesAreRefused(t *testing.T) {
	w := startTLS(t)
	ok := keypair(t, "ok")
	for name, c := range map[string]struct {
		body any
		text string
	}{
		"no certificate":     {api.CertificatePut{Name: "x"}, "Invalid certificate: it is empty"},
		"no base64":          {api.CertificatePut{Certificate: "!!"}, "neither PEM nor base64"},
		"no certificate DER": {api.CertificatePut{Certificate: "AAAA"}, "Invalid certificate"},
		"a key":              {api.CertificatePut{Certificate: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "CERTIFICATE"},
		"unknown type":       {api.CertificatePut{Type: "server", Certificate: der(ok)}, "allowed are client and metrics"},
		"unknown project":    {api.CertificatePut{Restricted: true, Projects: []string{"a_b"}, Certificate: der(ok)}, "project"},
		"projects only":      {api.CertificatePut{Projects: []string{"default"}, Certificate: der(ok)}, "restricted"},
		"control character":  {api.CertificatePut{Name: "a\nb", Certificate: der(ok)}, "Invalid certificate name"},
		"no name":            {api.CertificatePut{Certificate: der(keypair(t, ""))}, "name is required"},
		"expired":            {api.CertificatePut{Certificate: der(keypair(t, "x", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))}, "expired"},
		"not yet valid":      {api.CertificatePut{Certificate: der(keypair(t, "x", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }))}, "not valid before"},
		"wrong usage": {api.CertificatePut{Certificate: der(keypair(t, "x", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}))}, "extended key usage"},
		"token without name":     {api.CertificatesPost{Token: true}, "name"},
		"token with certificate": {api.CertificatesPost{Token: true, CertificatePut: api.CertificatePut{Name: "x", Certificate: der(ok)}}, "Can't use certificate if token is requested"},
	} {
		t.Run(name, func(t *testing.T) {
			if a := w.do("POST", "/1.0/certificates", c.body); a.code != 400 || !strings.Contains(a.Error, c.text) {
				t.Errorf("%d %s", a.code, a.Error)
			}
		})
	}
	var list []string
	if w.do("GET", "/1.0/certificates", nil).into(t, &list); len(list) != 0 {
		t.Errorf("something was added: %v", list)
	}
}

// TestTokens: a token makes its bearer trusted as it says, once.
func TestTokens(t *testing.T) {
	w := startTLS(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"p1"}`), 201, "")
	text, url := w.token(api.CertificatePut{Name: "robot", Restricted: true, Projects: []string{"p1"}})
	var ops map[string][]api.Operation
	w.do("GET", "/1.0/operations?recursion=1", nil).into(t, &ops)
	if len(ops["running"]) != 1 || ops["running"][0].Class != "token" || !ops["running"][0].MayCancel || "/1.0/operations/"+ops["running"][0].ID != url {
		t.Errorf("operations %+v", ops)
	}
	// Who is limited to the project in which tokens are listed sees none: it could become what they stand for.
	low := w.add(api.CertificatePut{Name: "low", Restricted: true, Projects: []string{"default"}})
	if a := w.as(&low).do("GET", "/1.0/operations?recursion=1", nil); a.code != 200 || strings.Contains(string(a.raw), "secret") {
		t.Errorf("a restricted caller sees tokens: %s", a.raw)
	}
	w.want(w.as(&low).do("GET", url, nil), 404, "Operation not found")
	w.want(w.as(&low).do("DELETE", url, nil), 404, "Operation not found")

	c := keypair(t, "thief")
	me := w.as(&c)
	// Nothing but the token decides what its bearer gets.
	body := api.CertificatesPost{Password: text, CertificatePut: api.CertificatePut{Name: "other", Type: "client", Projects: []string{"default"}}}
	w.want(me.do("POST", "/1.0/certificates", body), 201, "")
	var got api.Certificate
	w.do("GET", "/1.0/certificates/"+fp(c), nil).into(t, &got)
	if got.Name != "robot" || !got.Restricted || !slices.Equal(got.Projects, []string{"p1"}) {
		t.Errorf("became %+v", got)
	}
	again := keypair(t, "second")
	w.want(w.as(&again).do("POST", "/1.0/certificates", body), 403, "not authorized")
	w.want(w.do("GET", url, nil), 404, "Operation not found")

	text, url = w.token(api.CertificatePut{Name: "revoked"})
	w.want(w.do("DELETE", url, nil), 200, "")
	w.want(w.as(&again).do("POST", "/1.0/certificates", api.CertificatesPost{TrustToken: text}), 403, "not authorized")
	// Only who holds a certificate's key can have it trusted, and a client needs one.
	text, _ = w.token(api.CertificatePut{Name: "x"})
	w.want(w.as(&again).do("POST", "/1.0/certificates", api.CertificatesPost{TrustToken: text, CertificatePut: api.CertificatePut{Certificate: der(keypair(t, "foreign"))}}), 403, "not authorized")
	w.want(w.as(nil).do("POST", "/1.0/certificates", api.CertificatesPost{TrustToken: text}), 400, "No client certificate provided")
	w.want(w.as(&again).do("POST", "/1.0/certificates", api.CertificatesPost{TrustToken: text}), 201, "")
}

// TestNoTokenWithoutAnAddress: nobody could use it.
func TestNoTokenWithoutAnAddress(t *testing.T) {
	w := startTLS(t)
	if err := w.https.Listen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	a := w.do("POST", "/1.0/certificates", api.CertificatesPost{Token: true, CertificatePut: api.CertificatePut{Name: "x"}})
	if a.code != 400 || !strings.Contains(a.Error, "Can't issue token when server isn't listening on network") {
		t.Errorf("%d %s", a.code, a.Error)
	}
}

// TestATokenIsUsedOnce: of many clients that come at the same moment one gets in.
func TestATokenIsUsedOnce(t *testing.T) {
	w := startTLS(t)
	w.https.Limit(1000, 1000, 1000)
	text, _ := w.token(api.CertificatePut{Name: "x"})
	codes := make([]int, 9) // fewer than AttemptBurst: all of them are let through to the token
	clients := make([]*world, len(codes))
	for i := range clients {
		c := keypair(t, fmt.Sprint(i))
		clients[i] = w.as(&c)
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { codes[i] = c.do("POST", "/1.0/certificates", api.CertificatesPost{Password: text}).code })
	}
	wg.Wait()
	slices.Sort(codes)
	if codes[0] != 201 || codes[1] != 403 || codes[len(codes)-1] != 403 {
		t.Errorf("got %v, want one 201 and the rest 403", codes)
	}
	var list []string
	if w.do("GET", "/1.0/certificates", nil).into(t, &list); len(list) != 1 {
		t.Errorf("trusted: %v", list)
	}
}

func TestTrustPassword(t *testing.T) {
	w := startTLS(t)
	c := keypair(t, "laptop")
	me := w.as(&c)
	w.want(me.do("POST", "/1.0/certificates", `{"password":"guess"}`), 403, "not authorized")
	w.want(me.do("POST", "/1.0/certificates", `{"password":""}`), 403, "not authorized")
	w.want(me.do("POST", "/1.0/certificates", `{"type":"client","password":"sesame"}`), 201, "")
	w.want(me.do("GET", "/1.0/projects", nil), 200, "")
	// Who guesses is slowed down.
	d := keypair(t, "guesser")
	guesser := w.as(&d)
	last := 0
	for range 20 {
		if last = guesser.do("POST", "/1.0/certificates", `{"password":"guess"}`).code; last == http.StatusTooManyRequests {
			break
		}
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("twenty guesses, the last answered with %d", last)
	}
	// Not who is known already, and not administrators.
	w.want(me.do("GET", "/1.0/projects", nil), 200, "")
}

// TestNobodyPromotesThemselves is S8 of the attacks: what a restricted certificate may do to its own entry is to renew it.
func TestNobodyPromotesThemselves(t *testing.T) {
	w := startTLS(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"p1"}`), 201, "")
	c := w.add(api.CertificatePut{Name: "low", Restricted: true, Projects: []string{"p1"}})
	other := w.add(api.CertificatePut{Name: "other", Restricted: true, Projects: []string{"p1"}})
	me := w.as(&c)
	for _, body := range []string{`{"restricted":false,"projects":[]}`, `{"projects":["p1","default"]}`, `{"type":"metrics"}`, `{"name":"admin"}`} {
		w.want(me.do("PATCH", "/1.0/certificates/"+fp(c), body), 403, "not authorized")
	}
	w.want(me.do("PUT", "/1.0/certificates/"+fp(c), `{"name":"low","type":"client"}`), 403, "not authorized")
	w.want(me.do("PATCH", "/1.0/certificates/"+fp(other), `{"name":"x"}`), 403, "not authorized")
	w.want(me.do("DELETE", "/1.0/certificates/"+fp(other), nil), 403, "not authorized")
	w.want(me.do("GET", "/1.0/certificates/"+fp(other), nil), 403, "not authorized")
	w.want(me.do("POST", "/1.0/certificates", api.CertificatePut{Name: "new", Certificate: der(keypair(t, "new"))}), 403, "not authorized")
	w.want(me.do("POST", "/1.0/certificates", api.CertificatesPost{Token: true, CertificatePut: api.CertificatePut{Name: "new"}}), 403, "not authorized")
	w.want(me.do("PUT", "/1.0", `{"config":{"core.trust_password":"x"}}`), 403, "not authorized")
	var list []string
	me.do("GET", "/1.0/certificates", nil).into(t, &list)
	if len(list) != 1 || list[0] != "/1.0/certificates/"+fp(c) {
		t.Errorf("sees %v", list)
	}
	// Renewal: the new certificate has the rights of the old one, which has none any more.
	next := keypair(t, "low")
	renew, _ := json.Marshal(map[string]string{"certificate": der(next)})
	w.want(me.do("PATCH", "/1.0/certificates/"+fp(c), string(renew)), 200, "")
	w.want(me.do("GET", "/1.0/profiles?project=p1", nil), 403, "not authorized")
	w.want(w.as(&next).do("GET", "/1.0/operations?project=p1", nil), 200, "")
	w.want(w.as(&next).do("GET", "/1.0/operations", nil), 403, "not authorized")
	w.want(w.as(&next).do("DELETE", "/1.0/certificates/"+fp(next), nil), 200, "")
}

// TestRevokedStreamsEnd: a certificate that is removed does not listen to events any more.
func TestRevokedStreamsEnd(t *testing.T) {
	w := startTLS(t)
	c := w.add(api.CertificatePut{Name: "c"})
	me := w.as(&c)
	ws, _, err := websocket.Dial(t.Context(), me.base+"/1.0/events", &websocket.DialOptions{HTTPClient: me.client})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	w.want(me.do("DELETE", "/1.0/certificates/"+fp(c), nil), 200, "") // its own: the reply arrives
	for {
		if _, _, err := ws.Read(t.Context()); err != nil {
			break
		}
	}
}

// TestEventsOfARestrictedCaller: those of its projects, and no log.
func TestEventsOfARestrictedCaller(t *testing.T) {
	w := startTLS(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"p1"}`), 201, "")
	c := w.add(api.CertificatePut{Name: "c", Restricted: true, Projects: []string{"p1"}})
	me := w.as(&c)
	ws, _, err := websocket.Dial(t.Context(), me.base+"/1.0/events?all-projects=true", &websocket.DialOptions{HTTPClient: me.client})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	p1, _ := api.ParseProjectName("p1")
	w.hub.Lifecycle(t.Context(), api.DefaultProject, "instance-created", "/1.0/instances/secret", nil)
	w.hub.Lifecycle(t.Context(), api.ProjectName{}, "certificate-created", "/1.0/certificates/secret", nil)
	w.hub.Lifecycle(t.Context(), p1, "instance-created", "/1.0/instances/mine?project=p1", nil)
	_, frame, err := ws.Read(t.Context())
	if err != nil || !strings.Contains(string(frame), "mine") {
		t.Errorf("got %s, %v", frame, err)
	}
}

func TestUntrustedViewOfTheServer(t *testing.T) {
	w := startTLS(t)
	a := w.as(nil).do("GET", "/1.0", nil)
	var got map[string]any
	a.into(t, &got)
	if got["auth"] != "untrusted" || got["api_version"] != "1.0" || got["api_extensions"] == nil || got["config"] != nil || got["environment"] != nil || len(got) != 6 {
		t.Errorf("got %s", a.raw)
	}
	w.want(w.as(nil).do("GET", "/", nil), 200, "")
	w.want(w.as(nil).do("GET", "/1.0/nope", nil), 404, "not found")
}

// TestSecretsOfOperations is S9 of the attacks: whoever looks at an operation does not see the secrets of its sockets, whatever they may see
// else; a secret is good once.
func TestSecretsOfOperations(t *testing.T) {
	base := withInstances(t)
	w := overTLS(t, base, *base.svc)
	w.started()
	creator := w.add(api.CertificatePut{Name: "creator"})
	viewer := w.add(api.CertificatePut{Name: "viewer", Restricted: true, Projects: []string{"default"}})
	me, other := w.as(&creator), w.as(&viewer)
	a := me.do("POST", "/1.0/instances/c1/exec", `{"command":["cat"],"wait-for-websocket":true,"interactive":false}`)
	w.want(a, 202, "")
	var o api.Operation
	a.into(t, &o)
	secret := o.Metadata["fds"].(map[string]any)["0"].(string)
	for name, v := range map[string]*world{"creator": me, "viewer": other, "socket": w.world} {
		for _, path := range []string{a.Operation, "/1.0/operations?recursion=1"} {
			if got := v.do("GET", path, nil); got.code != 200 || strings.Contains(string(got.raw), secret) {
				t.Errorf("%s of %s: %d %s", path, name, got.code, got.raw)
			}
		}
	}
	dial := func(v *world, secret string) (*websocket.Conn, error) {
		ws, _, err := websocket.Dial(t.Context(), v.base+a.Operation+"/websocket?secret="+secret, &websocket.DialOptions{HTTPClient: v.client})
		return ws, err
	}
	if _, err := dial(other, "guess"); err == nil {
		t.Error("a guess is accepted")
	}
	ws, err := dial(me, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	if _, err := dial(other, secret); err == nil {
		t.Error("a secret is accepted twice")
	}
}
