package rest

import (
	"encoding/json"
	"net/http"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// response is what a handler returns.
type response interface {
	write(w http.ResponseWriter, r *http.Request)
}

type syncResponse struct {
	metadata any
	etag     string
	location string // set: 201 with metadata null
}

// reply answers with an object; etagParts, if any, are the writable parts that make its ETag.
func reply(metadata any, etagParts ...any) response {
	r := &syncResponse{metadata: metadata}
	if len(etagParts) > 0 {
		r.etag = etag(etagParts...)
	}
	return r
}

// empty is the answer of a mutation that has nothing to say.
func empty() response { return &syncResponse{metadata: map[string]any{}} }

// created answers 201 with the new object's URL.
func created(location string) response { return &syncResponse{location: location} }

func (s *syncResponse) write(w http.ResponseWriter, r *http.Request) {
	code := http.StatusOK
	if s.etag != "" {
		w.Header().Set("ETag", `"`+s.etag+`"`)
	}
	if s.location != "" {
		w.Header().Set("Location", s.location)
		code = http.StatusCreated
	}
	writeJSON(w, r, code, envelope{Type: "sync", Status: "Success", StatusCode: 200, Metadata: s.metadata})
}

type asyncResponse struct {
	op      api.Operation
	project api.ProjectName
}

func (a *asyncResponse) write(w http.ResponseWriter, r *http.Request) {
	url := "/1.0/operations/" + a.op.ID
	w.Header().Set("Location", withProject(url, a.project))
	writeJSON(w, r, http.StatusAccepted, envelope{Type: "async", Status: api.OperationCreated.String(),
		StatusCode: int(api.OperationCreated), Operation: url, Metadata: a.op})
}

type errorResponse struct{ err error }

// fail answers with the status of the error's class and the error's text.
func fail(err error) response { return &errorResponse{err} }

func (e *errorResponse) write(w http.ResponseWriter, r *http.Request) {
	code := statusOf(e.err)
	writeJSON(w, r, code, envelope{Type: "error", ErrorCode: code, Error: e.err.Error()})
}

func statusOf(err error) int {
	if c, ok := err.(interface{ HTTPStatus() int }); ok {
		return c.HTTPStatus()
	}
	return errs.HTTPStatus(errs.ClassOf(err))
}

// stream answers by itself.
type stream func(w http.ResponseWriter, r *http.Request)

func (s stream) write(w http.ResponseWriter, r *http.Request) { s(w, r) }

// envelope is api.Response with metadata that is not encoded yet.
type envelope struct {
	Type       string `json:"type"`
	Status     string `json:"status"`
	StatusCode int    `json:"status_code"`
	Operation  string `json:"operation"`
	ErrorCode  int    `json:"error_code"`
	Error      string `json:"error"`
	Metadata   any    `json:"metadata"`
}

func writeJSON(w http.ResponseWriter, r *http.Request, code int, e envelope) {
	body, err := json.Marshal(e)
	if err != nil {
		code = http.StatusInternalServerError
		body = []byte(`{"type":"error","status":"","status_code":0,"operation":"","error_code":500,"error":"the answer cannot be encoded","metadata":null}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n')) // a client that has gone is not an error
	}
}
