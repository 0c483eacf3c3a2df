package api_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// parsers are all name types that become path components, keys and arguments.
func parsers() map[string]func(string) (fmt.Stringer, error) {
	return map[string]func(string) (fmt.Stringer, error){
		"instance":    func(s string) (fmt.Stringer, error) { return api.ParseInstanceName(s) },
		"snapshot":    func(s string) (fmt.Stringer, error) { return api.ParseSnapshotName(s) },
		"project":     func(s string) (fmt.Stringer, error) { return api.ParseProjectName(s) },
		"profile":     func(s string) (fmt.Stringer, error) { return api.ParseProfileName(s) },
		"network":     func(s string) (fmt.Stringer, error) { return api.ParseNetworkName(s) },
		"pool":        func(s string) (fmt.Stringer, error) { return api.ParsePoolName(s) },
		"volume":      func(s string) (fmt.Stringer, error) { return api.ParseVolumeName(s) },
		"member":      func(s string) (fmt.Stringer, error) { return api.ParseMemberName(s) },
		"device":      func(s string) (fmt.Stringer, error) { return api.ParseDeviceName(s) },
		"fingerprint": func(s string) (fmt.Stringer, error) { return api.ParseFingerprint(s) },
	}
}

// hostile are strings that have opened holes in systems like this one.
func hostile() []string {
	return []string{
		".", "..", "../x", "a/b", "/a", "a/", "a/..", `a\b`, "a%2Fb", "a%00b", "-x", "--help", "c1\n", "\nc1", "c 1", " c1", "c1 ", "c1\t",
		"c1\x00", "c1\r", "a;b", "a|b", "a$b", "a`b`", "a\"b", "a'b", "a*", "a?", "a,b", "a=b", "a#b", "a&b", "a<b", "{{a}}", "~a", "a\u2028b",
		"сеть", "а1", "ａ１", "a\u200b", "a\u0301", "\xff\xfe", "é", strings.Repeat("a", 65), strings.Repeat("a", 4097), ".hidden", "\x1b[31m",
	}
}

