package allocator

import (
	"strings"
	"testing"
)

func FuzzEscape(f *testing.F) {
	for _, s := range [][2]string{{"a", "a/b"}, {"%2F", "/"}, {"%h", "h"}, {"\xff", "%FF"}, {strings.Repeat("/", 200), strings.Repeat("/", 201)}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := escape(a), escape(b)
		if (x == y) != (a == b) {
			t.Errorf("%q and %q become %q and %q", a, b, x, y)
		}
		if strings.Contains(x, "/") || len(x) > maxEscaped || (x == "") != (a == "") {
			t.Errorf("%q becomes %q", a, x)
		}
	})
}

func FuzzRecord(f *testing.F) {
	l, err := newLayout("/p/", "n")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/p/keys/web", []byte("17 web"))
	f.Add("/p/keys/web", []byte("017 web"))
	f.Add("/p/keys/web", []byte("+1 web"))
	f.Add("/p/keys/web", []byte("17 db"))
	f.Add("/p/keys/web", []byte("17"))
	f.Add("/p/keys/a%2Fb", []byte("18446744073709551615 a/b"))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		key, id, err := l.parseRecord(path, value)
		if err != nil {
			return
		}
		if l.key(key) != path || string(recordValue(key, id)) != string(value) || id == 0 {
			t.Errorf("%q %q was read as %q %d", path, value, key, id)
		}
	})
}

func TestLayoutRefusesBadNames(t *testing.T) {
	for _, tt := range []struct{ prefix, node string }{{"", "n"}, {"/p", "n"}, {"/p/", ""}, {"/p/", strings.Repeat("n", MaxNode+1)}} {
		if _, err := newLayout(tt.prefix, tt.node); err == nil {
			t.Errorf("%q %.10q was accepted", tt.prefix, tt.node)
		}
	}
}
