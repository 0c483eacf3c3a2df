package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
)

// Reply is what the API answered.
type Reply struct {
	Code      int // HTTP status
	Type      string
	Error     string
	Operation string // its path
	Metadata  json.RawMessage
	Header    http.Header
	Raw       []byte
}

// Socket is the daemon's unix socket.
func (w *World) Socket() string { return filepath.Join(w.State, "unix.socket") }

// HTTP returns a client whose every request is a connection of its own to the daemon.
func (w *World) HTTP() *http.Client {
	return &http.Client{Timeout: 6 * Patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.Socket())
	}}}
}

// Do sends a request. A body of bytes or a reader goes out as it is, anything else as JSON.
func (w *World) Do(method, path string, body any, header ...string) (Reply, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	case []byte:
		r = bytes.NewReader(b)
	case string:
		r = bytes.NewReader([]byte(b))
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return Reply{}, err
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, "http://shoal"+path, r)
	if err != nil {
		return Reply{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.HTTP().Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	out := Reply{Code: resp.StatusCode, Header: resp.Header}
	if out.Raw, err = io.ReadAll(resp.Body); err != nil {
		return out, err
	}
	var env struct {
		Type      string
		Error     string
		Operation string
		Metadata  json.RawMessage
	}
	if json.Unmarshal(out.Raw, &env) == nil {
		out.Type, out.Error, out.Operation, out.Metadata = env.Type, env.Error, env.Operation, env.Metadata
	}
	return out, nil
}

// Run sends a request and waits until what it began has ended. An error is an [APIError] when the daemon said it.
func (w *World) Run(method, path string, body any, header ...string) (api.Operation, error) {
	var o api.Operation
	r, err := w.Do(method, path, body, header...)
	if err != nil {
		return o, err
	}
	if r.Code >= 400 {
		return o, APIError{Code: r.Code, Text: r.Error}
	}
	if r.Operation == "" {
		return o, nil
	}
	if r, err = w.Do("GET", r.Operation+"/wait?timeout=60", nil); err != nil {
		return o, err
	}
	if r.Code >= 400 {
		return o, APIError{Code: r.Code, Text: r.Error}
	}
	if err := json.Unmarshal(r.Metadata, &o); err != nil {
		return o, err
	}
	if o.StatusCode != api.Success {
		return o, APIError{Code: int(o.StatusCode), Text: o.Err}
	}
	return o, nil
}

// APIError is an answer of the daemon: a refused request, or an operation that did not succeed.
type APIError struct {
	Code int // HTTP status, or status of the operation
	Text string
}

// Error implements error.
func (e APIError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Text) }

// Refused tells whether the daemon answered with an error, in contrast to not answering.
func Refused(err error) bool {
	var e APIError
	return errors.As(err, &e)
}

// Get reads metadata of a GET into a value, or ends the test.
func (w *World) Get(t testing.TB, path string, into any) {
	t.Helper()
	r, err := w.Do("GET", path, nil)
	Must(t, err)
	if r.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, r.Code, r.Error)
	}
	Must(t, json.Unmarshal(r.Metadata, into))
}

// Eventually polls until ok, or ends the test.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}
