package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Role is what the holder of a certificate may do.
type Role string

// The roles.
const (
	Member Role = "member" // speaks raft, orders of the leader, and the database's protocol
	Client Role = "client" // speaks the database's protocol
)

// host is the name in the certificate that stands for the role.
func (r Role) host() string { return string(r) + ".database.shoal.internal" }

// MemberHost is the name that every member's certificate has and that is asked for when one is dialed.
const MemberHost = "member.database.shoal.internal"

// caYears is how long an authority is valid. Nobody should have to change it because of a date.
const caYears = 30

// CA is a certificate authority. Safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// NewCA makes an authority with a random key. The name is for people.
func NewCA(name string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, pem: block("CERTIFICATE", der)}, nil
}

// LoadCA reads an authority from what CertPEM and KeyPEM returned.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	b, _ := pem.Decode(certPEM)
	k, _ := pem.Decode(keyPEM)
	if b == nil || k == nil {
		return nil, errs.Invalid("the cluster's authority must be a certificate and a key in PEM form")
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, errs.Invalid("the certificate of the cluster's authority: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, errs.Invalid("the key of the cluster's authority: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errs.Invalid("the key of the cluster's authority does not belong to its certificate, or that is no authority's")
	}
	return &CA{cert: cert, key: key, pem: certPEM}, nil
}

// CertPEM returns the certificate, which is public.
func (c *CA) CertPEM() []byte { return c.pem }

// KeyPEM returns the key, which is the cluster's most secret secret.
func (c *CA) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	return block("PRIVATE KEY", der), err
}

// skew is how far the clocks of the machines may be apart.
const skew = time.Hour

// Sign makes a certificate for the key of a request in PEM form; name and role are the cluster's to say, not the request's.
func (c *CA) Sign(requestPEM []byte, role Role, name string, now time.Time, valid time.Duration) ([]byte, error) {
	b, _ := pem.Decode(requestPEM)
	if b == nil {
		return nil, errs.Invalid("the certificate request is not in PEM form")
	}
	req, err := x509.ParseCertificateRequest(b.Bytes)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, errs.Invalid("the certificate request: %w", err)
	}
	return c.issue(req.PublicKey, role, name, now, valid)
}

// Issue makes a key and a certificate for it.
func (c *CA) Issue(role Role, name string, now time.Time, valid time.Duration) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if certPEM, err = c.issue(key.Public(), role, name, now, valid); err != nil {
		return nil, nil, err
	}
	keyPEM, err = marshalKey(key)
	return certPEM, keyPEM, err
}

func (c *CA) issue(key crypto.PublicKey, role Role, name string, now time.Time, valid time.Duration) ([]byte, error) {
	if role != Member && role != Client {
		return nil, errs.Invalid("certificate role %q: must be %q or %q", role, Member, Client)
	}
	if name == "" || len(name) > 64 {
		return nil, errs.Invalid("certificate name %q: must have 1 to 64 bytes", name)
	}
	t := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-skew), NotAfter: now.Add(valid),
		DNSNames: []string{role.host()}, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if role == Member {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, key, c.key)
	if err != nil {
		return nil, err
	}
	return block("CERTIFICATE", der), nil
}

// NewRequest makes a key that never leaves this machine and a request for [CA.Sign].
func NewRequest() (requestPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = marshalKey(key)
	return block("CERTIFICATE REQUEST", der), keyPEM, err
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return block("PRIVATE KEY", der), err
}

func block(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}