func TestHostileNamesAreRefusedEverywhere(t *testing.T) {
	for kind, parse := range parsers() {
		for _, s := range hostile() {
			got, err := parse(s)
			if err == nil {
				t.Errorf("%s: took %q", kind, s)
				continue
			}
			if got.String() != "" {
				t.Errorf("%s: %q was refused and returned as %q", kind, s, got)
			}
			if !errs.Is(err, errs.InvalidInput) {
				t.Errorf("%s: %q: class %v", kind, s, errs.ClassOf(err))
			}
		}
		if _, err := parse(""); err == nil && kind != "project" {
			t.Errorf("%s: took the empty name", kind)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		kind string
		good []string
		bad  []string
	}{
		{"instance", []string{"c1", "A", "web-01", "volatile", long, "a--b"}, []string{"1x", "a_b", "a.b", "x-", "c1/snap0", "a:b", long + "a"}},
		{"snapshot", []string{"snap0", "2026-01-01", "a.b_c:d@e+f", "_x"}, []string{long + "a"}},
		{"project", []string{"default", "p1", "a.b"}, []string{"a_b", long + "a"}},
		{"profile", []string{"default", "x_y", "1"}, []string{long + "a"}},
		{"network", []string{"br0", "lxdbr0", "shoalbr0.100", "a_b", strings.Repeat("a", 15)}, []string{"a", "BR0", "-br", "_br", "a:b", strings.Repeat("a", 16), "all", "default"}},
		{"pool", []string{"default", "p", "ssd_1"}, []string{long + "a"}},
		{"volume", []string{"v1", "a.b"}, []string{long + "a"}},
		{"member", []string{"node1", "n1.example.org", "10.0.0.1:8443"}, []string{long + "a"}},
		{"device", []string{"eth0", "root", "a.b", strings.Repeat("a", 64)}, []string{strings.Repeat("a", 65)}},
		{"fingerprint", []string{strings.Repeat("0a", 32)}, []string{strings.Repeat("0A", 32), strings.Repeat("a", 63), strings.Repeat("g", 64)}},
	} {
		parse := parsers()[tt.kind]
		for _, s := range tt.good {
			if got, err := parse(s); err != nil || got.String() != s {
				t.Errorf("%s: %q: %q, %v", tt.kind, s, got, err)
			}
		}
		for _, s := range tt.bad {
			if _, err := parse(s); !errs.Is(err, errs.InvalidInput) {
				t.Errorf("%s: took %q", tt.kind, s)
			}
		}
	}
}

// Clients and their tests know these texts.
func TestInstanceNameTexts(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "Invalid instance name: Name must be 1-63 characters long",
		"1x":                    "Invalid instance name: Name must not start with a number",
		"-x":                    `Invalid instance name: Name must not start with "-" character`,
		"x-":                    `Invalid instance name: Name must not end with "-" character`,
		"a/b":                   `Invalid instance name: The character "/" is reserved for snapshots`,
		"a_b":                   "Invalid instance name: Name can only contain alphanumeric and hyphen characters",
		strings.Repeat("a", 64): "Invalid instance name: Name must be 1-63 characters long",
	} {
		if _, err := api.ParseInstanceName(in); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestEmptyProjectIsTheDefault(t *testing.T) {
	if p, err := api.ParseProjectName(""); err != nil || p != api.DefaultProject {
		t.Errorf("%v, %v", p, err)
	}
}

func TestAliasNames(t *testing.T) {
	for _, s := range []string{"debian", "debian/12", "debian/12/cloud", "a:b", "x_y", strings.Repeat("a", 255)} {
		if got, err := api.ParseAliasName(s); err != nil || got.String() != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "/a", "a/", "a//b", "a/../b", "a/.b", "..", ".a", "-a", "a b", "a\n", "a%2fb", "é", strings.Repeat("a", 256)} {
		if got, err := api.ParseAliasName(s); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("took %q as %q", s, got)
		}
	}
}

func TestFingerprintPrefix(t *testing.T) {
	for _, s := range []string{"a", "0123456789ab", strings.Repeat("f", 64)} {
		if got, err := api.ParseFingerprintPrefix(s); err != nil || got != s {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "A", "%", "g", "a/b", "a\n", strings.Repeat("f", 65)} {
		if _, err := api.ParseFingerprintPrefix(s); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("took %q", s)
		}
	}
	fp, err := api.ParseFingerprint(strings.Repeat("0123456789abcdef", 4))
	if err != nil || fp.Short() != "0123456789ab" || (api.Fingerprint{}).Short() != "" {
		t.Errorf("%v, %v", fp.Short(), err)
	}
}

func TestNamesInJSON(t *testing.T) {
	n, _ := api.ParseInstanceName("c1")
	b, err := json.Marshal(map[api.InstanceName]api.ProjectName{n: api.DefaultProject})
	if err != nil || string(b) != `{"c1":"default"}` {
		t.Errorf("%s, %v", b, err)
	}
	if n.IsZero() || !(api.InstanceName{}).IsZero() {
		t.Error("IsZero")
	}
}

// Whatever is parsed is one component of a path, one part of a key, and never an option.
func FuzzNames(f *testing.F) {
	for _, s := range append(hostile(), "c1", "a.b_c:d@e+f", "debian/12", strings.Repeat("0a", 32)) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for kind, parse := range parsers() {
			n, err := parse(s)
			if err != nil {
				continue
			}
			got := n.String()
			if s != "" && got != s {
				t.Errorf("%s: %q became %q", kind, s, got)
			}
			if got == "" || len(got) > 64 || got[0] == '-' || got[0] == '.' || !utf8.ValidString(got) {
				t.Errorf("%s: %q", kind, got)
			}
			if filepath.Base(filepath.Join("/dir", got)) != got || filepath.Dir(filepath.Join("/dir", got)) != "/dir" || !filepath.IsLocal(got) {
				t.Errorf("%s: %q is not one path component", kind, got)
			}
			if strings.ContainsFunc(got, func(r rune) bool {
				return r <= ' ' || r >= 0x7f || strings.ContainsRune("/\\%\"'`$&|;<>*?~#(){}[]!,=", r)
			}) {
				t.Errorf("%s: %q has a character that means something to somebody", kind, got)
			}
		}
		if a, err := api.ParseAliasName(s); err == nil {
			if a.String() != s || strings.Contains(s, "..") && strings.Contains("/"+s+"/", "/../") || strings.HasPrefix(s, "/") || strings.ContainsAny(s, "\x00\n\r %") {
				t.Errorf("alias %q", s)
			}
		}
	})
}
