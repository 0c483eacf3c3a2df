package etcd

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
)

// maxCert bounds a file of certificates.
const maxCert = 1 << 20

// secure does the handshake and judges what the server shows.
func (d *debugger) secure(conn net.Conn, host, port string) []api.DatabaseCheck {
	asked, acceptable := false, [][]byte(nil)
	var mine *tls.Certificate
	if d.cfg.Cert != "" {
		if pair, err := tls.LoadX509KeyPair(d.cfg.Cert, d.cfg.Key); err == nil {
			mine = &pair
		}
	}
	var shown []*x509.Certificate
	c := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host,
		InsecureSkipVerify: true, // judged below, so that what is wrong can be said; nothing secret is sent on this connection
		VerifyConnection:   func(s tls.ConnectionState) error { shown = s.PeerCertificates; return nil },
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked, acceptable = true, r.AcceptableCAs
			if mine == nil {
				return &tls.Certificate{}, nil
			}
			return mine, nil
		},
	})
	err := c.Handshake()
	var out []api.DatabaseCheck
	if len(shown) > 0 {
		out = append(out, d.serverCertificate(shown, host))
	}
	if err != nil {
		return append(out, check("tls", api.CheckError, err.Error(), d.tlsHint(err)))
	}
	s := c.ConnectionState()
	out = append([]api.DatabaseCheck{check("tls", api.CheckOK, tls.VersionName(s.Version)+", "+tls.CipherSuiteName(s.CipherSuite), "")}, out...)
	var names []string
	for _, der := range acceptable {
		var rdn pkix.RDNSequence
		var n pkix.Name
		if rest, err := asn1.Unmarshal(der, &rdn); err == nil && len(rest) == 0 {
			n.FillFromRDNSequence(&rdn)
			names = append(names, n.String())
		}
	}
	if asked {
		text := "the server asks for one"
		if len(names) > 0 {
			text += ", signed by " + strings.Join(names, " or ")
		}
		out = append(out, info("client certificate", "%s", text))
	}
	return append(out, d.version(c, host, port, d.tlsHint))
}

// serverCertificate verifies as a client does, and shows it.
func (d *debugger) serverCertificate(chain []*x509.Certificate, host string) api.DatabaseCheck {
	out := check("server certificate", api.CheckOK, "", "", d.describe(chain[0], true)...)
	if err := d.verify(chain, host, x509.ExtKeyUsageServerAuth); err != nil {
		out.Status, out.Text = api.CheckError, err.Error()
		out.Hint = d.certHint(err, chain[0], "the server's certificate")
	}
	return out
}

func (d *debugger) verify(chain []*x509.Certificate, host string, use x509.ExtKeyUsage) error {
	var roots *x509.CertPool // nil: the system's
	if d.cfg.CA != "" {
		var err error
		if roots, err = d.cfg.roots(); err != nil {
			return err
		}
	}
	opts := x509.VerifyOptions{Roots: roots, DNSName: host, Intermediates: x509.NewCertPool(), CurrentTime: d.o.Now(), KeyUsages: []x509.ExtKeyUsage{use}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// certHint says what to do about a certificate that was not accepted.
func (d *debugger) certHint(err error, c *x509.Certificate, whose string) string {
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && d.o.Now().Before(c.NotBefore):
		return fmt.Sprintf("%s is not valid before %s: is this machine's clock right (%s)?", whose, stamp(c.NotBefore), stamp(d.o.Now()))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("renew it: %s, or one above it, is over (it says %s; this machine's clock says %s)", whose, stamp(c.NotAfter), stamp(d.o.Now()))
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return whose + " was made for another use: check its extended key usage"
	case errors.As(err, &hostname):
		return fmt.Sprintf("use one of the certificate's names in endpoints (%s), or make a certificate with this one", strings.Join(names(c), ", "))
	case errors.As(err, &unknown) && d.cfg.CA == "":
		return "set trusted-ca-file to the authority that signed it; now only the system's authorities are trusted"
	case errors.As(err, &unknown):
		return fmt.Sprintf("it is signed by %q, which is not in %s: set trusted-ca-file to that authority's certificate", c.Issuer, d.cfg.CA)
	}
	return "check trusted-ca-file and " + whose
}

// tlsHint reads what a server said, or did not say, about the connection.
func (d *debugger) tlsHint(err error) string {
	var plain tls.RecordHeaderError
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "it hung up at once, as a server without TLS does: then write http:// in endpoints"
	case errors.As(err, &plain):
		return "what answers there does not speak TLS: write http:// in endpoints, or another port"
	case strings.Contains(text, "certificate required"), d.cfg.Cert == "" && strings.Contains(text, "bad certificate"):
		return "the server wants to know who is there: set cert-file and key-file"
	case strings.Contains(text, "expired certificate"):
		return "the client certificate in cert-file has expired: renew it"
	case strings.Contains(text, "unknown certificate authority"), strings.Contains(text, "bad certificate"), strings.Contains(text, "unknown certificate"):
		return "the server does not accept the certificate in cert-file: it must be signed by the server's --trusted-ca-file and be for client authentication"
	}
	return "is it etcd that listens there, and not another service?"
}

