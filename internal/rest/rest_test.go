package rest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
)

func TestAnswersOfTheEnvelope(t *testing.T) {
	w := start(t)
	if a := w.do("GET", "/", nil); string(a.raw) != `{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":["/1.0"]}`+"\n" {
		t.Errorf("GET /: %s", a.raw)
	}
	a := w.do("POST", "/1.0/projects", api.ProjectsPost{Name: "foo"})
	if a.code != 201 || a.header.Get("Location") != "/1.0/projects/foo" || string(a.Metadata) != "null" {
		t.Errorf("create: %d %v %s", a.code, a.header, a.raw)
	}
	if a := w.do("DELETE", "/1.0/projects/foo", nil); a.code != 200 || string(a.Metadata) != "{}" {
		t.Errorf("delete: %s", a.raw)
	}
	if a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", a.header)
	}
}

func TestErrorsAsClientsKnowThem(t *testing.T) {
	w := start(t)
	deep := strings.Repeat(`{"config":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	for name, c := range map[string]struct {
		method, path string
		body         any
		code         int
		text         string
	}{
		"unknown path":               {"GET", "/1.0/nope", nil, 404, "not found"},
		"path above the API":         {"GET", "/nope", nil, 404, "not found"},
		"doubled slash":              {"GET", "/1.0//projects", nil, 404, "not found"},
		"trailing slash":             {"GET", "/1.0/projects/", nil, 404, "not found"},
		"method that is not there":   {"POST", "/1.0/operations", nil, 501, "not implemented"},
		"service that is not there":  {"GET", "/1.0/networks", nil, 501, "not implemented"},
		"bad JSON":                   {"POST", "/1.0/projects", "{bad", 400, "invalid character 'b' looking for beginning of object key string"},
		"no body":                    {"POST", "/1.0/projects", nil, 400, "Invalid request: the body is empty"},
		"two values":                 {"POST", "/1.0/projects", `{"name":"a"} {"name":"b"}`, 400, ""},
		"wrong type":                 {"POST", "/1.0/projects", `{"name":7}`, 400, ""},
		"100000 levels deep":         {"PUT", "/1.0", deep, 400, ""},
		"too large":                  {"PUT", "/1.0", `{"config":{"user.a":"` + strings.Repeat("x", 5<<20) + `"}}`, 413, ""},
		"project with a space":       {"POST", "/1.0/projects", `{"name":"a b"}`, 400, "Project names may not contain spaces"},
		"no such project":            {"GET", "/1.0/projects/abc", nil, 404, "Project not found"},
		"mutation in no project":     {"POST", "/1.0/projects?project=zz", `{"name":"a"}`, 404, "Project not found"},
		"bad project":                {"GET", "/1.0?project=../x", nil, 400, ""},
		"delete the default project": {"DELETE", "/1.0/projects/default", nil, 403, "The 'default' project cannot be deleted"},
		"no such operation":          {"GET", "/1.0/operations/abc", nil, 404, "Operation not found"},
		"unknown key":                {"PUT", "/1.0", `{"config":{"foo.bar":"x"}}`, 400, "cannot set 'foo.bar' to 'x': unknown key"},
		"target":                     {"PUT", "/1.0?target=n9", `{}`, 400, "Target only allowed when clustered"},
		"recursion":                  {"GET", "/1.0/projects?recursion=x", nil, 400, ""},
		"query":                      {"GET", "/1.0/projects?a=%zz", nil, 400, ""},
		"members without a cluster":  {"GET", "/1.0/cluster/members", nil, 400, "Server is not clustered"},
		"wait with a bad timeout":    {"GET", "/1.0/operations/x/wait?timeout=soon", nil, 400, ""},
		"websocket without secret":   {"GET", "/1.0/operations/x/websocket", nil, 400, "missing secret"},
		"event type":                 {"GET", "/1.0/events?type=gossip", nil, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(c.method, c.path, c.body)
			if a.code != c.code || a.ErrorCode != c.code || a.Type != "error" || a.Error == "" || (c.text != "" && a.Error != c.text) {
				t.Errorf("got %d %s", a.code, a.raw)
			}
		})
	}
}

func TestUnknownFieldsAndTargetNoneAreTolerated(t *testing.T) {
	w := start(t)
	w.want(w.do("PUT", "/1.0?target=none", `{"config":{"user.a":"b"},"from_the_future":true}`), 200, "")
	w.want(w.do("GET", "/1.0?target=n9", nil), 200, "")
}

func TestRecursion(t *testing.T) {
	w := start(t)
	var urls []string
	w.do("GET", "/1.0/projects", nil).into(t, &urls)
	if len(urls) != 1 || urls[0] != "/1.0/projects/default" {
		t.Errorf("got %v", urls)
	}
	var full []api.Project
	w.do("GET", "/1.0/projects?recursion=1", nil).into(t, &full)
	if len(full) != 1 || full[0].Name != "default" {
		t.Errorf("got %v", full)
	}
}

func TestETag(t *testing.T) {
	w := start(t)
	tag := w.do("GET", "/1.0", nil).header.Get("ETag")
	if len(tag) != 66 {
		t.Fatalf("ETag %q", tag)
	}
	w.want(w.do("PUT", "/1.0", `{"config":{"user.a":"1"}}`, "If-Match", tag), 200, "")
	a := w.do("PUT", "/1.0", `{"config":{"user.a":"2"}}`, "If-Match", tag)
	now := strings.Trim(w.do("GET", "/1.0", nil).header.Get("ETag"), `"`)
	w.want(a, http.StatusPreconditionFailed, "ETag doesn't match: "+now+" vs "+strings.Trim(tag, `"`))
	w.want(w.do("PATCH", "/1.0", `{"config":{"user.b":"2"}}`), 200, "")
	var s api.Server
	w.do("GET", "/1.0", nil).into(t, &s)
	if s.Config["user.a"] != "1" || s.Config["user.b"] != "2" {
		t.Errorf("config %v", s.Config)
	}
}

func TestPatchKeepsWhatItDoesNotName(t *testing.T) {
	w := start(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"foo","description":"d","config":{"user.a":"1"}}`), 201, "")
	w.want(w.do("PATCH", "/1.0/projects/foo", `{"config":{"user.b":"2"}}`), 200, "")
	var p api.Project
	w.do("GET", "/1.0/projects/foo", nil).into(t, &p)
	if p.Description != "d" || p.Config["user.a"] != "1" || p.Config["user.b"] != "2" {
		t.Errorf("got %+v", p)
	}
}

func TestNotReadyAndStopping(t *testing.T) {
	w := notReady(t)
	for _, path := range []string{"/1.0", "/1.0/instances", "/1.0/operations", "/internal/ready", "/1.0/events"} {
		w.want(w.do("GET", path, nil), 503, "LXD daemon setup in progress")
	}
	w.want(w.do("GET", "/", nil), 200, "")
	w.want(w.do("GET", "/1.0/nope", nil), 404, "not found")
	w.srv.SetReady(w.services())
	w.want(w.do("GET", "/internal/ready", nil), 200, "")
	w.want(w.do("GET", "/1.0", nil), 200, "")
	w.srv.SetStopping()
	w.want(w.do("GET", "/1.0/projects", nil), 503, "LXD is shutting down")
	w.want(w.do("PUT", "/internal/shutdown?force=1&timeout=3", nil), 200, "")
	w.want(w.do("PUT", "/internal/shutdown", nil), 200, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.shutdown) != 1 || !w.shutdown[0] {
		t.Errorf("shutdown was asked for %v", w.shutdown)
	}
}
