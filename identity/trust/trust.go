package trust

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// MaxCertificates bounds the trust store.
const MaxCertificates = 10_000

// record is a certificate as it is stored, under its fingerprint.
type record struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Restricted  bool     `json:"restricted"`
	Projects    []string `json:"projects"`
	Certificate string   `json:"certificate"` // PEM
}

// Deps is what the service needs.
type Deps struct {
	State  *state.DB
	Clock  clock.Clock
	Logger *slog.Logger
	// Fingerprint is that of the server's certificate, Addresses are host:port on which it can be reached, none when it does not
	// listen. Both are written into tokens.
	Fingerprint string
	Addresses   func() []string
	// TokenExpiry is how long new tokens are good for, in the form of units.AddExpiry; empty: for ever.
	TokenExpiry func() string
	// PasswordHash is the trust password as HashPassword made it; empty: there is none.
	PasswordHash func() string
	// Project returns an error when there is no such project.
	Project func(api.ProjectName) error
}

// Service keeps the trust store. Safe for concurrent use.
type Service struct {
	d      Deps
	certs  *state.Table[record]
	tokens *state.Table[token]
	guess  *guesses
}

// New returns the service.
func New(d Deps) (*Service, error) {
	if d.State == nil || d.Logger == nil {
		return nil, fmt.Errorf("trust: State and Logger are required")
	}
	if d.Clock == nil {
		d.Clock = clock.Real{}
	}
	none := func() string { return "" }
	if d.TokenExpiry == nil {
		d.TokenExpiry = none
	}
	if d.PasswordHash == nil {
		d.PasswordHash = none
	}
	if d.Addresses == nil {
		d.Addresses = func() []string { return nil }
	}
	if d.Project == nil {
		d.Project = func(api.ProjectName) error { return nil }
	}
	return &Service{d: d, certs: state.NewTable[record](d.State, state.Certificates, 1),
		tokens: state.NewTable[token](d.State, "identity-tokens", 1), guess: newGuesses()}, nil
}

// Caller says what a peer's certificate is good for; nil is a peer without one.
func (s *Service) Caller(cert *x509.Certificate) access.Caller {
	if cert == nil {
		return access.Caller{}
	}
	fp := Fingerprint(cert)
	item, ok := s.certs.Peek(state.Key(fp))
	if !ok || usable(cert, s.d.Clock.Now()) != nil {
		return access.Caller{}
	}
	c := access.Caller{Fingerprint: fp}
	switch r := item.Value; {
	case r.Type == api.CertificateTypeMetrics:
		c.Kind = access.Metrics
	case r.Type != api.CertificateTypeClient: // written by a newer version: no rights rather than all
	case r.Restricted:
		c.Kind, c.Projects = access.Restricted, r.Projects
	default:
		c.Kind = access.Full
	}
	return c
}

// OnRevoke calls f with the fingerprint of each certificate that loses rights, soon after it has, until stop is called. f
// must not block.
func (s *Service) OnRevoke(f func(fingerprint string)) (stop func()) {
	return s.certs.OnChange(func(ch state.Change[record]) {
		if ch.Old != nil && (ch.New == nil || lost(ch.Old.Value, ch.New.Value)) {
			f(ch.Key)
		}
	})
}

// lost reports whether a change takes rights away.
func lost(old, now record) bool {
	if old.Type != now.Type || now.Restricted && !old.Restricted {
		return true
	}
	return now.Restricted && slices.ContainsFunc(old.Projects, func(p string) bool { return !slices.Contains(now.Projects, p) })
}

func render(fingerprint string, r record) api.Certificate {
	projects := r.Projects
	if projects == nil {
		projects = []string{}
	}
	return api.Certificate{Fingerprint: fingerprint, CertificatePut: api.CertificatePut{
		Name: r.Name, Type: r.Type, Restricted: r.Restricted, Projects: projects, Certificate: r.Certificate}}
}

