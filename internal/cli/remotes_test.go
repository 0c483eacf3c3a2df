package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.2": "https://10.0.0.2:8443", "host.example:443": "https://host.example:443", "https://h": "https://h:8443", "https://h:1/": "https://h:1",
		"::1": "https://[::1]:8443", "[fd00::1]:9": "https://[fd00::1]:9", "unix:///run/x.socket": "unix:///run/x.socket", "/run/x.socket": "unix:///run/x.socket",
		"http://h": "!", "https://h/path": "!", "https://": "!", "https://u:p@h": "!", "unix://": "!", "unix:relative": "!", "": "!", "h:x": "!",
	} {
		got, err := serverURL(in)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzServerURL(f *testing.F) {
	for _, s := range []string{"10.0.0.2", "[::1]:1", "https://h:1", "unix:///x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := serverURL(s)
		if err != nil {
			return
		}
		if again, err := serverURL(u); err != nil || again != u {
			t.Errorf("%q → %q → %q, %v", s, u, again, err)
		}
	})
}

func inConf(t *testing.T) (dir string, run func(stdin string, args ...string) (string, int)) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("SHOAL_CONF", dir)
	t.Setenv("SHOAL_SOCKET", filepath.Join(dir, "nobody"))
	return dir, func(stdin string, args ...string) (string, int) {
		var out bytes.Buffer
		code := Main(t.Context(), "test", args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &out})
		return out.String(), code
	}
}

func TestRemotesAreKept(t *testing.T) {
	dir, run := inConf(t)
	conf := "default-remote: local\nremotes:\n  east:\n    addr: https://10.0.0.2:8443\n    auth_type: tls\n    project: p1\n    protocol: lxd\n    public: false\n"
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeConf(serverCertFile("east"), pemOf("CERTIFICATE", []byte("x")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"remote list -f csv", 0, "east,https://10.0.0.2:8443,lxd,tls,NO,NO,NO\nlocal (current),unix://"},
		{"remote get-default", 0, "local\n"},
		{"remote switch nowhere", 1, `The remote "nowhere" doesn't exist`},
		{"remote switch east", 0, ""},
		{"remote get-default", 0, "east\n"},
		{"remote remove east", 1, "Can't remove the default remote"},
		{"remote set-url east 10.0.0.3", 0, ""},
		{"remote set-url east http://x", 2, "Invalid address"},
		{"remote set-url local 10.0.0.3", 1, "is static"},
		{"remote rename local x", 1, "is static"},
		{"remote rename east a/b", 2, "Invalid remote name"},
		{"remote rename east local", 1, "already exists"},
		{"remote switch local", 0, ""},
		{"list nowhere:", 1, `The remote "nowhere" doesn't exist`},
		{"delete east:a local:b", 1, "have to be on the same server"},
		{"delete east:a b", 1, "have to be on the same server"},
		{"launch east:debian", 1, "have to be on the same server"},
		{"remote add a:b 10.0.0.2", 2, "Invalid remote name"},
		{"remote add east 10.0.0.2", 1, "exists as <https://10.0.0.3:8443>"},
		{"remote add x https://example.org --protocol simplestreams", 1, "not supported"},
		{"remote remove east", 0, ""},
		{"remote list -f csv", 0, "local (current),unix://"},
	} {
		out, code := run("", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, serverCertFile("east"))); err == nil {
		t.Log("the certificate of a remote that was removed is still there")
		t.Fail()
	}
}

// TestABrokenConfigurationIsSaid: and not written over.
func TestABrokenConfigurationIsSaid(t *testing.T) {
	dir, run := inConf(t)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte("remotes: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"list", "remote list", "remote switch local"} {
		if out, code := run("", strings.Fields(args)...); code != 1 || !strings.Contains(out, path) {
			t.Errorf("%s: exit %d: %s", args, code, out)
		}
	}
	if b, _ := os.ReadFile(path); string(b) != "remotes: [" {
		t.Errorf("it was changed: %s", b)
	}
}

func TestClientPairIsMadeOnce(t *testing.T) {
	dir, _ := inConf(t)
	a := &app{}
	if p, err := a.clientCertificate(false); p != nil || err != nil {
		t.Errorf("got %v, %v", p, err)
	}
	one, err := a.clientCertificate(true)
	if err != nil {
		t.Fatal(err)
	}
	two, err := a.clientCertificate(true)
	if err != nil || !bytes.Equal(one.Certificate[0], two.Certificate[0]) {
		t.Errorf("another one was made: %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "client.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", st, err)
	}
}
