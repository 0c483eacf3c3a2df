package rest

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/identity/trust"
)

// TrustService keeps certificates and tokens; identity/trust satisfies it.
type TrustService interface {
	Caller(*x509.Certificate) access.Caller
	List(access.Caller) []api.Certificate
	Find(prefix string) (api.Certificate, error)
	Add(context.Context, api.CertificatePut) (api.Certificate, error)
	Update(ctx context.Context, who access.Caller, prefix string, same func(api.Certificate) error, change func(*api.CertificatePut) error) (api.Certificate, error)
	Delete(ctx context.Context, prefix string) (api.Certificate, error)
	Issue(context.Context, api.CertificatePut) (api.Operation, error)
	Enrol(context.Context, trust.Attempt) (api.Certificate, error)
	Tokens() []api.Operation
	Token(id string) (api.Operation, error)
	Revoke(ctx context.Context, id string) error
	OnRevoke(func(fingerprint string)) (stop func())
}

const (
	// untrustedBody bounds what a client that is not trusted may send, in bytes, untrustedTime how long it may take.
	untrustedBody = 64 << 10
	untrustedTime = 10 * time.Second
)

func certificateEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/certificates", methods: methods{"GET": certificatesGet, "POST": certificatesPost}},
		{path: "/1.0/certificates/{fingerprint}", methods: methods{
			"GET": certificateGet, "PUT": certificatePut, "PATCH": certificatePatch, "DELETE": certificateDelete}},
	}
}

func certificateURL(c api.Certificate) string { return "/1.0/certificates/" + c.Fingerprint }

func certificatesGet(r *request) response {
	return listing(r, r.svc.Trust.List(r.who), certificateURL)
}

// certificatesPost adds a certificate or issues a token for an administrator; for anybody else it is the door by which they come in.
func certificatesPost(r *request) response {
	var post api.CertificatesPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	var c api.Certificate
	var err error
	switch {
	case r.who.Kind < access.Full:
		c, err = enrol(r, post)
	case post.Token:
		o, err := r.svc.Trust.Issue(r.Context(), post.CertificatePut)
		if err != nil {
			return fail(err)
		}
		return &asyncResponse{o, api.DefaultProject}
	default:
		if post.Certificate == "" && peer(r.Request) != nil {
			post.Certificate = trust.Encode(peer(r.Request))
		}
		c, err = r.svc.Trust.Add(r.Context(), post.CertificatePut)
	}
	if err != nil {
		return fail(err)
	}
	r.serverEvent("certificate-created", certificateURL(c))
	return created(certificateURL(c))
}

func enrol(r *request, post api.CertificatesPost) (api.Certificate, error) {
	a := trust.Attempt{Peer: peer(r.Request), Put: post.CertificatePut, Password: post.Password}
	if a.Password == "" {
		a.Password = post.TrustToken
	}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		a.Address = ap.Addr()
	}
	return r.svc.Trust.Enrol(r.Context(), a)
}

// serverEvent publishes what happened to an object that is in no project; only those who see all projects hear of it.
func (r *request) serverEvent(action, source string) {
	r.srv.d.Events.Lifecycle(r.Context(), api.ProjectName{}, action, source, nil)
}

func certificateGet(r *request) response {
	c, err := r.svc.Trust.Find(r.PathValue("fingerprint"))
	if err != nil {
		return fail(err)
	}
	return reply(c, c.CertificatePut)
}

func certificatePut(r *request) response {
	var put api.CertificatePut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return certificateChange(r, func(cur *api.CertificatePut) error { *cur = put; return nil })
}

func certificatePatch(r *request) response {
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	return certificateChange(r, func(cur *api.CertificatePut) error { return raw.into(cur) })
}

func certificateChange(r *request, change func(*api.CertificatePut) error) response {
	same := func(cur api.Certificate) error { return r.ifMatch(cur.CertificatePut) }
	c, err := r.svc.Trust.Update(r.Context(), r.who, r.PathValue("fingerprint"), same, change)
	if err != nil {
		return fail(err)
	}
	r.serverEvent("certificate-updated", certificateURL(c))
	return empty()
}

func certificateDelete(r *request) response {
	c, err := r.svc.Trust.Delete(r.Context(), r.PathValue("fingerprint"))
	if err != nil {
		return fail(err)
	}
	r.serverEvent("certificate-deleted", certificateURL(c))
	return empty()
}

// limitStranger bounds what a request of somebody who is not trusted may cost.
func limitStranger(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(untrustedTime))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(untrustedTime))
	r.Body = http.MaxBytesReader(w, r.Body, untrustedBody)
	w.Header().Set("Connection", "close") // an idle connection would keep its place
}
