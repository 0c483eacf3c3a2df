package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// The files of the server's certificate in the state directory: LXD's names.
const (
	CertFile = "server.crt" // PEM; an administrator may put a chain of their own here
	KeyFile  = "server.key" // PEM, for the daemon's user only
)

// validity is how long a certificate that was made here lasts.
const validity = 10 * 365 * 24 * time.Hour

// ServerKeypair returns the server's certificate, made at the first start: self-signed, P-384, ten years, for the host's name and
// loopback. Clients pin it, so it stays until an administrator replaces it. Leaf is set.
func ServerKeypair(root *fsroot.Root, hostname string, now time.Time) (*tls.Certificate, error) {
	key, err := readKey(root)
	if err != nil {
		return nil, err
	}
	crt, err := root.ReadFile(CertFile)
	if errors.Is(err, fs.ErrNotExist) {
		crt, err = writeCertificate(root, key, hostname, now)
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, errs.Invalid("%s and %s do not belong together or cannot be read; restore them, or move both aside to get new ones: %w", CertFile, KeyFile, err)
	}
	return &pair, nil
}

// readKey returns the key as PEM, made when there is none.
func readKey(root *fsroot.Root) ([]byte, error) {
	key, err := root.ReadFile(KeyFile)
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("server key: %w", err)
	}
	if _, err := root.Stat(CertFile); err == nil {
		return nil, errs.Invalid("%s is there without its %s; restore the key, or move the certificate aside to get new ones", CertFile, KeyFile)
	}
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the server key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("make the server key: %w", err)
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := root.WriteAtomic(KeyFile, key, 0o600); err != nil {
		return nil, fmt.Errorf("write the server key: %w", err)
	}
	return key, nil
}

func writeCertificate(root *fsroot.Root, keyPEM []byte, hostname string, now time.Time) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errs.Invalid("%s is not PEM", KeyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errs.Invalid("%s: %w", KeyFile, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errs.Invalid("%s is not an ECDSA key, and there is no %s for it", KeyFile, CertFile)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Shoal"}, CommonName: "root@" + hostname},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{hostname, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}, &x509.Certificate{Subject: pkix.Name{Organization: []string{"Shoal"}, CommonName: "root@" + hostname}}, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return crt, root.WriteAtomic(CertFile, crt, 0o644)
}
