package fault_test

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/harness"
)

// wantRefused fails the test unless the answer is an error of the given status whose text is a sentence about the input.
func wantRefused(t *testing.T, r harness.Reply, err error, code int, says string) {
	t.Helper()
	switch {
	case err != nil:
		t.Errorf("no answer: %v", err)
	case r.Code != code || r.Type != "error":
		t.Errorf("got %d %s %q, want %d", r.Code, r.Type, r.Error, code)
	case r.Error == "" || !strings.Contains(r.Error, says):
		t.Errorf("the text %q does not say %q", r.Error, says)
	case len(r.Error) > 600:
		t.Errorf("the text has %d bytes", len(r.Error))
	}
}

// badNames are not the name of anything.
var badNames = map[string]string{
	"parent": "..", "here": ".", "path": "a/b", "path in a path": "../../etc/passwd", "absolute": "/etc", "escaped slash": "a%2Fb", "hyphen first": "-x",
	"64 characters": strings.Repeat("a", 64), "newline": "c1\n", "newline inside": "c1\nc2", "NUL": "c1\x00", "space": "c 1", "look-alike": "с1", "quote": `a"b`,
	"not UTF-8": "c\xff", "percent": "a%b", "4096 characters": strings.Repeat("a", 4096),
}

// TestBadNames gives bad names to everything that has one, in bodies and in addresses.
func TestBadNames(t *testing.T) {
	w := boot(t)
	w.t = t
	kinds := map[string]func(name string) object{
		"/1.0/instances":      func(n string) object { return instance(n, nil) },
		"/1.0/profiles":       func(n string) object { return object{"name": n} },
		"/1.0/networks":       func(n string) object { return object{"name": n, "type": "bridge"} },
		"/1.0/storage-pools":  func(n string) object { return object{"name": n, "driver": "dir"} },
		"/1.0/projects":       func(n string) object { return object{"name": n} },
		"/1.0/images/aliases": func(n string) object { return object{"name": n, "target": strings.Repeat("0", 64)} },
	}
	for path, body := range kinds {
		for what, name := range badNames {
			if path == "/1.0/images/aliases" && (what == "path" || len(name) < 256 && strings.Trim(name, "a") == "") {
				continue // aliases are longer and have slashes
			}
			t.Run(path+" "+what, func(t *testing.T) {
				r, err := w.Do("POST", path, body(name))
				wantRefused(t, r, err, 400, "")
				if name == "." || name == ".." {
					return // an address with them is another address
				}
				for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "POST"} {
					r, err := w.Do(method, path+"/"+url.PathEscape(name), object{})
					if err != nil || r.Code < 400 || r.Code >= 500 && r.Code != 501 {
						t.Errorf("%s of that address: %d %s %v", method, r.Code, r.Error, err)
					}
				}
			})
		}
	}
	// Aliases, profiles and snapshots of an instance that is there.
	w.run("POST", "/1.0/instances", instance("c1", nil))
	for what, name := range badNames {
		r, err := w.Do("POST", "/1.0/instances/c1", object{"name": name})
		if r.Type == "async" {
			_, err = w.Run("POST", "/1.0/instances/c1", object{"name": name})
			t.Errorf("rename to %s is begun: %v", what, err)
			continue
		}
		wantRefused(t, r, err, 400, "")
	}
	w.Check(t)
}

