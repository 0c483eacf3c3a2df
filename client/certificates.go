package client

import (
	"context"
	"net/http"

	"github.com/shoal-project/shoal/api"
)

// Certificates returns the certificates that the server trusts, as far as the caller may see them.
func (c *Client) Certificates(ctx context.Context) ([]api.Certificate, error) {
	return list[api.Certificate](ctx, c, "/1.0/certificates", nil)
}

// Certificate returns one certificate, found by the beginning of its fingerprint.
func (c *Client) Certificate(ctx context.Context, fingerprint string) (*api.Certificate, string, error) {
	v, etag, err := get[api.Certificate](ctx, c, pathTo("certificates", fingerprint), nil)
	return &v, etag, err
}

// AddCertificate makes the server trust a certificate. For a caller that is not trusted yet, post has a password or token, and the
// caller's own certificate is meant.
func (c *Client) AddCertificate(ctx context.Context, post api.CertificatesPost) error {
	return c.send(ctx, http.MethodPost, "/1.0/certificates", post, "")
}

// CreateCertificateToken makes a token with which a new client can add its certificate, which gets the name and the rights in put.
// The operation stands for the token: cancelling it makes the token useless.
func (c *Client) CreateCertificateToken(ctx context.Context, put api.CertificatePut) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: "/1.0/certificates", Body: api.CertificatesPost{CertificatePut: put, Token: true}})
}

// UpdateCertificate replaces name, type and rights of a certificate.
func (c *Client) UpdateCertificate(ctx context.Context, fingerprint string, put api.CertificatePut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("certificates", fingerprint), put, etag)
}

// DeleteCertificate makes the server stop trusting a certificate.
func (c *Client) DeleteCertificate(ctx context.Context, fingerprint string) error {
	return c.send(ctx, http.MethodDelete, pathTo("certificates", fingerprint), nil, "")
}