// List returns the certificates that who may see, by fingerprint: all of them, or a restricted caller's own.
func (s *Service) List(who access.Caller) []api.Certificate {
	out := []api.Certificate{}
	for _, it := range s.certs.List("") {
		if who.Kind >= access.Full || it.Key == who.Fingerprint {
			out = append(out, render(it.Key, it.Value))
		}
	}
	return out
}

// Find returns the certificate whose fingerprint begins with prefix. NotFound when there is none, Invalid when there are several.
func (s *Service) Find(prefix string) (api.Certificate, error) {
	item, err := s.find(prefix)
	if err != nil {
		return api.Certificate{}, err
	}
	return render(item.Key, item.Value), nil
}

func (s *Service) find(prefix string) (state.Item[record], error) {
	prefix, err := api.ParseFingerprintPrefix(strings.ToLower(prefix))
	if err != nil {
		return state.Item[record]{}, err
	}
	found := s.certs.List(prefix)
	switch len(found) {
	case 0:
		return state.Item[record]{}, errs.NotFound("Certificate not found")
	case 1:
		return s.certs.Get(found[0].Key)
	}
	return state.Item[record]{}, errs.Invalid("More than one certificate begins with %q; give more digits", prefix)
}

// Add puts a certificate into the store. Exists when it is there already.
func (s *Service) Add(ctx context.Context, put api.CertificatePut) (api.Certificate, error) {
	cert, err := ParseCertificate(put.Certificate)
	if err != nil {
		return api.Certificate{}, err
	}
	if put.Name == "" {
		put.Name = cert.Subject.CommonName
	}
	r, err := s.check(put)
	if err != nil {
		return api.Certificate{}, err
	}
	return s.create(ctx, cert, r)
}

// create writes a record; with is done in the same transaction.
func (s *Service) create(ctx context.Context, cert *x509.Certificate, r record, with ...state.Op) (api.Certificate, error) {
	fp := Fingerprint(cert)
	if err := usable(cert, s.d.Clock.Now()); err != nil {
		return api.Certificate{}, err
	}
	if _, ok := s.certs.Peek(fp); ok {
		return api.Certificate{}, errs.Exists("Certificate already in trust store")
	}
	if len(s.certs.List("")) >= MaxCertificates {
		return api.Certificate{}, errs.TooLarge("the trust store is full (%d certificates); remove some", MaxCertificates)
	}
	if r.Name == "" {
		return api.Certificate{}, errs.Invalid("Certificate name is required: it has no common name to take it from")
	}
	r.Certificate = Encode(cert)
	_, err := s.d.State.Txn(ctx, append(with, s.certs.CreateOp(fp, r))...)
	if errs.IsExists(err) {
		return api.Certificate{}, errs.Exists("Certificate already in trust store")
	}
	if err != nil {
		return api.Certificate{}, err
	}
	s.log(ctx, "certificate added", fp, r)
	return render(fp, r), nil
}

// log writes who changed what.
func (s *Service) log(ctx context.Context, what, fingerprint string, r record) {
	who, _ := caller.From(ctx)
	s.d.Logger.Info(what, "fingerprint", fingerprint, "name", r.Name, "type", r.Type, "restricted", r.Restricted,
		"projects", r.Projects, "user", who.Username, "protocol", who.Protocol, "address", who.Address)
}

// check makes a record of what a user asked for; the certificate itself is left to the caller.
func (s *Service) check(put api.CertificatePut) (record, error) {
	r := record{Name: put.Name, Type: put.Type, Restricted: put.Restricted}
	if r.Type == "" {
		r.Type = api.CertificateTypeClient
	}
	if r.Type != api.CertificateTypeClient && r.Type != api.CertificateTypeMetrics {
		return r, errs.Invalid("Unknown certificate type %q: allowed are client and metrics", put.Type)
	}
	if len(r.Name) > 255 || strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0x2028 || c == 0x2029 }) {
		return r, errs.Invalid("Invalid certificate name: at most 255 bytes without control characters are allowed")
	}
	if !put.Restricted && len(put.Projects) > 0 {
		return r, errs.Invalid("Projects limit only a restricted certificate: set restricted, or give no projects")
	}
	for _, p := range put.Projects {
		if p == "" {
			return r, errs.Invalid("Invalid project name: it is empty")
		}
		name, err := api.ParseProjectName(p)
		if err == nil {
			err = s.d.Project(name)
		}
		if err != nil {
			return r, fmt.Errorf("project %q: %w", p, err)
		}
		if !slices.Contains(r.Projects, p) {
			r.Projects = append(r.Projects, p)
		}
	}
	return r, nil
}