// TestBadBodies sends what is no request.
func TestBadBodies(t *testing.T) {
	w := boot(t)
	w.t = t
	w.run("POST", "/1.0/instances", instance("c1", nil))
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	for name, c := range map[string]struct {
		method, path string
		body         any
		code         int
		says         string
	}{
		"no JSON":                {"POST", "/1.0/instances", "{bad", 400, "invalid character"},
		"empty":                  {"POST", "/1.0/instances", "", 400, "empty"},
		"two values":             {"POST", "/1.0/instances", "{}{}", 400, ""},
		"name is a number":       {"POST", "/1.0/instances", `{"name":1}`, 400, "name"},
		"config is a list":       {"POST", "/1.0/instances", `{"name":"x","config":[]}`, 400, "config"},
		"config of numbers":      {"POST", "/1.0/instances", `{"name":"x","config":{"a":{}}}`, 400, "config"},
		"devices is a string":    {"POST", "/1.0/instances", `{"name":"x","devices":"eth0"}`, 400, "devices"},
		"source is a list":       {"POST", "/1.0/instances", `{"name":"x","source":[]}`, 400, "source"},
		"a list":                 {"POST", "/1.0/instances", `[]`, 400, ""},
		"unknown source":         {"POST", "/1.0/instances", `{"name":"x","source":{"type":"weird"}}`, 400, "Unknown source type weird"},
		"unknown alias":          {"POST", "/1.0/instances", `{"name":"x","source":{"type":"image","alias":"nope"}}`, 404, "Image alias not found"},
		"alias with a path":      {"POST", "/1.0/instances", `{"name":"x","source":{"type":"image","alias":"../../x"}}`, 400, ""},
		"fingerprint of dots":    {"POST", "/1.0/instances", `{"name":"x","source":{"type":"image","fingerprint":"../../x"}}`, 400, ""},
		"timeout is text":        {"PUT", "/1.0/instances/c1/state", `{"action":"stop","timeout":"x"}`, 400, "timeout"},
		"unknown action":         {"PUT", "/1.0/instances/c1/state", `{"action":"explode"}`, 400, "explode"},
		"unknown server key":     {"PUT", "/1.0", `{"config":{"foo.bar":"x"}}`, 400, "foo.bar"},
		"unknown profile key":    {"POST", "/1.0/profiles", `{"name":"p","config":{"foo.bar":"x"}}`, 400, "foo.bar"},
		"bad profile value":      {"POST", "/1.0/profiles", `{"name":"p","config":{"limits.memory":"plenty"}}`, 400, "limits.memory"},
		"unknown device type":    {"POST", "/1.0/profiles", `{"name":"p","devices":{"x":{"type":"flux"}}}`, 400, "flux"},
		"disk of the host":       {"POST", "/1.0/profiles", `{"name":"p","devices":{"x":{"type":"disk","path":"relative","source":"/etc"}}}`, 400, ""},
		"unknown network key":    {"POST", "/1.0/networks", `{"name":"br9","type":"bridge","config":{"foo":"x"}}`, 400, "foo"},
		"network of another":     {"POST", "/1.0/networks", `{"name":"br9","type":"warp"}`, 501, "only bridge is known"},
		"address is none":        {"POST", "/1.0/networks", `{"name":"br9","type":"bridge","config":{"ipv4.address":"300.1.2.3/24"}}`, 400, "ipv4.address"},
		"unknown pool driver":    {"POST", "/1.0/storage-pools", `{"name":"p9","driver":"floppy"}`, 400, "floppy"},
		"unknown pool key":       {"POST", "/1.0/storage-pools", `{"name":"p9","driver":"dir","config":{"foo":"x"}}`, 400, "foo"},
		"pool of bad size":       {"POST", "/1.0/storage-pools", `{"name":"p9","driver":"btrfs","config":{"size":"-3"}}`, 400, "size"},
		"pool below the host's":  {"POST", "/1.0/storage-pools", `{"name":"p9","driver":"dir","config":{"source":"relative/path"}}`, 400, "source"},
		"update of unknown keys": {"PATCH", "/1.0/instances/c1", `{"config":{"foo.bar":"x"}}`, 400, "foo.bar"},
		"unknown profile":        {"PATCH", "/1.0/instances/c1", `{"profiles":["nope"]}`, 400, "nope"},
		"volatile key":           {"PATCH", "/1.0/instances/c1", `{"config":{"volatile.uuid":"../../x"}}`, 400, "volatile.uuid"},
		"100000 deep":            {"POST", "/1.0/instances", deep, 400, ""},
		"100000 deep config":     {"POST", "/1.0/profiles", `{"name":"p","config":` + deep + `}`, 400, ""},
		"exec without a command": {"POST", "/1.0/instances/c1/exec", `{"command":[]}`, 400, ""},
		"no address":             {"GET", "/1.0/nope", nil, 404, "not found"},
		"bad recursion":          {"GET", "/1.0/instances?recursion=9", nil, 400, "recursion"},
		"bad project":            {"GET", "/1.0/instances?project=..", nil, 400, ""},
		"unknown project":        {"POST", "/1.0/instances?project=nope", instance("x", nil), 404, "Project not found"},
		"wait for ever and more": {"GET", "/1.0/operations/nope/wait?timeout=x", nil, 400, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := w.Do(c.method, c.path, c.body)
			if r.Type == "async" { // checked in the operation
				o, werr := w.Do("GET", r.Operation+"/wait?timeout=20", nil)
				harness.Must(t, werr)
				op := decode[api.Operation](t, o.Metadata)
				if op.StatusCode == api.Success || !strings.Contains(op.Err, c.says) {
					t.Errorf("the operation ends with %s %q", op.Status, op.Err)
				}
				return
			}
			wantRefused(t, r, err, c.code, c.says)
		})
	}
	w.Check(t)
}

