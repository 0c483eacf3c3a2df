package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// MaxJSON is the largest JSON body, in bytes; cloud-init data is what needs room.
const MaxJSON = 4 << 20

// request is a request with its common parameters parsed.
type request struct {
	*http.Request
	w   http.ResponseWriter
	svc *Services
	srv *Server
	who access.Caller

	query       url.Values
	project     api.ProjectName
	allProjects bool
	recursion   int
}

func (r *request) parseQuery() error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return errs.Invalid("Invalid query: %v", err)
	}
	r.query = q
	if r.project, err = api.ParseProjectName(q.Get("project")); err != nil {
		return err
	}
	r.allProjects = q.Get("all-projects") == "true" || q.Get("all-projects") == "1"
	if v := q.Get("recursion"); v != "" {
		if r.recursion, err = strconv.Atoi(v); err != nil || r.recursion < 0 || r.recursion > 2 {
			return errs.Invalid("Invalid recursion %q: allowed are 0, 1 and 2", v)
		}
	}
	if t := q.Get("target"); t != "" && t != "none" && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errs.Invalid("Target only allowed when clustered")
	}
	return nil
}

// mustExist is asked after the caller was found to see the project. Who changes something names one that exists; lists of an unknown one
// are empty, as clients expect.
func (r *request) mustExist() error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.svc.Projects != nil {
		return r.svc.Projects.Exists(r.project)
	}
	return nil
}

// decode reads a JSON body into v. Fields that v does not have are ignored: newer clients send them.
func (r *request) decode(v any) error {
	var body io.Reader = http.MaxBytesReader(r.w, r.Body, MaxJSON)
	if r.who.Kind == access.Restricted {
		doc, err := io.ReadAll(body)
		if err != nil {
			return bodyError(err)
		}
		if err := bodyProjects(r.who, bytes.NewReader(doc)); err != nil {
			return err
		}
		body = bytes.NewReader(doc)
	}
	dec := json.NewDecoder(body)
	if err := dec.Decode(v); err != nil {
		// The client reads the answer when it has sent everything; what is too large ends here all the same.
		_ = http.NewResponseController(r.w).SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, body)
		return bodyError(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		if err != nil {
			return bodyError(err)
		}
		return errs.Invalid("Invalid request: there is something behind the JSON value")
	}
	return nil
}

func bodyError(err error) error {
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return errs.TooLarge("Invalid request: the body is larger than %d bytes", big.Limit)
	case errors.Is(err, io.EOF):
		return errs.Invalid("Invalid request: the body is empty")
	}
	return errs.Classify(errs.InvalidInput, err)
}

// decodePatch fills cur, the present object, with what the body has: fields of structs that are absent stay, maps merge.
func (r *request) decodePatch(cur any) error { return r.decode(cur) }

// rawJSON is a value that is decoded later, perhaps more than once.
type rawJSON struct{ json.RawMessage }

// into fills cur with what the value has, as decodePatch does.
func (j rawJSON) into(cur any) error {
	if err := json.Unmarshal(j.RawMessage, cur); err != nil {
		return bodyError(err)
	}
	return nil
}

// changed is what a PUT, or with merge a PATCH, makes of the writable part cur of an object whose ETag is made of parts. It refuses when
// If-Match names another state. Rooms call it where they write, on what they replace.
func changed[T any](r *request, body rawJSON, merge bool, cur T, parts ...any) (T, error) {
	var next T
	if err := r.ifMatch(parts...); err != nil {
		return next, err
	}
	if merge {
		next = cur
	}
	err := body.into(&next)
	return next, err
}

// start runs an operation and answers 202.
func (r *request) start(spec op.Spec, err error) response {
	if err != nil {
		return fail(err)
	}
	o, err := r.svc.Operations.Start(r.Context(), spec)
	if err != nil {
		return fail(err)
	}
	project := spec.Project
	if project.IsZero() {
		project = api.DefaultProject
	}
	return &asyncResponse{o, project}
}

// done answers a synchronous mutation.
func done(err error) response {
	if err != nil {
		return fail(err)
	}
	return empty()
}

// header reads X-LXD-name or X-Incus-name.
func (r *request) header(name string) string {
	if v := r.Header.Get("X-LXD-" + name); v != "" {
		return v
	}
	return r.Header.Get("X-Incus-" + name)
}

// setHeader writes both forms of a header.
func setHeader(h http.Header, name, value string) {
	h.Set("X-LXD-"+name, value)
	h.Set("X-Incus-"+name, value)
}

// timeout reads ?timeout= in seconds; -1, also when absent, is for ever.
func (r *request) timeout() (time.Duration, error) {
	v := r.query.Get("timeout")
	if v == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < -1 || n > 1<<30 {
		return 0, errs.Invalid("Invalid timeout %q: seconds, or -1 to wait for ever", v)
	}
	if n == -1 {
		return -1, nil
	}
	return time.Duration(n) * time.Second, nil
}

// ifMatch compares the If-Match header, when there is one, with the ETag of the present object.
func (r *request) ifMatch(parts ...any) error {
	want := strings.Trim(r.Header.Get("If-Match"), `"`)
	if want == "" {
		return nil
	}
	if cur := etag(parts...); cur != want {
		return preconditionFailed(cur, want)
	}
	return nil
}

func preconditionFailed(current, given string) error {
	return errs.PreconditionFailed("ETag doesn't match: %s vs %s", current, given)
}

// etag is the SHA-256 of the JSON of an object's writable parts. encoding/json sorts map keys, so equal
// objects have equal tags.
func etag(parts ...any) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, p := range parts {
		_ = enc.Encode(p) // our own types always encode
	}
	return hex.EncodeToString(h.Sum(nil))
}

// withProject adds ?project= for every project but the default one.
func withProject(u string, p api.ProjectName) string {
	if p.IsZero() || p == api.DefaultProject {
		return u
	}
	return u + "?project=" + url.QueryEscape(p.String())
}

// listing answers a list: URLs without recursion, objects with it.
func listing[T any](r *request, items []T, urlOf func(T) string) response {
	if r.recursion == 0 {
		urls := make([]string, 0, len(items))
		for _, it := range items {
			urls = append(urls, urlOf(it))
		}
		return reply(urls)
	}
	if items == nil {
		items = []T{}
	}
	return reply(items)
}
