package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"time"
)

// DefaultPort is where servers listen when a URL does not say.
const DefaultPort = "8443"

// connectTime bounds the dial and the handshake with a server on the network.
const connectTime = 10 * time.Second

// CertificateChangedError says that a server has another certificate than the one that was accepted for it.
type CertificateChangedError struct{ Want, Got string } // fingerprints

// Error names both fingerprints and the next step.
func (e *CertificateChangedError) Error() string {
	return fmt.Sprintf("its certificate is %s, not %s as before. If the server was made anew, remove the remote and add it again; else somebody stands between", short(e.Got), short(e.Want))
}

func short(fingerprint string) string { return fingerprint[:min(12, len(fingerprint))] }

// Fingerprint is the SHA-256 of a certificate's DER in hexadecimal, by which servers and users know it.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// hostPort returns where a URL leads, with the default port where it names none.
func hostPort(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("invalid URL %q of a server: it has to be https://host:port", raw)
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

func (c *Client) dialTLS(ctx context.Context) (net.Conn, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}} // LXD's servers may have no 1.3
	if c.opts.Certificate != nil {
		// Whatever authorities the server names: it looks at the fingerprint.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.opts.Certificate, nil }
	}
	if want := c.opts.ServerCertificate; want != nil {
		conf.InsecureSkipVerify = true // the chain proves nothing here, the certificate itself is known
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if got := s.PeerCertificates[0]; !got.Equal(want) {
				return &CertificateChangedError{Want: Fingerprint(want), Got: Fingerprint(got)}
			}
			return nil
		}
	}
	return dialTLS(ctx, c.opts.URL, conf)
}

func dialTLS(ctx context.Context, rawURL string, conf *tls.Config) (*tls.Conn, error) {
	host, err := hostPort(rawURL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	d := tls.Dialer{Config: conf}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, &ConnectError{URL: rawURL, Err: err}
	}
	return conn.(*tls.Conn), nil // what a tls.Dialer returns
}

// ServerCertificate asks a server on the network for its certificate and says whether it is one for the URL's host, signed by somebody
// whom this machine trusts. Nothing else is sent.
func ServerCertificate(ctx context.Context, rawURL string) (cert *x509.Certificate, verified bool, err error) {
	conn, err := dialTLS(ctx, rawURL, &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}) // to see it is what is wanted
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = conn.Close() }()
	chain := conn.ConnectionState().PeerCertificates
	u, _ := url.Parse(rawURL) // dialTLS has parsed it
	opts := x509.VerifyOptions{DNSName: u.Hostname(), Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, verr := chain[0].Verify(opts)
	return chain[0], verr == nil, nil
}
