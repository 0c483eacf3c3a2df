package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// maxCertificate bounds a certificate's text in bytes.
const maxCertificate = 64 << 10

// Fingerprint is the SHA-256 of a certificate's DER in lower case hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// ParseCertificate reads one certificate: PEM, or base64 of DER, which is what clients of LXD send.
func ParseCertificate(text string) (*x509.Certificate, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errs.Invalid("Invalid certificate: it is empty")
	}
	if len(text) > maxCertificate {
		return nil, errs.TooLarge("Invalid certificate: at most %d bytes are allowed", maxCertificate)
	}
	var der []byte
	if block, rest := pem.Decode([]byte(text)); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, errs.Invalid("Invalid certificate: the PEM block is %q, it has to be CERTIFICATE", block.Type)
		}
		if strings.TrimSpace(string(rest)) != "" {
			return nil, errs.Invalid("Invalid certificate: there is something behind the PEM block")
		}
		der = block.Bytes
	} else {
		var err error
		if der, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, errs.Invalid("Invalid certificate: it is neither PEM nor base64")
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.Invalid("Invalid certificate: %v", err)
	}
	return cert, nil
}

// usable says why a certificate cannot be used by a client now.
func usable(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return errs.Invalid("Invalid certificate: it is not valid before %s", cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return errs.Invalid("Invalid certificate: it expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	case len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errs.Invalid("Invalid certificate: its extended key usage does not allow it to authenticate a client")
	}
	return nil
}
