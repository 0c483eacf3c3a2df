package rest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/internal/rest"
)

// mayEnter says, for each class, which kinds of callers the gate lets through when they ask for something of project p1, to which the
// restricted one is limited.
var mayEnter = map[access.Class][]string{
	access.Admin:     {"unix", "full"},
	access.Host:      {"unix"},
	access.Anyone:    {"unix", "full", "restricted", "metrics", "untrusted"},
	access.Secret:    {"unix", "full", "restricted", "metrics", "untrusted"},
	access.Scrape:    {"unix", "full", "metrics"},
	access.Trusted:   {"unix", "full", "restricted"},
	access.InProject: {"unix", "full", "restricted"},
	access.Self:      {"unix", "full", "restricted"},
}

// TestEveryRouteOfEveryCaller asks for every method of every path as every kind of caller. A route without a line in the table of rules
// fails; so does a line without a route.
func TestEveryRouteOfEveryCaller(t *testing.T) {
	w := startTLS(t)
	for _, p := range []string{"p1", "secret"} {
		w.want(w.do("POST", "/1.0/projects", api.ProjectsPost{Name: p, ProjectPut: api.ProjectPut{Config: api.Config{"features.networks": "true"}}}), 201, "")
	}
	full := w.add(api.CertificatePut{Name: "full"})
	limited := w.add(api.CertificatePut{Name: "restricted", Restricted: true, Projects: []string{"p1"}})
	metrics := w.add(api.CertificatePut{Name: "metrics", Type: "metrics"})
	stranger := keypair(t, "untrusted")
	callers := map[string]*world{"unix": w.world, "full": w.as(&full), "restricted": w.as(&limited), "metrics": w.as(&metrics),
		"untrusted": w.as(&stranger), "without certificate": w.as(nil)}
	var paths []string
	for _, route := range w.srv.Routes() {
		paths = append(paths, route.Path)
		for _, method := range route.Methods {
			class := rest.ClassOf(route.Path, method)
			if class == access.Undeclared {
				t.Errorf("%s %s has no line in rules of access.go: who may do it?", method, route.Path)
				continue
			}
			if method == http.MethodPut && route.Path == "/internal/shutdown" {
				continue // asked below
			}
			for name, c := range callers {
				for _, project := range []string{"p1", "secret"} {
					url := fill(route.Path, project, fp(limited), method) + "?project=" + project
					if class == access.Secret {
						url += "&secret=x"
					}
					kind := strings.Replace(name, "without certificate", "untrusted", 1)
					want := slices.Contains(mayEnter[class], kind)
					if kind == "restricted" && class == access.InProject && project == "secret" {
						want = false
					}
					if kind == "restricted" && class == access.Self && method == http.MethodDelete {
						want = false // its own is not what is deleted here
					}
					a := c.do(method, url, bodyFor(method))
					if got := a.code != 403 || class == access.Secret; got != want && !(a.code == 404 && !want && route.ByPath) {
						t.Errorf("%s as %s (project %s): let through is %v, want %v: %d %s", method+" "+route.Path, name, project, got, want, a.code, a.Error)
					}
					if kind == "restricted" && want && project == "p1" && class == access.InProject && !route.Spans && method == "GET" && !route.ByPath {
						if a := c.do(method, url+"&all-projects=true", nil); a.code != 403 {
							t.Errorf("%s %s: a list over all projects is not filtered, and a restricted caller gets it: %d", method, route.Path, a.code)
						}
					}
				}
			}
		}
	}
	for _, p := range rest.RulePaths() {
		if !slices.Contains(paths, p) {
			t.Errorf("the table of rules has %s, which is no path of the API", p)
		}
	}
	for name, c := range callers {
		want := 403
		if name == "unix" {
			want = 200
		}
		if a := c.do("PUT", "/internal/shutdown", nil); a.code != want {
			t.Errorf("shutdown as %s: %d, want %d", name, a.code, want)
		}
	}
}

// bodyFor never changes anything: it is not JSON.
func bodyFor(method string) any {
	if method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete {
		return nil
	}
	return "no JSON"
}

// fill gives the wildcards of a path values: the project where it names one, else something that is not there; a certificate is
// the restricted caller's own, unless it would be deleted.
func fill(path, project, own, method string) string {
	path = strings.ReplaceAll(path, "{$}", "")
	if strings.HasPrefix(path, "/1.0/projects/") {
		if method == http.MethodDelete {
			project = "nope"
		}
		path = strings.ReplaceAll(path, "{name}", project)
	}
	if strings.HasPrefix(path, "/1.0/certificates/") {
		if method == http.MethodDelete {
			own = strings.Repeat("0", 64)
		}
		path = strings.ReplaceAll(path, "{fingerprint}", own)
	}
	for strings.Contains(path, "{") {
		i, j := strings.Index(path, "{"), strings.Index(path, "}")
		path = path[:i] + "zz" + path[j+1:]
	}
	return path
}

