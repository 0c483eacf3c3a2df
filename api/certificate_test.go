package api_test

import (
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
)

func FuzzParseCertificateToken(f *testing.F) {
	f.Add(api.CertificateToken{ClientName: "c", Fingerprint: strings.Repeat("ab", 32), Addresses: []string{"10.0.0.1:8443"}, Secret: "s"}.String())
	f.Add("e30=")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := api.ParseCertificateToken(s)
		if err != nil {
			return
		}
		again, err := api.ParseCertificateToken(tok.String())
		if err != nil || again.Secret != tok.Secret || again.ClientName != tok.ClientName || len(again.Addresses) != len(tok.Addresses) {
			t.Errorf("%q: %+v, %v", s, again, err)
		}
	})
}
