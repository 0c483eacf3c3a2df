package names_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/names"
)

func TestNamespace(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "/_mgmt": true, "/a/b.c-d": true, "/shoal/world": true, "/shoal/v1x": true, "/shoal/v2": true,
		"/": false, "a": false, "/a/": false, "//a": false, "/a//b": false, "/a b": false, "/shoal/v1": false, "/shoal/v1/x": false, "/shoal": false,
		"/é": false, "/" + strings.Repeat("a", 255): false,
	} {
		if _, err := names.ParseNamespace(s); (err == nil) != want || err != nil && !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %v", s, err)
		}
	}
	var zero names.Namespace
	if k := zero.Key("strings", "a/b"); k != "/shoal/world/strings/a%2Fb" {
		t.Errorf("key %q", k)
	}
	for _, k := range []string{"/shoal/worlds/a", "/shoal/world/a%2fb", "/shoal/world/a%", "x"} {
		if parts, ok := zero.Split(k); ok {
			t.Errorf("%q was read as %q", k, parts)
		}
	}
}

func TestMachine(t *testing.T) {
	for s, want := range map[string]bool{
		"h1": true, "web-1.example.org": true, "_x": true, "A": true, strings.Repeat("a", 253): true,
		"": false, "*": false, ".": false, "..": false, "-a": false, ".a": false, "___": false, "a/b": false, "a,b": false, "a b": false, "é": false, strings.Repeat("a", 254): false,
	} {
		if m, err := names.ParseMachine(s); (err == nil) != want || err == nil && m.String() != s {
			t.Errorf("%q: %q %v", s, m, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a/b": true, "*": true, "%,?#": true, "…": true, "..": true, " ": true, strings.Repeat("a", 512): true,
		"": false, "a\x00": false, "a\n": false, "\xff": false, strings.Repeat("a", 513): false,
	} {
		if err := names.Check("key", s); (err == nil) != want || err != nil && !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := names.CheckValue("value", names.MaxValue+1); !errs.Is(err, errs.TooLargeClass) || names.CheckValue("value", names.MaxValue) != nil {
		t.Error(err)
	}
}

// FuzzKey has parts survive the way through a key, and no two lists of parts give one key.
func FuzzKey(f *testing.F) {
	f.Add("a", "b")
	f.Add("a/b", "*")
	f.Add("%2F", "..")
	f.Add("", "é\x00")
	var n names.Namespace
	f.Fuzz(func(t *testing.T, a, b string) {
		k := n.Key(a, b)
		if got, ok := n.Split(k); !ok || !slices.Equal(got, []string{a, b}) {
			t.Errorf("%q %q became %q, read as %q %v", a, b, k, got, ok)
		}
		if !strings.HasPrefix(k, n.Prefix(a)) || strings.HasPrefix(n.Key(a+"x", b), n.Prefix(a)) {
			t.Errorf("prefix %q of %q", n.Prefix(a), k)
		}
		if parts, ok := n.Split(a); ok && n.Key(parts...) != a {
			t.Errorf("%q was read as %q", a, parts)
		}
	})
}