// TestARestrictedCallerSeesItsProjectsOnly plants an object of every kind that can be made here in a project that is hidden, and looks for its name
// in every reply.
func TestARestrictedCallerSeesItsProjectsOnly(t *testing.T) {
	base := withInstances(t)
	svc := *base.svc
	w := overTLS(t, base, svc)
	for _, p := range []string{"p1", "hidden"} {
		w.want(w.do("POST", "/1.0/projects", api.ProjectsPost{Name: p}), 201, "")
		w.want(w.do("POST", "/1.0/profiles?project="+p, fmt.Sprintf(`{"name":"%s-profile"}`, p)), 201, "")
	}
	c := w.add(api.CertificatePut{Name: "c", Restricted: true, Projects: []string{"p1"}})
	me := w.as(&c)
	for _, route := range w.srv.Routes() {
		if !slices.Contains(route.Methods, "GET") || strings.HasSuffix(route.Path, "/events") || route.Path == "/1.0" {
			continue // GET /1.0 repeats the name that was asked for
		}
		for _, q := range []string{"?recursion=1", "?recursion=1&project=p1", "?recursion=1&project=hidden", "?recursion=1&all-projects=true"} {
			for _, name := range []string{"zz", "hidden-profile"} {
				url := strings.ReplaceAll(fill(route.Path, "hidden", fp(c), "GET"), "zz", name) + q
				a := me.do("GET", url, nil)
				if a.code < 300 && strings.Contains(string(a.raw), "hidden") {
					t.Errorf("GET %s shows what is hidden: %s", url, a.raw)
				}
			}
		}
	}
	// What is hidden and what does not exist look the same.
	for _, path := range []string{"/1.0/projects/%s", "/1.0/profiles?project=%s", "/1.0/instances?project=%s", "/1.0/instances/x?project=%s"} {
		a, b := me.do("GET", fmt.Sprintf(path, "hidden"), nil), me.do("GET", fmt.Sprintf(path, "nowhere"), nil)
		if a.code != b.code || string(a.raw) != string(b.raw) {
			t.Errorf("%s: hidden is %d %s, absent is %d %s", path, a.code, a.raw, b.code, b.raw)
		}
	}
	var names []string
	me.do("GET", "/1.0/projects", nil).into(t, &names)
	if len(names) != 1 || names[0] != "/1.0/projects/p1" {
		t.Errorf("projects: %v", names)
	}
	var srv api.Server
	me.do("GET", "/1.0", nil).into(t, &srv)
	if srv.Auth != "trusted" || len(srv.Config) != 0 {
		t.Errorf("server: auth %q, config %v", srv.Auth, srv.Config)
	}
	// Its own project it may change, others neither by the query nor in a body.
	w.want(me.do("POST", "/1.0/profiles?project=p1", `{"name":"mine"}`), 201, "")
	w.want(me.do("POST", "/1.0/profiles?project=hidden", `{"name":"mine"}`), 403, "not authorized")
	w.want(me.do("POST", "/1.0/profiles", `{"name":"mine"}`), 403, "not authorized")
	w.want(me.do("POST", "/1.0/instances?project=p1", `{"name":"c","source":{"type":"copy","source":"x","project":"hidden"}}`), 403, "not authorized")
	w.want(me.do("POST", "/1.0/instances?project=p1", `{"name":"c","source":{"Project":"hidden","type":"copy","source":"x"},"source":{}}`), 403, "not authorized")
	w.want(me.do("PUT", "/1.0/projects/p1", `{"config":{}}`), 403, "not authorized")
}

// TestWhatIsBorrowedIsNotChanged: a project without profiles of its own uses those of the default project.
func TestWhatIsBorrowedIsNotChanged(t *testing.T) {
	base := withInstances(t)
	w := overTLS(t, base, *base.svc)
	w.want(w.do("POST", "/1.0/projects", api.ProjectsPost{Name: "p1", ProjectPut: api.ProjectPut{Config: api.Config{"features.profiles": "false"}}}), 201, "")
	c := w.add(api.CertificatePut{Name: "c", Restricted: true, Projects: []string{"p1"}})
	me := w.as(&c)
	w.want(me.do("GET", "/1.0/profiles/default?project=p1", nil), 200, "")
	w.want(me.do("PATCH", "/1.0/profiles/default?project=p1", `{"config":{"user.a":"1"}}`), 403, "not authorized")
	w.want(w.do("PATCH", "/1.0/certificates/"+fp(c), `{"projects":["p1","default"]}`), 200, "")
	w.want(me.do("PATCH", "/1.0/profiles/default?project=p1", `{"config":{"user.a":"1"}}`), 200, "")
}

func FuzzBodyProjects(f *testing.F) {
	for _, s := range []string{`{"project":"hidden"}`, `{"a":[{"project":"p1"}]}`, `{"project":{"project":"hidden"}}`, `[`, `{"PROJECT":"hidden"`, `"project"`, `{"a":"project","b":"hidden"}`} {
		f.Add(s)
	}
	who := access.Caller{Kind: access.Restricted, Projects: []string{"p1"}}
	f.Fuzz(func(t *testing.T, s string) {
		_ = rest.BodyProjects(who, strings.NewReader(s))
		// Whatever stands before it: a project that is hidden is found.
		if err := rest.BodyProjects(who, strings.NewReader(`{"a":`+quote(s)+`,"pRoject":"hidden"}`)); err == nil {
			t.Errorf("%q hides a project", s)
		}
	})
}

func quote(s string) string {
	return fmt.Sprintf("%q", strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s), ""))
}
