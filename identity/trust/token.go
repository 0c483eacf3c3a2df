package trust

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/units"
)

// MaxTokens bounds the tokens that wait for their use.
const MaxTokens = 1000

// token is a token as it is stored, under the hash of its secret. The secret itself is kept because clients of LXD list tokens to show
// them again; whoever can read it here can write the trust store.
type token struct {
	ID         string    `json:"id"` // of the operation that stands for it
	Secret     string    `json:"secret"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	Restricted bool      `json:"restricted"`
	Projects   []string  `json:"projects"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"` // zero: never
}

func (t token) expired(now time.Time) bool { return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt) }

func tokenKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Issue makes a token. The operation that stands for it has the secret in its metadata: only full administrators may see it.
// Invalid when the server listens on no address.
func (s *Service) Issue(ctx context.Context, put api.CertificatePut) (api.Operation, error) {
	if put.Certificate != "" {
		return api.Operation{}, errs.Invalid("Can't use certificate if token is requested")
	}
	if put.Name == "" {
		return api.Operation{}, errs.Invalid("A token needs the name of its client")
	}
	r, err := s.check(put)
	if err != nil {
		return api.Operation{}, err
	}
	if len(s.d.Addresses()) == 0 {
		return api.Operation{}, errs.Invalid("Can't issue token when server isn't listening on network: set core.https_address first")
	}
	now := s.d.Clock.Now().UTC()
	if err := s.sweep(ctx, now); err != nil {
		return api.Operation{}, err
	}
	if len(s.tokens.List("")) >= MaxTokens {
		return api.Operation{}, errs.TooLarge("%d tokens wait for their use; revoke some", MaxTokens)
	}
	t := token{ID: uuid.NewString(), Secret: rand.Text() + rand.Text(), Name: r.Name, Type: r.Type, Restricted: r.Restricted,
		Projects: r.Projects, CreatedAt: now}
	if e := s.d.TokenExpiry(); e != "" {
		if t.ExpiresAt, err = units.AddExpiry(now, e); err != nil {
			return api.Operation{}, err
		}
	}
	if _, err := s.tokens.Create(ctx, tokenKey(t.Secret), t); err != nil {
		return api.Operation{}, err
	}
	s.log(ctx, "token issued", "", r)
	return s.operation(t), nil
}

