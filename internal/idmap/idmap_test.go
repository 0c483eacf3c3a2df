package idmap_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/idmap"
	"pgregory.net/rapid"
)

func TestParseSubIDs(t *testing.T) {
	got, err := idmap.ParseSubIDs(strings.NewReader("# comment\n\nlxd:1:2\nroot:100000:65536\n0:200000:10\r\n  root:300000:1  \nroots:5:5\n"), "root", 0)
	if err != nil || !slices.Equal(got, []idmap.Range{{100000, 65536}, {200000, 10}, {300000, 1}}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := idmap.ParseSubIDs(strings.NewReader(""), "root", 0); err != nil || got != nil {
		t.Errorf("empty: %v, %v", got, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"fields", "root:1", "line 1"},
		{"more fields", "a:1:2\nroot:1:2:3", "line 2"},
		{"no user", ":1:2", "user:base:count"},
		{"negative", "root:-1:5", "base"},
		{"hex", "root:0x10:5", "base"},
		{"base over 32 bits", "root:4294967296:5", "base"},
		{"no count", "root:1:0", "count"},
		{"past the end", "root:4294967290:100", "beyond"},
		{"the id that is none", "root:4294967290:6", "beyond"},
		{"foreign line", "mallory:x:y\nroot:1:1", "line 1"},
		{"long line", strings.Repeat("x", 1<<20), ""},
		{"1 GiB of lines", strings.Repeat("root:1:1\n", 1<<20), "more than"},
	} {
		_, err := idmap.ParseSubIDs(strings.NewReader(tt.text), "root", 0)
		if c := errs.ClassOf(err); err == nil || c != errs.InvalidInput && c != errs.TooLargeClass || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%s: the error has %d bytes", tt.name, len(err.Error()))
		}
	}
}

func TestHostRange(t *testing.T) {
	for _, tt := range []struct {
		name       string
		uids, gids []idmap.Range
		want       idmap.Range
	}{
		{"no entries", nil, nil, idmap.Range{1_000_000, 1_000_000_000}},
		{"same", []idmap.Range{{100000, 200000}}, []idmap.Range{{100000, 200000}}, idmap.Range{100000, 200000}},
		{"largest", []idmap.Range{{100000, 65536}, {500000, 300000}}, []idmap.Range{{100000, 1000000}}, idmap.Range{500000, 300000}},
		{"overlap", []idmap.Range{{100000, 200000}}, []idmap.Range{{150000, 200000}}, idmap.Range{150000, 150000}},
		{"never host users", []idmap.Range{{0, 200000}}, []idmap.Range{{0, 200000}}, idmap.Range{65536, 134464}},
		{"users only", []idmap.Range{{100000, 200000}}, nil, idmap.Range{}},
		{"too small", []idmap.Range{{100000, 65535}}, []idmap.Range{{100000, 65535}}, idmap.Range{}},
		{"apart", []idmap.Range{{100000, 65536}}, []idmap.Range{{900000, 65536}}, idmap.Range{}},
	} {
		got, err := idmap.HostRange(tt.uids, tt.gids)
		if got != tt.want || (err != nil) != tt.want.IsZero() || err != nil && !errs.Is(err, errs.UnsupportedClass) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestChoose(t *testing.T) {
	r := idmap.Range{1000, 350}
	if n := idmap.Blocks(r, 100); n != 3 {
		t.Errorf("%d blocks", n)
	}
	if n := idmap.Blocks(r, 0); n != 0 {
		t.Errorf("%d blocks of nothing", n)
	}
	for _, tt := range []struct {
		name string
		used []idmap.Range
		want uint32 // 0: none
	}{
		{"nothing used", nil, 1000},
		{"first used", []idmap.Range{{1000, 100}}, 1100},
		{"gap", []idmap.Range{{1200, 100}, {1000, 100}}, 1100},
		{"overlap of two", []idmap.Range{{1099, 2}}, 1200},
		{"reaches in from below", []idmap.Range{{0, 1001}}, 1100},
		{"elsewhere", []idmap.Range{{5000, 100}, {0, 1000}}, 1000},
		{"full", []idmap.Range{{1000, 300}}, 0},
		{"everything", []idmap.Range{{0, math.MaxUint32}}, 0},
	} {
		got, err := idmap.Choose(r, 100, tt.used)
		if got.Base != tt.want || (err != nil) != (tt.want == 0) || err != nil && !errs.Is(err, errs.NoSpaceClass) {
			t.Errorf("%s: %v, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}

// Chosen blocks never overlap and never leave the range, and all are given out before the range is full.
func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint32Range(1, 70000).Draw(t, "size")
		r := idmap.Range{Base: rapid.Uint32Range(0, math.MaxUint32/2).Draw(t, "base"), Size: rapid.Uint32Range(0, 40*size).Draw(t, "range")}
		var used []idmap.Range
		for {
			b, err := idmap.Choose(r, size, used)
			if err != nil {
				break
			}
			if !r.Contains(b) || b.Size != size || slices.ContainsFunc(used, b.Overlaps) {
				t.Fatalf("%v of %v with %v", b, r, used)
			}
			used = append(used, b)
		}
		if len(used) != idmap.Blocks(r, size) {
			t.Fatalf("gave %d of %d", len(used), idmap.Blocks(r, size))
		}
	})
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("root:100000:65536\n# x\n0:1:2")
	f.Add("root:4294967295:1")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := idmap.ParseSubIDs(strings.NewReader(s), "root", 0)
		for _, r := range got {
			if err != nil || r.IsZero() || uint64(r.Base)+uint64(r.Size) > math.MaxUint32 {
				t.Errorf("%v, %v", r, err)
			}
		}
	})
}
