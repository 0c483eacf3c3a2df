package world

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/names"
)

// Signature is a signature and the name of the key that made it.
type Signature struct {
	Key string `json:"key"`
	Sig []byte `json:"sig"`
}

// maxSig bounds a signature, in bytes.
const maxSig = 4 << 10

func (s *Signature) check() error {
	if s == nil {
		return nil
	}
	if len(s.Sig) == 0 || len(s.Sig) > maxSig {
		return errs.Invalid("a signature has %d bytes: must be 1 to %d", len(s.Sig), maxSig)
	}
	return names.Check("key of a signature", s.Key)
}

// Signer signs with the key of a machine or a user.
type Signer interface {
	// Key names the key that Sign uses; a Verifier knows it by this name.
	Key() string
	Sign(msg []byte) ([]byte, error)
}

// Verifier checks signatures. A deploy is good for it when each of its signatures is, and there is at least one.
type Verifier interface {
	// Verify returns nil for a good signature of a key that is trusted, else an error that says which of the two it is not.
	Verify(key string, msg, sig []byte) error
}

// ContentMessage is what the author of a deploy signs: what it was made from and its payload.
func ContentMessage(hash, payload string) []byte {
	return api.WorldDeployMessage(hash, digest([]byte(payload)))
}

// recordMessage is what the machine signs that adds a deploy.
func recordMessage(digest string) []byte { return []byte("shoal deploy record v1\n" + digest + "\n") }

// verify reports, with class Denied, a deploy that comes from nobody who may deploy.
func (w *World) verify(d Deploy) error {
	if w.o.Authors != nil {
		keys, err := w.o.Authors()
		if err != nil {
			return fmt.Errorf("read the authors' keys: %w", err)
		}
		if len(keys) > 0 && d.Content == nil {
			return errs.Forbidden("it is not signed by its author, which this world asks for")
		}
		if len(keys) > 0 && !slices.Contains(keys, d.Content.Key) {
			return errs.Forbidden("its author's key %s is none of the %d that may deploy", d.Content.Key, len(keys))
		}
	}
	if w.o.Verifier == nil {
		return nil
	}
	if d.Content == nil && d.Record == nil {
		return errs.Forbidden("it is not signed")
	}
	if s := d.Content; s != nil {
		if err := w.o.Verifier.Verify(s.Key, api.WorldDeployMessage(d.Hash, d.Payload), s.Sig); err != nil {
			return errs.Forbidden("its author's signature: %w", err)
		}
	}
	if s := d.Record; s != nil {
		if err := w.o.Verifier.Verify(s.Key, recordMessage(d.Digest), s.Sig); err != nil {
			return errs.Forbidden("the signature of machine %s: %w", d.Machine, err)
		}
	}
	return nil
}

// ed25519Prefix begins the names of our keys; the public key in hexadecimal follows.
const ed25519Prefix = "ed25519:"

// KeyName returns the name of a public key.
func KeyName(pub ed25519.PublicKey) string { return ed25519Prefix + hex.EncodeToString(pub) }

// ParseKeyName is the inverse of KeyName; class Invalid for what is not such a name.
func ParseKeyName(s string) (ed25519.PublicKey, error) {
	rest, ok := strings.CutPrefix(s, ed25519Prefix)
	b, err := hex.DecodeString(rest)
	if !ok || err != nil || len(b) != ed25519.PublicKeySize || KeyName(b) != s {
		return nil, errs.Invalid("key %q: must be %q and 64 lower-case hexadecimal digits", s, ed25519Prefix)
	}
	return b, nil
}

// Ed25519Signer signs with a key in memory.
type Ed25519Signer struct{ key ed25519.PrivateKey }

// NewEd25519Signer returns a signer of the key.
func NewEd25519Signer(key ed25519.PrivateKey) Ed25519Signer { return Ed25519Signer{key} }

// ParseEd25519Signer reads a private key as openssl genpkey -algorithm ed25519 writes it: PKCS #8 in PEM, not encrypted. Class Invalid for
// anything else.
func ParseEd25519Signer(data []byte) (Ed25519Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Ed25519Signer{}, errs.Invalid("no PEM block of type PRIVATE KEY")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(ed25519.PrivateKey)
	if err != nil || !ok {
		return Ed25519Signer{}, errs.Invalid("not an ed25519 key in PKCS #8")
	}
	return Ed25519Signer{key}, nil
}

// Key implements Signer.
func (s Ed25519Signer) Key() string { return KeyName(s.key.Public().(ed25519.PublicKey)) }

// Sign implements Signer.
func (s Ed25519Signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// Ed25519Verifier trusts the keys that Trusted returns, by their names (see KeyName).
type Ed25519Verifier struct{ Trusted func() ([]string, error) }

// Verify implements Verifier.
func (v Ed25519Verifier) Verify(key string, msg, sig []byte) error {
	pub, err := ParseKeyName(key)
	if err != nil {
		return err
	}
	trusted, err := v.Trusted()
	if err != nil {
		return fmt.Errorf("read the trusted keys: %w", err)
	}
	if !slices.Contains(trusted, key) {
		return errs.Forbidden("key %s is not trusted", key)
	}
	if !ed25519.Verify(pub, msg, sig) {
		return errs.Forbidden("the signature is not of key %s, or what it signs was changed", key)
	}
	return nil
}