// sweep removes expired tokens.
func (s *Service) sweep(ctx context.Context, now time.Time) error {
	for _, it := range s.tokens.List("") {
		if it.Value.expired(now) {
			if err := s.tokens.Delete(ctx, it.Key); err != nil && !errs.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

// operation is how a token is shown: clients of LXD list, show and revoke tokens as operations.
func (s *Service) operation(t token) api.Operation {
	projects := t.Projects
	if projects == nil {
		projects = []string{}
	}
	meta := map[string]any{
		"secret": t.Secret, "fingerprint": s.d.Fingerprint, "addresses": s.d.Addresses(),
		"request": api.CertificatesPost{Token: true, CertificatePut: api.CertificatePut{Name: t.Name, Type: t.Type, Restricted: t.Restricted, Projects: projects}},
	}
	if !t.ExpiresAt.IsZero() {
		meta["expiresAt"] = t.ExpiresAt
	}
	return api.Operation{ID: t.ID, Class: "token", Description: "Executing operation", CreatedAt: t.CreatedAt, UpdatedAt: t.CreatedAt,
		Status: api.Running.String(), StatusCode: api.Running, Metadata: meta, MayCancel: true, Location: "none"}
}

// Tokens returns the tokens that can still be used, as operations, oldest first.
func (s *Service) Tokens() []api.Operation {
	now := s.d.Clock.Now()
	var out []api.Operation
	for _, it := range s.tokens.List("") {
		if !it.Value.expired(now) {
			out = append(out, s.operation(it.Value))
		}
	}
	return out
}

// Token returns the operation that stands for a token; NotFound when there is none.
func (s *Service) Token(id string) (api.Operation, error) {
	for _, o := range s.Tokens() {
		if o.ID == id {
			return o, nil
		}
	}
	return api.Operation{}, errs.NotFound("Operation not found")
}

// Revoke makes a token useless.
func (s *Service) Revoke(ctx context.Context, id string) error {
	for _, it := range s.tokens.List("") {
		if it.Value.ID != id {
			continue
		}
		err := s.tokens.Delete(ctx, it.Key)
		if errs.IsNotFound(err) {
			break // used or revoked meanwhile
		}
		if err == nil {
			s.log(ctx, "token revoked", "", record{Name: it.Value.Name, Type: it.Value.Type, Restricted: it.Value.Restricted, Projects: it.Value.Projects})
		}
		return err
	}
	return errs.NotFound("Operation not found")
}

// Attempt is a client's try to become trusted.
type Attempt struct {
	Address  netip.Addr        // of the client
	Peer     *x509.Certificate // which it has shown that it holds the key of
	Put      api.CertificatePut
	Password string // the trust password, or the text of a token
}

// Enrol adds the certificate of a client that brings a token or the trust password. The error is Denied, with the same text
// whatever was wrong, but for a token that was right once and has expired; after too many attempts it has HTTP status 429.
func (s *Service) Enrol(ctx context.Context, a Attempt) (api.Certificate, error) {
	c, err := s.enrol(ctx, a)
	if errs.Is(err, errs.Denied) { // as many lines as there are attempts, which are limited
		s.d.Logger.Warn("a client did not become trusted", "address", a.Address.String(), "err", err)
	}
	return c, err
}

func (s *Service) enrol(ctx context.Context, a Attempt) (api.Certificate, error) {
	if a.Peer == nil {
		return api.Certificate{}, errs.Invalid("No client certificate provided")
	}
	now := s.d.Clock.Now()
	if err := s.guess.allow(a.Address, now); err != nil {
		return api.Certificate{}, err
	}
	if a.Put.Certificate != "" {
		// Only who holds the key may have it trusted.
		cert, err := ParseCertificate(a.Put.Certificate)
		if err != nil {
			return api.Certificate{}, err
		}
		if Fingerprint(cert) != Fingerprint(a.Peer) {
			return api.Certificate{}, errs.Forbidden("not authorized")
		}
	}
	if t, err := api.ParseCertificateToken(a.Password); err == nil {
		return s.redeem(ctx, t.Secret, a.Peer)
	}
	hash := s.d.PasswordHash()
	if hash == "" || a.Password == "" {
		return api.Certificate{}, errs.Forbidden("not authorized")
	}
	if err := s.guess.compute(now); err != nil {
		return api.Certificate{}, err
	}
	if !s.guess.right(hash, a.Password) {
		return api.Certificate{}, errs.Forbidden("not authorized")
	}
	put := a.Put
	if put.Name == "" {
		put.Name = a.Peer.Subject.CommonName
	}
	r, err := s.check(put)
	if err != nil {
		return api.Certificate{}, err
	}
	return s.create(ctx, a.Peer, r)
}

// redeem uses a token: one transaction removes it and adds the certificate.
func (s *Service) redeem(ctx context.Context, secret string, peer *x509.Certificate) (api.Certificate, error) {
	item, err := s.tokens.Get(tokenKey(secret))
	if err != nil && !errs.IsNotFound(err) {
		return api.Certificate{}, err
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(item.Value.Secret), []byte(secret)) != 1 {
		return api.Certificate{}, errs.Forbidden("not authorized")
	}
	t := item.Value
	if t.expired(s.d.Clock.Now()) {
		if err := s.tokens.Delete(ctx, state.Key(item.Key)); err != nil && !errs.IsNotFound(err) {
			return api.Certificate{}, err
		}
		return api.Certificate{}, errs.Forbidden("Token has expired")
	}
	c, err := s.create(ctx, peer, record{Name: t.Name, Type: t.Type, Restricted: t.Restricted, Projects: t.Projects}, s.tokens.DeleteOp(item))
	if errs.IsConflict(err) { // somebody else was faster
		return api.Certificate{}, errs.Forbidden("not authorized")
	}
	return c, err
}