// version asks the server what it is: the first answer on the connection.
func (d *debugger) version(conn net.Conn, host, port string, tlsHint func(error) string) api.DatabaseCheck {
	fail := func(err error) api.DatabaseCheck {
		hint := "is it etcd that listens there, and is it its client port?"
		switch {
		case tlsHint != nil:
			hint = tlsHint(err)
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			hint = "it hung up at once, as a server with TLS does: then write https:// in endpoints"
		}
		return check("server", api.CheckError, "no answer: "+err.Error(), hint)
	}
	if _, err := fmt.Fprintf(conn, "GET /version HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", net.JoinHostPort(host, port)); err != nil {
		return fail(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), nil)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fail(err)
	}
	if r.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "HTTPS") {
		return check("server", api.CheckError, "it speaks TLS only", "write https:// in endpoints")
	}
	var v struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
	}
	if err := json.Unmarshal(body, &v); err != nil || v.Server == "" {
		return check("server", api.CheckWarning, "it does not tell its version: "+r.Status, "etcd behind a gRPC proxy does not; anything else is not etcd")
	}
	return check("server", api.CheckOK, "etcd "+v.Server+", cluster version "+v.Cluster, "")
}

// certificates shows what the configuration brings.
func (d *debugger) certificates() api.DatabaseCheck {
	out := check("certificates", api.CheckInfo, "", "")
	if !strings.HasPrefix(d.cfg.Endpoints[0], "https:") {
		out.Text = "none: the endpoints are http"
		return out
	}
	if d.cfg.CA == "" {
		out.Checks = append(out.Checks, check("authorities", api.CheckInfo, "the system's: trusted-ca-file is not set", ""))
	} else {
		out.Checks = append(out.Checks, d.file("authorities", d.cfg.CA, "trusted-ca-file"))
	}
	if d.cfg.Cert == "" {
		out.Checks = append(out.Checks, check("client", api.CheckInfo, "none: cert-file and key-file are not set", ""))
		return out
	}
	client := d.file("client", d.cfg.Cert, "cert-file")
	if _, err := tls.LoadX509KeyPair(d.cfg.Cert, d.cfg.Key); err != nil && client.Status == api.CheckOK {
		client.Status, client.Text, client.Hint = api.CheckError, err.Error(), "key-file must hold the private key of the certificate in cert-file"
	}
	if chain, err := readCerts(d.cfg.Cert); err == nil && client.Status == api.CheckOK && d.cfg.CA != "" {
		if err := d.verify(chain, "", x509.ExtKeyUsageClientAuth); err != nil {
			// Servers may know their clients by another authority than clients know their servers by: the server decides.
			client.Status, client.Text = api.CheckWarning, client.Text+": "+err.Error()
			client.Hint = "right only if the server's --trusted-ca-file is another authority than trusted-ca-file here"
		}
	}
	out.Checks = append(out.Checks, client)
	return out
}

// file shows the certificates of a file and complains of those that are out of date.
func (d *debugger) file(name, file, key string) api.DatabaseCheck {
	certs, err := readCerts(file)
	if err != nil {
		return check(name, api.CheckError, err.Error(), key+" must name a file with certificates in PEM form that this user may read")
	}
	out := check(name, api.CheckOK, file, "")
	for _, c := range certs {
		sub := check(c.Subject.String(), api.CheckOK, "", "", d.describe(c, false)...)
		if sub.Name == "" {
			sub.Name = "serial " + serial(c)
		}
		switch now := d.o.Now(); {
		case now.After(c.NotAfter):
			sub.Status, sub.Text, sub.Hint = api.CheckError, "expired", "renew it; connections pick up the new file by themselves"
		case now.Before(c.NotBefore):
			sub.Status, sub.Text, sub.Hint = api.CheckError, "not valid yet", "is this machine's clock right? It says "+stamp(now)
		case c.NotAfter.Sub(now) < 7*24*time.Hour && c.NotAfter.Sub(c.NotBefore) > 14*24*time.Hour:
			sub.Status, sub.Text, sub.Hint = api.CheckWarning, "expires within a week", "renew it; connections pick up the new file by themselves"
		}
		out.Checks = append(out.Checks, sub)
	}
	return out
}

func (d *debugger) describe(c *x509.Certificate, withSubject bool) []api.DatabaseCheck {
	var out []api.DatabaseCheck
	if withSubject {
		out = append(out, info("subject", "%s", c.Subject))
	}
	out = append(out, info("issuer", "%s", c.Issuer), info("serial", "%s", serial(c)))
	if n := names(c); len(n) > 0 {
		out = append(out, info("names", "%s", strings.Join(n, ", ")))
	}
	return append(out, info("valid", "%s to %s", stamp(c.NotBefore), stamp(c.NotAfter)))
}

func names(c *x509.Certificate) []string {
	out := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

func serial(c *x509.Certificate) string {
	var parts []string
	for _, b := range c.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// readCerts reads the certificates of a PEM file, at least one.
func readCerts(file string) ([]*x509.Certificate, error) {
	data, err := readFile(file, maxCert)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return out, nil
}

// readFile reads a regular file of at most limit bytes: somebody may have named a device.
func readFile(file string, limit int64) ([]byte, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s must be a regular file of at most %d bytes", file, limit)
	}
	return os.ReadFile(file)
}
