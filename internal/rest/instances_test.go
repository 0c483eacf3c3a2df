package rest_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/instancetest"
)

// withInstances is a server with the real instance service on a machine of doubles.
func withInstances(t *testing.T) *world {
	t.Helper()
	iw := instancetest.New(t)
	w := notReady(t)
	svc := w.services()
	svc.Instances, svc.Profiles = iw.Service, iw.Profiles
	w.svc = &svc
	w.srv.SetReady(svc)
	return w
}

// finish waits for an operation that was answered with 202 and returns it.
func (w *world) finish(a answer) api.Operation {
	w.t.Helper()
	if a.code != http.StatusAccepted || !strings.HasPrefix(a.header.Get("Location"), a.Operation) || a.Operation == "" {
		w.t.Fatalf("got %d %s", a.code, a.raw)
	}
	var o api.Operation
	w.do("GET", a.Operation+"/wait?timeout=30", nil).into(w.t, &o)
	return o
}

func (w *world) succeed(a answer) api.Operation {
	w.t.Helper()
	o := w.finish(a)
	if o.StatusCode != api.Success {
		w.t.Fatalf("%s: %s %s", o.Description, o.Status, o.Err)
	}
	return o
}

const create = `{"name":"c1","source":{"type":"image","alias":"img"},"devices":{},"profiles":null,"target":null}`

// started makes c1 and starts it.
func (w *world) started() {
	w.t.Helper()
	w.succeed(w.do("POST", "/1.0/instances", create))
	w.succeed(w.do("PUT", "/1.0/instances/c1/state", `{"action":"start","timeout":-1}`))
}

func TestInstanceLifeOverHTTP(t *testing.T) {
	w := withInstances(t)
	o := w.succeed(w.do("POST", "/1.0/instances", create))
	if o.Description != "Creating instance" || len(o.Resources["instances"]) != 1 || o.Resources["instances"][0] != "/1.0/instances/c1" {
		t.Errorf("operation %+v", o)
	}
	w.want(w.do("POST", "/1.0/instances", create), 409, `Instance "c1" already exists`)
	w.want(w.do("GET", "/1.0/instances/zz", nil), 404, "Instance not found")
	w.want(w.do("PUT", "/1.0/instances/zz/state", `{"action":"start"}`), 404, "Instance not found")
	w.want(w.do("POST", "/1.0/instances", `{"name":"1x","source":{"type":"none"}}`), 400, "Invalid instance name: Name must not start with a number")
	w.want(w.do("POST", "/1.0/instances", `{"name":"c2","source":{"type":"weird"}}`), 400, "Unknown source type weird")
	w.want(w.do("POST", "/1.0/instances?target=n9", create), 400, "Target only allowed when clustered")

	w.succeed(w.do("PUT", "/1.0/instances", `{"state":{"action":"start"}}`))
	var full api.InstanceFull
	a := w.do("GET", "/1.0/instances/c1?recursion=1", nil)
	a.into(t, &full)
	if full.Status != "Running" || full.StatusCode != 103 || full.State == nil || full.State.Pid == 0 || full.State.CPU.Usage == 0 ||
		full.LastUsedAt.Year() < 2000 || full.Location != "none" || full.Type != "container" || full.Project != "default" {
		t.Errorf("got %s", a.raw)
	}
	var list []api.InstanceFull
	w.do("GET", "/1.0/instances?filter=&recursion=2", nil).into(t, &list)
	if len(list) != 1 || list[0].State == nil || list[0].Name != "c1" {
		t.Errorf("got %+v", list)
	}
	var st api.InstanceState
	w.do("GET", "/1.0/instances/c1/state", nil).into(t, &st)
	if st.Status != "Running" {
		t.Errorf("got %+v", st)
	}

	one := w.do("GET", "/1.0/instances/c1", nil)
	tag := one.header.Get("ETag")
	var inst api.Instance
	one.into(t, &inst)
	inst.Config["user.a"] = "b"
	w.succeed(w.do("PUT", "/1.0/instances/c1", inst.InstancePut, "If-Match", tag))
	w.want(w.do("PUT", "/1.0/instances/c1", inst.InstancePut, "If-Match", tag), 412, "")
	w.want(w.do("PATCH", "/1.0/instances/c1", `{"config":{"user.c":"d"}}`), 200, "")
	w.do("GET", "/1.0/instances/c1", nil).into(t, &inst)
	if inst.Config["user.a"] != "b" || inst.Config["user.c"] != "d" || len(inst.Profiles) != 1 {
		t.Errorf("got %+v", inst)
	}
	w.finish(w.do("PUT", "/1.0/instances/c1/state", `{"action":"stop","force":true}`))
	w.succeed(w.do("POST", "/1.0/instances/c1", `{"name":"c2"}`))
	w.succeed(w.do("DELETE", "/1.0/instances/c2", nil))
	var urls []string
	w.do("GET", "/1.0/instances", nil).into(t, &urls)
	if len(urls) != 0 {
		t.Errorf("left: %v", urls)
	}
}

