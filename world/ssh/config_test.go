package ssh_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/ssh"
)

const fingerprint = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestParseRoute(t *testing.T) {
	for in, want := range map[string]string{
		"host":                        "me@host:22",
		"ssh://root@host:2222/":       "root@host:2222",
		"a@jump,b@10.0.0.1:23,target": "a@jump:22,b@10.0.0.1:23,me@target:22",
		"[fd00::1]:22":                "me@[fd00::1]:22",
		"host?hostkey=" + fingerprint: "me@host:22",
		"":                            "!must be host:port",
		"http://host":                 "!its scheme is not ssh",
		"a:b@host":                    "!passwords are not used",
		"host/path":                   "!it has a path",
		"host:0":                      "!the port must be 1 to 65535",
		"host:99999":                  "!the port must be 1 to 65535",
		"host:ssh":                    "!it is no address",
		"host,":                       "!must be host:port",
		"host?x=y":                    "!only one hostkey",
		"host?hostkey=nonsense":       `!host key "nonsense": must be SHA256:`,
		"host?hostkey=SHA256:AA":      "!and 43 letters",
		"a b@host":                    "!",
		strings.Repeat("h,", 8) + "h": "!1 to 8 servers, not 9",
		strings.Repeat("h", 17<<10):   "!at most 16384 are read",
	} {
		r, err := ssh.ParseRoute(in, "me")
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), bad) || !errs.Is(err, errs.InvalidInput) && !errs.Is(err, errs.TooLargeClass) {
				t.Errorf("%.60q: %v, want %q", in, err, bad)
			}
		} else if err != nil || r.String() != want {
			t.Errorf("%q: %v %v, want %s", in, r, err, want)
		}
	}
	r, err := ssh.ParseRoute("host?hostkey=ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIHF/+iFLPWbzMQXMJiMnhFHGlMrq5tvrjLuqtbDvUUXB", "me")
	if err != nil || !strings.Contains(r[0].HostKey, "/+iF") {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("a@b:1,ssh://[::1]?hostkey=" + fingerprint)
	f.Add("a@b?hostkey=ssh-ed25519%20AAAA")
	f.Fuzz(func(t *testing.T, in string) {
		r, err := ssh.ParseRoute(in, "me")
		if err != nil {
			return
		}
		again, err := ssh.ParseRoute(r.String(), "other")
		if err != nil || again.String() != r.String() {
			t.Errorf("%q became %q, which is read as %q: %v", in, r, again, err)
		}
	})
}

func TestConfig(t *testing.T) {
	route, err := ssh.ParseRoute("host", "me")
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := ssh.ParseRoute("host?hostkey="+fingerprint, "me")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cfg  ssh.Config
		want string
	}{
		"no route":       {ssh.Config{}, "1 to 16 ssh routes"},
		"empty route":    {ssh.Config{Routes: []ssh.Route{{}}}, "1 to 8 servers"},
		"no host keys":   {ssh.Config{Routes: []ssh.Route{pinned, route}, Agent: "/a"}, "who the server is could not be checked"},
		"no login":       {ssh.Config{Routes: []ssh.Route{pinned}}, "neither a key file nor an agent"},
		"negative":       {ssh.Config{Routes: []ssh.Route{pinned}, Agent: "/a", KeepAlive: -time.Second}, "must not be negative"},
		"pinned":         {ssh.Config{Routes: []ssh.Route{pinned}, Agent: "/a"}, ""},
		"in known_hosts": {ssh.Config{Routes: []ssh.Route{route}, Agent: "/a", KnownHosts: []string{"/b"}}, ""},
	} {
		tunnel, err := ssh.New(tt.cfg)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errs.Is(err, errs.InvalidInput)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err == nil {
			if _, err := tunnel.Dial(t.Context(), "udp", "a:1"); !errs.Is(err, errs.InvalidInput) {
				t.Errorf("dial udp: %v", err)
			}
			tunnel.Close()
			if _, err := tunnel.Dial(t.Context(), "tcp", "a:1"); !errs.Is(err, errs.UnavailableClass) {
				t.Errorf("dial after closing: %v", err)
			}
		}
	}
}

func TestUserConfig(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh/id_rsa"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := ssh.UserConfig(home, "/agent")
	if len(c.Keys) != 1 || !strings.HasSuffix(c.Keys[0], "/.ssh/id_rsa") || !strings.HasPrefix(c.KnownHosts[0], home) || c.Agent != "/agent" {
		t.Errorf("%+v", c)
	}
}
