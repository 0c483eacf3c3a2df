package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
)

const (
	defaultDir = "/var/lib/shoal"
	// maxJSON bounds a JSON reply: ten thousand instances in full are about 60 MB.
	maxJSON = 512 << 20
	// baseURL is never resolved: the transport dials the socket.
	baseURL = "http://shoal"
)

// Options say where the server is and how to speak with it. The zero value means the local daemon.
type Options struct {
	// Socket is the path of the unix socket. Empty means $SHOAL_SOCKET, then unix.socket in $SHOAL_DIR,
	// then /var/lib/shoal/unix.socket.
	Socket string
	// URL is that of a server on the network, "https://host:port"; empty means the socket.
	URL string
	// Certificate is shown to a server on the network; nil: none, so that it trusts the caller with little.
	Certificate *tls.Certificate
	// ServerCertificate is the only one that a server on the network may have, whoever signed it and whatever name is in it. nil: one
	// for the host in URL, signed by somebody whom this machine trusts.
	ServerCertificate *x509.Certificate
	// Project is sent with every request; empty means the default project.
	Project string
	// UserAgent is sent with every request; empty means "shoal-client".
	UserAgent string
	// Trace, where set, is told about requests, replies and websockets, one line or JSON document at a time. It
	// may be called from several goroutines. Secrets of websockets and file contents are not in it.
	Trace func(format string, args ...any)
}

// Client speaks with one server. It is safe for concurrent use.
type Client struct {
	opts Options
	base string // scheme and host of requests
	http *http.Client

	mu    sync.Mutex
	spare net.Conn // made by Connect, used by the first request
}

// SocketPath returns the path of the unix socket that options and environment lead to.
func (o Options) SocketPath() string {
	switch {
	case o.Socket != "":
		return o.Socket
	case os.Getenv("SHOAL_SOCKET") != "":
		return os.Getenv("SHOAL_SOCKET")
	case os.Getenv("SHOAL_DIR") != "":
		return filepath.Join(os.Getenv("SHOAL_DIR"), "unix.socket")
	}
	return filepath.Join(defaultDir, "unix.socket")
}

// Connect dials the server and returns a client for it. No request is sent, so a server that is
// still starting accepts. The error is a [*ConnectError] when nothing listens or the caller may not connect.
func Connect(ctx context.Context, opts Options) (*Client, error) {
	base := baseURL
	if opts.URL == "" {
		opts.Socket = opts.SocketPath()
	} else {
		host, err := hostPort(opts.URL)
		if err != nil {
			return nil, err
		}
		base = "http://" + host // dial adds TLS
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "shoal-client"
	}
	if opts.Trace == nil {
		opts.Trace = func(string, ...any) {}
	}
	c := &Client{opts: opts, base: base}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.spare = conn
	return c, nil
}

// WithProject returns a client for another project of the same server, which shares the connections.
func (c *Client) WithProject(project string) *Client {
	opts := c.opts
	opts.Project = project
	return &Client{opts: opts, base: c.base, http: c.http}
}

// Project returns the project that requests are sent for, "default" when none was given.
func (c *Client) Project() string {
	if c.opts.Project == "" {
		return "default"
	}
	return c.opts.Project
}

// Close closes idle connections. Operations that are being waited for are not disturbed.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare != nil {
		_ = c.spare.Close()
		c.spare = nil
	}
	c.http.CloseIdleConnections()
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	spare := c.spare
	c.spare = nil
	c.mu.Unlock()
	if spare != nil {
		return spare, nil
	}
	if c.opts.URL != "" {
		return c.dialTLS(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.opts.Socket)
	if err != nil {
		return nil, &ConnectError{Socket: c.opts.Socket, Err: err}
	}
	return conn, nil
}

// Request is one HTTP request in the making; most callers use the methods for their object instead.
type Request struct {
	Method string     // GET when empty
	Path   string     // for example "/1.0/instances/c1", escaped
	Query  url.Values // the project is added unless it is there
	Header http.Header
	Body   any    // nil, an io.Reader that is sent as it is, or a value that is sent as JSON
	ETag   string // sent as If-Match when not empty
}