func TestInstanceListsFilterAndSpanProjects(t *testing.T) {
	w := withInstances(t)
	w.want(w.do("POST", "/1.0/projects", `{"name":"foo","config":{"features.profiles":"false","features.images":"false"}}`), 201, "")
	w.succeed(w.do("POST", "/1.0/instances", create))
	w.succeed(w.do("POST", "/1.0/instances", strings.Replace(create, "c1", "web", 1)))
	for query, want := range map[string]string{
		"":                             "/1.0/instances/c1 /1.0/instances/web",
		"?filter=name+eq+web":          "/1.0/instances/web",
		"?filter=status+eq+Stopped":    "/1.0/instances/c1 /1.0/instances/web",
		"?filter=config.image.os+eq+x": "",
		"?project=foo":                 "",
		"?project=nowhere":             "",
		"?target=n9":                   "/1.0/instances/c1 /1.0/instances/web",
		"?all-projects=true":           "/1.0/instances/c1 /1.0/instances/web",
	} {
		var urls []string
		w.do("GET", "/1.0/instances"+query, nil).into(t, &urls)
		if got := strings.Join(urls, " "); got != want {
			t.Errorf("%q: got %q, want %q", query, got, want)
		}
	}
	w.want(w.do("GET", "/1.0/instances?filter=bad+x", nil), 400, "Invalid filter: clause has no value")
	var old []string
	w.do("GET", "/1.0/containers", nil).into(t, &old)
	if len(old) != 2 || old[0] != "/1.0/containers/c1" {
		t.Errorf("the old path lists %v", old)
	}
	w.do("GET", "/1.0/virtual-machines", nil).into(t, &old)
	if len(old) != 0 {
		t.Errorf("containers are listed as virtual machines: %v", old)
	}
}

// exec runs a command as `lxc exec` does without a terminal and returns its output and the operation.
func (w *world) exec(body string, stdin string) (stdout, stderr string, o api.Operation) {
	w.t.Helper()
	a := w.do("POST", "/1.0/instances/c1/exec", body)
	if a.code != 202 {
		w.t.Fatalf("exec: %s", a.raw)
	}
	var op api.Operation
	a.into(w.t, &op)
	fds := op.Metadata["fds"].(map[string]any)
	url := func(fd string) string { return a.Operation + "/websocket?secret=" + fds[fd].(string) }
	w.dial(url("control"))
	in, out, errOut := w.dial(url("0")), w.dial(url("1")), w.dial(url("2"))
	_ = in.Write(w.t.Context(), websocket.MessageBinary, []byte(stdin))
	_ = in.Write(w.t.Context(), websocket.MessageText, nil)
	read := func(c *websocket.Conn) string {
		var b bytes.Buffer
		for {
			kind, p := next(w.t, c)
			if kind == websocket.MessageText {
				return b.String()
			}
			b.Write(p)
		}
	}
	stdout, stderr = read(out), read(errOut)
	return stdout, stderr, w.finish(a)
}

func TestExecOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.started()
	out, errOut, o := w.exec(`{"command":["sh","-c","echo out; echo err >&2; exit 7"],"wait-for-websocket":true,"environment":{"TERM":"xterm"}}`, "")
	if out != "out\n" || errOut != "err\n" || o.Metadata["return"] != float64(7) {
		t.Errorf("got %q %q %+v", out, errOut, o)
	}
	if out, _, _ := w.exec(`{"command":["cat"],"wait-for-websocket":true}`, "through stdin"); out != "through stdin" {
		t.Errorf("cat gave %q", out)
	}
	if out, _, _ := w.exec(`{"command":["id"],"wait-for-websocket":true,"user":1000,"group":100}`, ""); !strings.Contains(out, "1000") {
		t.Errorf("id gave %q", out)
	}
	if out, _, _ := w.exec(`{"command":["pwd"],"wait-for-websocket":true,"cwd":"/srv"}`, ""); strings.TrimSpace(out) != "/srv" {
		t.Errorf("pwd gave %q", out)
	}

	// A signal through the control socket ends a command.
	a := w.do("POST", "/1.0/instances/c1/exec", `{"command":["sleep","1000"],"wait-for-websocket":true,"interactive":true,"width":80,"height":24}`)
	var op api.Operation
	a.into(t, &op)
	fds := op.Metadata["fds"].(map[string]any)
	control := w.dial(a.Operation + "/websocket?secret=" + fds["control"].(string))
	w.dial(a.Operation + "/websocket?secret=" + fds["0"].(string))
	for _, frame := range []string{`{"command":"window-resize","args":{"width":"100","height":"30"}}`, `{"command":"signal","signal":15}`} {
		if err := control.Write(t.Context(), websocket.MessageText, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	if o := w.finish(a); o.Metadata["return"] != float64(128+15) {
		t.Errorf("got %+v", o)
	}
	w.want(w.do("POST", "/1.0/instances/zz/exec", `{"command":["true"]}`), 404, "Instance not found")
}

func TestConsoleOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.want(w.do("POST", "/1.0/instances", `{"name":"c0","source":{"type":"none"}}`), 202, "")
	w.started()
	a := w.do("POST", "/1.0/instances/c1/console", `{"width":80,"height":24,"type":"console"}`)
	var op api.Operation
	a.into(t, &op)
	fds := op.Metadata["fds"].(map[string]any)
	w.dial(a.Operation + "/websocket?secret=" + fds["control"].(string))
	c := w.dial(a.Operation + "/websocket?secret=" + fds["0"].(string))
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("x\r")); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseNow()
	w.finish(a)
	if log := w.do("GET", "/1.0/instances/c1/console", nil); log.code != 200 || !bytes.Contains(log.raw, []byte("shoal-test-ready")) {
		t.Errorf("log: %d %q", log.code, log.raw)
	}
	w.want(w.do("DELETE", "/1.0/instances/c1/console", nil), 200, "")
	w.want(w.do("POST", "/1.0/instances/c1/console", `{"type":"hologram"}`), 400, `Unknown console type "hologram"`)
}

func TestFilesOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.started()
	const files = "/1.0/instances/c1/files?path="
	w.do("POST", files+"/dir", nil, "X-LXD-type", "directory") // the fake guest makes it and refuses its mode
	w.want(w.do("POST", files+"/dir", nil, "X-LXD-type", "directory"), 200, "")
	w.want(w.do("POST", files+"dir/f", "hello ", "X-Incus-type", "file"), 200, "")
	w.want(w.do("POST", files+"/dir/f", "world", "X-LXD-write", "append"), 200, "")
	w.want(w.do("POST", files+"/dir/link", "f", "X-LXD-type", "symlink"), 200, "")

	a := w.do("GET", files+"/dir/../dir/f", nil)
	if a.code != 200 || string(a.raw) != "hello world" {
		t.Errorf("got %d %q", a.code, a.raw)
	}
	// What owner and mode a guest keeps is shown with a real guest; here, that both spellings are sent.
	for _, k := range []string{"Type", "Mode", "Uid", "Gid", "Modified"} {
		if lxd, incus := a.header.Get("X-LXD-"+k), a.header.Get("X-Incus-"+k); lxd == "" || lxd != incus {
			t.Errorf("%s: %q and %q", k, lxd, incus)
		}
	}
	if a := w.do("HEAD", files+"/dir/f", nil); a.code != 200 || len(a.raw) != 0 || a.header.Get("X-LXD-type") != "file" {
		t.Errorf("HEAD: %d %q %v", a.code, a.raw, a.header)
	}
	if a := w.do("GET", files+"/dir/link", nil); string(a.raw) != "f" || a.header.Get("X-LXD-type") != "symlink" {
		t.Errorf("link: %q %v", a.raw, a.header)
	}
	a = w.do("GET", files+"/dir", nil)
	var names []string
	a.into(t, &names)
	if strings.Join(names, " ") != "f link" || a.header.Get("X-LXD-type") != "directory" {
		t.Errorf("directory: %s %v", a.raw, a.header)
	}
	for name, bad := range map[string][]string{
		"type": {"X-LXD-type", "fifo"}, "mode": {"X-LXD-mode", "99"}, "large mode": {"X-LXD-mode", "17777"},
		"uid": {"X-LXD-uid", "-1"}, "write": {"X-LXD-write", "insert"},
	} {
		if a := w.do("POST", files+"/bad", "x", bad...); a.code != 400 {
			t.Errorf("bad %s: %d %s", name, a.code, a.raw)
		}
	}
	w.want(w.do("GET", files+"/bad", nil), 404, "")
	w.want(w.do("GET", "/1.0/instances/c1/files", nil), 400, "missing path argument")
	w.want(w.do("DELETE", files+"/dir/f", nil), 200, "")
	w.want(w.do("GET", files+"/dir/f", nil), 404, "")
}

func TestProfilesOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.succeed(w.do("POST", "/1.0/instances", create))
	a := w.do("POST", "/1.0/profiles", `{"name":"p","description":"d","config":{"user.a":"1"}}`)
	if a.code != 201 || a.header.Get("Location") != "/1.0/profiles/p" {
		t.Errorf("got %d %s", a.code, a.raw)
	}
	w.want(w.do("GET", "/1.0/profiles/abc", nil), 404, "")
	w.want(w.do("DELETE", "/1.0/profiles/default", nil), 403, `The "default" profile cannot be deleted`)
	w.want(w.do("PUT", "/1.0/profiles/p", `{"config":{"nope":"1"}}`), 400, "")
	tag := w.do("GET", "/1.0/profiles/p", nil).header.Get("ETag")
	w.want(w.do("PATCH", "/1.0/profiles/p", `{"config":{"user.b":"2"}}`), 200, "")
	w.want(w.do("PUT", "/1.0/profiles/p", `{}`, "If-Match", tag), 412, "")
	var p api.Profile
	w.do("GET", "/1.0/profiles/p", nil).into(t, &p)
	if p.Description != "d" || p.Config["user.a"] != "1" || p.Config["user.b"] != "2" {
		t.Errorf("got %+v", p)
	}
	w.want(w.do("POST", "/1.0/profiles/p", `{"name":"q"}`), 201, "")
	w.want(w.do("DELETE", "/1.0/profiles/q", nil), 200, "")
	var d api.Profile
	w.do("GET", "/1.0/profiles/default", nil).into(t, &d)
	if len(d.UsedBy) != 1 || d.UsedBy[0] != "/1.0/instances/c1" {
		t.Errorf("used by %v", d.UsedBy)
	}
	w.want(w.do("DELETE", "/1.0/profiles/default", nil), 403, "")
}

func TestWarningsOverHTTP(t *testing.T) {
	w := notReady(t)
	svc := w.services()
	svc.Warnings = func() []api.Warning { return []api.Warning{{UUID: "u1", Type: "Something", Severity: "low"}} }
	w.srv.SetReady(svc)
	var urls []string
	w.do("GET", "/1.0/warnings", nil).into(t, &urls)
	var one api.Warning
	w.do("GET", urls[0], nil).into(t, &one)
	if urls[0] != "/1.0/warnings/u1" || one.Type != "Something" {
		t.Errorf("got %v %+v", urls, one)
	}
	w.want(w.do("GET", "/1.0/warnings/u2", nil), 404, "Warning not found")
}
