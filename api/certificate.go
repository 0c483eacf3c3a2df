package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// The types of certificates in the trust store.
const (
	CertificateTypeClient  = "client"  // speaks the API, within its projects when it is restricted
	CertificateTypeMetrics = "metrics" // reads GET /1.0/metrics and nothing else
)

// CertificatePut is the writable part of a certificate in the trust store.
type CertificatePut struct {
	Name       string   `json:"name" yaml:"name"`
	Type       string   `json:"type" yaml:"type"`
	Restricted bool     `json:"restricted" yaml:"restricted"`
	Projects   []string `json:"projects" yaml:"projects"` // of a restricted certificate
	// Certificate is PEM; base64 of DER is accepted too, as clients of LXD send it.
	Certificate string `json:"certificate" yaml:"certificate"`
}

// CertificatesPost adds a certificate, asks for a token with which somebody else can add theirs, or is what a client that is not
// trusted yet sends to become so.
type CertificatesPost struct {
	CertificatePut
	Password   string `json:"password" yaml:"password"`                           // the trust password or a token, as LXD's clients send it
	TrustToken string `json:"trust_token,omitempty" yaml:"trust_token,omitempty"` // a token, as Incus' clients send it
	Token      bool   `json:"token" yaml:"token"`                                 // make a token instead of adding a certificate
}

// Certificate is a certificate in the trust store.
type Certificate struct {
	CertificatePut `yaml:",inline"`
	Fingerprint    string `json:"fingerprint" yaml:"fingerprint"` // SHA-256 of the DER, hexadecimal
}

// CertificateToken is what a user carries from a server to a new client. It is good for one use.
type CertificateToken struct {
	ClientName  string    `json:"client_name"`
	Fingerprint string    `json:"fingerprint"` // of the server's certificate
	Addresses   []string  `json:"addresses"`   // host:port, any of which will do
	Secret      string    `json:"secret"`
	ExpiresAt   time.Time `json:"expires_at"` // zero: never
}

// maxToken bounds the text of a token in bytes; ten addresses need about 700.
const maxToken = 16 << 10

// String returns the token as users copy it: base64 of its JSON.
func (t CertificateToken) String() string {
	b, _ := json.Marshal(t) // our own type always encodes
	return base64.StdEncoding.EncodeToString(b)
}

// ParseCertificateToken reads what String wrote. The error does not contain the text: it is a secret.
func ParseCertificateToken(s string) (CertificateToken, error) {
	var t CertificateToken
	if len(s) > maxToken {
		return t, &NameError{Kind: "certificate token", Reason: fmt.Sprintf("it is longer than %d bytes", maxToken)}
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	switch {
	case err != nil:
		return CertificateToken{}, &NameError{Kind: "certificate token", Reason: "it is not base64 of a JSON object"}
	case t.ClientName == "":
		return CertificateToken{}, &NameError{Kind: "certificate token", Reason: "it has no client name"}
	case t.Secret == "":
		return CertificateToken{}, &NameError{Kind: "certificate token", Reason: "it has no secret"}
	case !fingerprintRE.MatchString(t.Fingerprint):
		return CertificateToken{}, &NameError{Kind: "certificate token", Reason: "it has no fingerprint"}
	case len(t.Addresses) == 0:
		return CertificateToken{}, &NameError{Kind: "certificate token", Reason: "it has no address"}
	}
	return t, nil
}

// CertificateTokenOf reads the token that an operation of class token stands for; ok is false for any other operation.
func CertificateTokenOf(o Operation) (t CertificateToken, ok bool) {
	if o.Class != "token" {
		return t, false
	}
	b, err := json.Marshal(o.Metadata)
	if err != nil {
		return t, false
	}
	var m struct {
		Secret      string           `json:"secret"`
		Fingerprint string           `json:"fingerprint"`
		Addresses   []string         `json:"addresses"`
		ExpiresAt   time.Time        `json:"expiresAt"`
		Request     CertificatesPost `json:"request"`
	}
	if json.Unmarshal(b, &m) != nil || m.Secret == "" || m.Request.Name == "" {
		return t, false
	}
	return CertificateToken{ClientName: m.Request.Name, Fingerprint: m.Fingerprint, Addresses: m.Addresses, Secret: m.Secret, ExpiresAt: m.ExpiresAt}, true
}