// Update changes an entry. A restricted caller may put a new certificate in the place of its own and nothing else. same is called with
// the present object before it is written: its error, such as a failed If-Match, ends Update.
func (s *Service) Update(ctx context.Context, who access.Caller, prefix string, same func(api.Certificate) error, change func(*api.CertificatePut) error) (api.Certificate, error) {
	for {
		item, err := s.find(prefix)
		if err != nil {
			return api.Certificate{}, err
		}
		cur := render(item.Key, item.Value)
		if err := same(cur); err != nil {
			return api.Certificate{}, err
		}
		put := cur.CertificatePut
		put.Projects = slices.Clone(put.Projects)
		if err := change(&put); err != nil {
			return api.Certificate{}, err
		}
		out, err := s.replace(ctx, who, item, put)
		if !errs.IsConflict(err) || ctx.Err() != nil {
			return out, err
		}
	}
}

func (s *Service) replace(ctx context.Context, who access.Caller, item state.Item[record], put api.CertificatePut) (api.Certificate, error) {
	r, err := s.check(put)
	if err != nil {
		return api.Certificate{}, err
	}
	old := item.Value
	sameRights := r.Name == old.Name && r.Type == old.Type && r.Restricted == old.Restricted && slices.Equal(r.Projects, old.Projects)
	if who.Kind < access.Full && !sameRights {
		return api.Certificate{}, errs.Forbidden("not authorized")
	}
	if r.Name == "" {
		return api.Certificate{}, errs.Invalid("Certificate name is required")
	}
	cert := (*x509.Certificate)(nil)
	if put.Certificate == "" {
		put.Certificate = old.Certificate
	}
	if cert, err = ParseCertificate(put.Certificate); err != nil {
		return api.Certificate{}, err
	}
	r.Certificate = Encode(cert)
	if fp := Fingerprint(cert); fp != item.Key { // the key of the entry changes with it
		return s.create(ctx, cert, r, s.certs.DeleteOp(item))
	}
	item.Value = r
	if _, err := s.certs.Update(ctx, item); err != nil {
		return api.Certificate{}, err
	}
	s.log(ctx, "certificate changed", item.Key, r)
	return render(item.Key, r), nil
}

// Delete removes a certificate.
func (s *Service) Delete(ctx context.Context, prefix string) (api.Certificate, error) {
	item, err := s.find(prefix)
	if err != nil {
		return api.Certificate{}, err
	}
	if err := s.certs.Delete(ctx, item.Key); err != nil {
		return api.Certificate{}, err
	}
	s.log(ctx, "certificate removed", item.Key, item.Value)
	return render(item.Key, item.Value), nil
}

// ForgetProject takes a project out of all certificates and tokens: whoever makes another project of that name gives nobody access
// to it by doing so.
func (s *Service) ForgetProject(ctx context.Context, p api.ProjectName) error {
	without := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return n == p.String() })
	}
	for _, it := range s.certs.List("") {
		if slices.Contains(it.Value.Projects, p.String()) {
			_, err := s.certs.Modify(ctx, it.Key, func(r *record) error { r.Projects = without(r.Projects); return nil })
			if err != nil && !errs.IsNotFound(err) {
				return err
			}
		}
	}
	for _, it := range s.tokens.List("") {
		if slices.Contains(it.Value.Projects, p.String()) {
			_, err := s.tokens.Modify(ctx, it.Key, func(t *token) error { t.Projects = without(t.Projects); return nil })
			if err != nil && !errs.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}

// Encode returns a certificate as PEM.
func Encode(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
