package rest_test

import (
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
)

func TestProjectsOverHTTP(t *testing.T) {
	w := notReady(t)
	svc := w.services()
	svc.Networks = &nets{put: api.NetworkPut{Config: api.Config{"ipv4.nat": "true"}}}
	w.srv.SetReady(svc)
	w.want(w.do("POST", "/1.0/projects", `{"name":"p","config":{"limits.instances":"3","restricted":"true"}}`), 201, "")

	var st api.ProjectState
	w.do("GET", "/1.0/projects/p/state", nil).into(t, &st)
	if st.Resources["instances"] != (api.ProjectStateResource{Limit: 3}) || st.Resources["memory"].Limit != -1 {
		t.Errorf("got %+v", st)
	}
	w.want(w.do("GET", "/1.0/projects/nope/state", nil), 404, "Project not found")

	// The tag of what was replaced no longer matches, with the body that would have been fine.
	a := w.do("GET", "/1.0/projects/p", nil)
	tag := a.header.Get("ETag")
	w.want(w.do("PATCH", "/1.0/projects/p", `{"description":"d"}`, "If-Match", tag), 200, "")
	w.want(w.do("PUT", "/1.0/projects/p", `{"description":"e"}`, "If-Match", tag), 412, "")
	var p api.Project
	w.do("GET", "/1.0/projects/p", nil).into(t, &p)
	if p.Description != "d" || p.Config["limits.instances"] != "3" {
		t.Errorf("got %+v", p)
	}
	for body, word := range map[string]string{
		`{"config":{"limits.memory":"much"}}`:                 "limits.memory",
		`{"config":{"restricted.devices.disk":"sometimes"}}`:  "managed, block, allow",
		`{"config":{"limits.nothing":"1"}}`:                   "limits.nothing",
		`{"config":{"restricted.devices.disk.paths":"../x"}}`: "restricted.devices.disk.paths",
	} {
		if a := w.do("PATCH", "/1.0/projects/p", body); a.code != 400 || !strings.Contains(a.Error, word) {
			t.Errorf("%s: %d %q", body, a.code, a.Error)
		}
	}

	// Networks that the project may not use do not exist for it.
	w.want(w.do("GET", "/1.0/networks/br0?project=p", nil), 200, "")
	w.want(w.do("PATCH", "/1.0/projects/p", `{"config":{"restricted.networks.access":"br9"}}`), 200, "")
	w.want(w.do("GET", "/1.0/networks/br0?project=p", nil), 404, "Network not found")
	w.want(w.do("GET", "/1.0/networks/br0/state?project=p", nil), 404, "Network not found")
	var list []string
	w.do("GET", "/1.0/networks?project=p", nil).into(t, &list)
	if len(list) != 0 {
		t.Errorf("got %v", list)
	}

	if a := w.do("POST", "/1.0/projects/p", `{"name":"q"}`); a.code != 202 {
		t.Fatalf("rename: %d %s", a.code, a.raw)
	} else {
		w.want(w.do("GET", a.Operation+"/wait", nil), 200, "")
	}
	w.want(w.do("GET", "/1.0/projects/p", nil), 404, "Project not found")
	w.want(w.do("GET", "/1.0/projects/q", nil), 200, "")
}