func (c *Client) newRequest(ctx context.Context, r Request) (*http.Request, error) {
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	u, err := url.Parse(c.base + r.Path)
	if err != nil {
		return nil, fmt.Errorf("request path %q: %w", r.Path, err)
	}
	q := u.Query()
	for k, v := range r.Query {
		q[k] = v
	}
	if c.opts.Project != "" && c.opts.Project != "default" && !q.Has("project") && !q.Has("all-projects") {
		q.Set("project", c.opts.Project)
	}
	u.RawQuery = q.Encode()
	var body io.Reader
	isJSON := false
	switch b := r.Body.(type) {
	case nil:
	case io.Reader:
		body = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body, isJSON = bytes.NewReader(data), true
		c.opts.Trace("%s %s\n%s", r.Method, u.RequestURI(), data)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("request %s %s: %w", r.Method, r.Path, err)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	} else {
		c.opts.Trace("%s %s", r.Method, u.RequestURI())
	}
	if r.ETag != "" {
		req.Header.Set("If-Match", r.ETag)
	}
	return req, nil
}

// Do sends a request and returns the reply whatever its status; the caller closes its body. Errors are those of
// the connection. Everything else in this package is built on it.
func (c *Client) Do(ctx context.Context, r Request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var ce *ConnectError
		if errors.As(err, &ce) {
			return nil, ce
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the daemon closed the connection before it replied")
		}
		return nil, fmt.Errorf("%s %s: %w", req.Method, req.URL.Path, err)
	}
	return resp, nil
}

// call sends a request and decodes the envelope. A reply of class error becomes an [*Error].
func (c *Client) call(ctx context.Context, r Request) (*api.Response, http.Header, error) {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	env, err := c.envelope(resp)
	return env, resp.Header, err
}

func (c *Client) envelope(resp *http.Response) (*api.Response, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	if err != nil {
		return nil, fmt.Errorf("read reply to %s: %w", resp.Request.URL.Path, err)
	}
	if len(data) > maxJSON {
		return nil, fmt.Errorf("reply to %s is larger than %d bytes", resp.Request.URL.Path, maxJSON)
	}
	var env api.Response
	if err := json.Unmarshal(data, &env); err != nil {
		if resp.StatusCode >= 400 {
			return nil, &Error{Status: resp.StatusCode, Message: http.StatusText(resp.StatusCode)}
		}
		return nil, fmt.Errorf("reply to %s is not JSON of this API: %w", resp.Request.URL.Path, err)
	}
	c.opts.Trace("%d\n%s", resp.StatusCode, data)
	if env.Type == "error" || resp.StatusCode >= 400 {
		e := &Error{Status: env.ErrorCode, Message: env.Error}
		if e.Status == 0 {
			e.Status = resp.StatusCode
		}
		if e.Message == "" {
			e.Message = http.StatusText(e.Status)
		}
		return nil, e
	}
	return &env, nil
}

// get decodes the metadata of a synchronous reply into T and returns its ETag.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, string, error) {
	var v T
	env, h, err := c.call(ctx, Request{Path: path, Query: query})
	if err != nil {
		return v, "", err
	}
	if err := decode(env.Metadata, &v); err != nil {
		return v, "", fmt.Errorf("reply to GET %s: %w", path, err)
	}
	return v, h.Get("ETag"), nil
}

// list gets the objects of a collection.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	if !query.Has("recursion") {
		query.Set("recursion", "1")
	}
	v, _, err := get[[]T](ctx, c, path, query)
	return v, err
}

// send makes a synchronous change.
func (c *Client) send(ctx context.Context, method, path string, body any, etag string) error {
	_, _, err := c.call(ctx, Request{Method: method, Path: path, Body: body, ETag: etag})
	return err
}

// start makes a change that takes time.
func (c *Client) start(ctx context.Context, r Request) (*Operation, error) {
	env, _, err := c.call(ctx, r)
	if err != nil {
		return nil, err
	}
	op := &Operation{c: c}
	if err := decode(env.Metadata, &op.last); err != nil || op.last.ID == "" {
		return nil, fmt.Errorf("reply to %s %s is not an operation", r.Method, r.Path)
	}
	return op, nil
}

func decode(raw json.RawMessage, v any) error {
	if len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, v)
}

// pathTo joins escaped path elements below /1.0.
func pathTo(elems ...string) string {
	var b strings.Builder
	b.WriteString("/1.0")
	for _, e := range elems {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(e))
	}
	return b.String()
}

// mediaType returns the content type without its parameters.
func mediaType(h http.Header) (string, map[string]string) {
	t, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "", nil
	}
	return t, params
}

// drain closes a body after reading a little of it, so that the connection can be used again.
func drain(rc io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, rc, 4096)
	_ = rc.Close()
}