// endless is a body that never ends; it counts what was taken.
type endless struct{ sent int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.sent == 0 {
		e.sent = 1
		return copy(p, `"`), nil
	}
	for i := range p {
		p[i] = 'x'
	}
	e.sent += int64(len(p))
	return len(p), nil
}

// TestHugeBodies sends more than anything may have.
func TestHugeBodies(t *testing.T) {
	w := boot(t)
	for _, path := range []string{"/1.0/instances", "/1.0/profiles", "/1.0/networks"} {
		body := &endless{}
		r, err := w.Do("POST", path, io.LimitReader(body, 1<<30))
		if err == nil {
			wantRefused(t, r, nil, 413, "larger than")
		}
		if body.sent > 64<<20 {
			t.Errorf("%s took %d bytes", path, body.sent)
		}
	}
	// Also what a value may have: the database takes no more than 1.5 MiB.
	r, err := w.Do("PATCH", "/1.0/profiles/default", object{"config": object{"user.x": strings.Repeat("x", 3<<20)}})
	wantRefused(t, r, err, 413, "")
	if rss := w.rss(); rss > 400<<20 {
		t.Errorf("the daemon takes %d MiB", rss>>20)
	}
	w.Check(t)
}

// rss is the daemon's memory in bytes.
func (w *world) rss() (n int64) {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	w.must(err)
	_, rest, _ := bytes.Cut(b, []byte("VmRSS:"))
	_, err = fmt.Sscan(string(rest), &n)
	w.must(err)
	return n << 10
}

// TestMistakesWithLXC makes mistakes with the client that people have.
func TestMistakesWithLXC(t *testing.T) {
	w := boot(t)
	w.launch("c1", nil)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown key":         {[]string{"config", "set", "c1", "foo.bar=1"}, "foo.bar"},
		"bad value":           {[]string{"config", "set", "c1", "limits.memory=plenty"}, "limits.memory"},
		"unknown key, new":    {[]string{"init", "tiny", "c2", "-c", "foo.bar=1"}, "foo.bar"},
		"bad name":            {[]string{"init", "tiny", "c_2"}, "Invalid instance name"},
		"number first":        {[]string{"init", "tiny", "2c"}, "Name must not start with a number"},
		"taken name":          {[]string{"init", "tiny", "c1"}, "already exists"},
		"unknown image":       {[]string{"init", "nope", "c2"}, "Image not found"},
		"unknown profile":     {[]string{"init", "tiny", "c2", "-p", "nope"}, "nope"},
		"no root disk":        {[]string{"init", "tiny", "c2", "--no-profiles"}, "No root device could be found"},
		"unknown pool":        {[]string{"init", "tiny", "c2", "-s", "nope"}, "nope"},
		"unknown network":     {[]string{"init", "tiny", "c2", "-n", "nope"}, "nope"},
		"start twice":         {[]string{"start", "c1"}, "already running"},
		"delete it running":   {[]string{"delete", "c1"}, "running"},
		"missing directory":   {[]string{"exec", "c1", "--cwd", "/nope", "--", "true"}, "directory"},
		"missing file":        {[]string{"file", "pull", "c1/nope", "-"}, "Not Found"},
		"push into a file":    {[]string{"file", "push", "/etc/hostname", "c1/etc/passwd/x"}, ""},
		"device without pool": {[]string{"config", "device", "add", "c1", "d", "disk", "pool=nope", "source=v", "path=/mnt"}, ""},
		"import of nothing":   {[]string{"image", "import", "/dev/null"}, ""},
		"import of text":      {[]string{"image", "import", "/etc/passwd"}, ""},
		"profile in use":      {[]string{"profile", "delete", "default"}, "default"},
		"pool in use":         {[]string{"storage", "delete", "default"}, ""},
		"network in use":      {[]string{"network", "delete", "shoalbr0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := w.Client("lxc", c.args...)
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("lxc %s: %v\n%s", strings.Join(c.args, " "), err, out)
			}
			if strings.Contains(out, "500") || strings.Contains(out, "goroutine") || strings.Contains(out, "internal") {
				t.Errorf("the error is not a clear one: %s", out)
			}
		})
	}
	if s := w.status("c1"); s != "Running" {
		t.Errorf("c1 is %s", s)
	}
	w.Check(t)
}
