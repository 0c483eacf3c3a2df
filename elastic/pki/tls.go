package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoal-project/shoal/internal/errs"
)

// Files names the PEM files of one machine.
type Files struct {
	CA   string // one authority, or two while it is being changed
	Cert string
	Key  string
}

// In returns the usual names in a directory.
func In(dir string) Files {
	return Files{CA: filepath.Join(dir, "cluster-ca.crt"), Cert: filepath.Join(dir, "cluster.crt"), Key: filepath.Join(dir, "cluster.key")}
}

// Write writes the files, each whole or not at all, the key first and readable by its owner only. A crash in between leaves a key that does not belong to the
// certificate, which Check says; write again.
func (f Files) Write(ca, cert, key []byte) error {
	for _, w := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{f.Key, key, 0o600}, {f.Cert, cert, 0o644}, {f.CA, ca, 0o644}} {
		if err := os.MkdirAll(filepath.Dir(w.name), 0o700); err != nil {
			return err
		}
		if err := replace(w.name, w.data, w.mode); err != nil {
			return err
		}
	}
	return nil
}

func replace(name string, data []byte, mode os.FileMode) error {
	t, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // does nothing after the rename
	_, err = t.Write(data)
	if err = errors.Join(err, t.Chmod(mode), t.Sync(), t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}

// Check says whether the files can be used, as a member or a client of their authority.
func (f Files) Check() error {
	pair, err := f.pair()
	if err != nil {
		return err
	}
	roots, err := f.roots()
	if err != nil {
		return err
	}
	if _, err := identify([]*x509.Certificate{pair.Leaf}, roots); err != nil {
		return errs.Invalid("%s: %w", f.Cert, err)
	}
	return nil
}

func (f Files) pair() (*tls.Certificate, error) {
	p, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, errs.Invalid("load this machine's certificate for the cluster: %w", err)
	}
	return &p, nil
}

func (f Files) roots() (*x509.CertPool, error) {
	data, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, errs.Invalid("load the cluster's certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errs.Invalid("%s holds no certificate in PEM form", f.CA)
	}
	return pool, nil
}

// Holder is whom a verified certificate names.
type Holder struct {
	Role Role
	Name string
}

// Identify verifies the certificates of a connection against the authority in the file now. It returns errs.Denied when there is none or it is
// not of this cluster.
func (f Files) Identify(s *tls.ConnectionState) (Holder, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return Holder{}, errs.Forbidden("a certificate of the cluster is needed")
	}
	roots, err := f.roots()
	if err != nil {
		return Holder{}, err
	}
	return identify(s.PeerCertificates, roots)
}

func identify(chain []*x509.Certificate, roots *x509.CertPool) (Holder, error) {
	leaf := chain[0]
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return Holder{}, errs.Forbidden("the certificate is not one of this cluster: %w", err)
	}
	for _, r := range []Role{Member, Client} {
		if slices.Contains(leaf.DNSNames, r.host()) {
			return Holder{Role: r, Name: leaf.Subject.CommonName}, nil
		}
	}
	return Holder{}, errs.Forbidden("the certificate of %q has no role in the cluster", leaf.Subject.CommonName)
}

// Server returns the settings of a listener. Clients with the protocol restricted (ALPN) must show a certificate of the cluster; others are asked
// for one, and what they may do without is for the handlers to say, with Identify.
func (f Files) Server(restricted string, others ...string) *tls.Config {
	base := func() *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: append([]string{restricted}, others...), ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.pair() }}
	}
	out, strict := base(), base()
	strict.ClientAuth = tls.RequireAnyClientCert
	strict.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := f.Identify(&s)
		return err
	}
	out.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(h.SupportedProtos, restricted) {
			return strict, nil
		}
		return nil, nil
	}
	return out
}

// Dial returns the settings for a connection to a member, at whatever address.
func (f Files) Dial(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: MemberHost, NextProtos: protocols,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.pair() },
		InsecureSkipVerify:   true, // VerifyConnection does it, with the authority of this moment
		VerifyConnection: func(s tls.ConnectionState) error {
			roots, err := f.roots()
			if err != nil {
				return err
			}
			opts := x509.VerifyOptions{Roots: roots, DNSName: MemberHost, Intermediates: x509.NewCertPool()}
			for _, c := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: fmt.Errorf("not a member of this cluster: %w", err)}
			}
			return nil
		}}
}
