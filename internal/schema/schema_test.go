package schema_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

func table() *schema.Table {
	return schema.New("",
		schema.Key{Name: "limits.memory", Type: schema.SizeOrPercent(), Live: true},
		schema.Key{Name: "limits.cpu", Type: schema.Or(schema.Int(1, 1024), schema.Pattern("set", "a set such as 0-3,7", `[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*`))},
		schema.Key{Name: "limits.kernel.*", Type: schema.String()},
		schema.Key{Name: "security.nesting", Type: schema.Bool(), Default: "false", Restricted: "nesting", Scope: "container"},
		schema.Key{Name: "security.secureboot", Type: schema.Bool(), Default: "true", Scope: "virtual-machine"},
		schema.Key{Name: "boot.priority", Type: schema.Int(0, 100), Default: "10"},
		schema.Key{Name: "user.*", Type: schema.Text(100)},
		schema.Key{Name: "volatile.*.hwaddr", Type: schema.MAC(), Internal: true},
		schema.Key{Name: "snapshots.expiry", Type: schema.Expiry()},
		schema.Key{Name: "dns.servers", Type: schema.ListOf(schema.Addr(32))},
		schema.Key{Name: "mode", Type: schema.OneOf("hard", "soft"), Default: "hard"},
	)
}

func TestValidate(t *testing.T) {
	good := map[string]string{
		"limits.memory": "50%", "limits.cpu": "0-3,7", "limits.kernel.nofile": "10:20", "security.nesting": "TRUE", "user.a": "x\ny", "user.a.b.c": "x",
		"volatile.eth0.hwaddr": "00:16:3e:00:00:01", "snapshots.expiry": "1d 2H", "dns.servers": "1.1.1.1, 8.8.8.8", "mode": "", "boot.priority": "0",
	}
	if err := table().Validate(good, "container"); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ key, value, want string }{
		{"foo", "1", "Unknown configuration key: foo"},
		{"limits", "1", "Unknown configuration key: limits"},
		{"user", "1", "Unknown"},
		{"user.", "1", "Unknown"},
		{"user..a", "1", "Unknown"},
		{"user.a.", "1", "Unknown"},
		{"volatile.hwaddr", "1", "Unknown"},
		{"volatile.a.b.hwaddr", "1", "Unknown"},
		{"security.secureboot", "true", "Unknown"}, // of the other kind
		{"user.a b", "1", "bad configuration key"},
		{"user.a\nb", "1", "bad configuration key"},
		{"user.\xff", "1", "bad configuration key"},
		{"user." + strings.Repeat("x", 255), "1", "bad configuration key"},
		{"user.a", strings.Repeat("x", 101), "at most 100"},
		{"user.a", "a\x00b", "NUL"},
		{"limits.kernel.x", "a\nb", "more than one line"},
		{"limits.kernel.x", "a\u2028b", "more than one line"},
		{"limits.kernel.x", strings.Repeat("x", 5000), "at most 4096"},
		{"limits.memory", "10mb", `"10mb"`},
		{"limits.memory", "101%", "1% to 100%"},
		{"limits.cpu", "0", "a set such as"}, // "0" is a set of one and valid, see below
		{"limits.cpu", "a", "a whole number from 1 to 1024, or a set such as 0-3,7"},
		{"security.nesting", "maybe", "true or false"},
		{"boot.priority", "101", "from 0 to 100"},
		{"boot.priority", "+1", "from 0 to 100"},
		{"volatile.eth0.hwaddr", "01:00:00:00:00:00", "unicast"},
		{"volatile.eth0.hwaddr", "0016.3e00.0001", "unicast"},
		{"snapshots.expiry", "1x", "1d 12H"},
		{"dns.servers", "1.1.1.1,,2.2.2.2", "empty element"},
		{"dns.servers", "1.1.1.1,::1", `element "::1"`},
		{"mode", "Hard", "one of hard, soft"},
	} {
		err := table().Validate(map[string]string{tt.key: tt.value}, "container")
		if tt.key == "limits.cpu" && tt.value == "0" {
			if err != nil {
				t.Errorf("limits.cpu 0: %v", err)
			}
			continue
		}
		if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q=%.20q: got %v, want %q", tt.key, tt.value, err, tt.want)
		}
	}
}

func TestValidateNamesEveryComplaint(t *testing.T) {
	err := table().Validate(map[string]string{"zzz": "1", "aaa": "1", "mode": "x", "user.ok": "1"}, "")
	if want := `Unknown configuration key: aaa; Invalid value for "mode": "x": allowed is one of hard, soft; Unknown configuration key: zzz`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	many := map[string]string{}
	for i := range 20_000 {
		many["k"+strings.Repeat("x", i%200)+string(rune('一'+i%20000))] = "1"
	}
	if err := table().Validate(many, ""); !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("many keys: %v", err)
	}
	options := schema.New("Invalid device option %q", schema.Key{Name: "path"})
	if err := options.ValidateKey("pth", "/", ""); err == nil || err.Error() != `Invalid device option "pth"` {
		t.Errorf("got %v", err)
	}
}

func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		name, scope string
		want        bool
	}{
		{"security.nesting", "container", true}, {"security.nesting", "virtual-machine", false}, {"security.nesting", "", false},
		{"security.nesting", schema.AnyScope, true}, {"security.secureboot", schema.AnyScope, true}, {"user.x", "container", true},
	} {
		if _, ok := table().Lookup(tt.name, tt.scope); ok != tt.want {
			t.Errorf("%s in %q: %v", tt.name, tt.scope, ok)
		}
	}
}

func TestMostExactPatternWins(t *testing.T) {
	tab := schema.New("", schema.Key{Name: "a.*", Doc: "family"}, schema.Key{Name: "a.*.c", Doc: "inner"}, schema.Key{Name: "a.b.c", Doc: "exact"})
	for name, want := range map[string]string{"a.b.c": "exact", "a.x.c": "inner", "a.x": "family", "a.x.y": "family", "a.c": "family"} {
		if k, ok := tab.Lookup(name, ""); !ok || k.Doc != want {
			t.Errorf("%s: %q", name, k.Doc)
		}
	}
}

func TestValues(t *testing.T) {
	tab := table()
	config := map[string]string{"limits.memory": "50%", "security.nesting": "yes", "boot.priority": ""}
	if v := tab.Size(config, "limits.memory", 1000); v != 500 {
		t.Errorf("memory %d", v)
	}
	if !tab.Bool(config, "security.nesting") || !tab.Bool(nil, "security.secureboot") || tab.Bool(nil, "security.nesting") {
		t.Error("booleans")
	}
	if v := tab.Int(config, "boot.priority"); v != 10 {
		t.Errorf("priority %d", v)
	}
	got := tab.Defaults(config, "container")
	want := map[string]string{"limits.memory": "50%", "security.nesting": "yes", "boot.priority": "10", "mode": "hard"}
	if !maps.Equal(got, want) {
		t.Errorf("defaults %v", got)
	}
	if config["mode"] != "" {
		t.Error("Defaults changed its input")
	}
}

func TestValidateChange(t *testing.T) {
	tab := table()
	before := map[string]string{"volatile.eth0.hwaddr": "00:16:3e:00:00:01", "old.key": "from an older version", "mode": "hard"}
	with := func(k, v string) map[string]string { m := maps.Clone(before); m[k] = v; return m }
	for _, tt := range []struct {
		name  string
		after map[string]string
		want  string
	}{
		{"nothing", before, ""},
		{"a good change", with("mode", "soft"), ""},
		{"an old key goes", with("old.key", ""), ""},
		{"an old key changes", with("old.key", "x"), "Unknown configuration key: old.key"},
		{"internal set", with("volatile.eth1.hwaddr", "00:16:3e:00:00:02"), "kept by the daemon"},
		{"internal removed", map[string]string{"mode": "hard"}, "kept by the daemon"},
	} {
		err := tab.ValidateChange(before, tt.after, "container")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	changes := tab.Diff(before, with("limits.memory", "1GiB"), "container")
	if len(changes) != 1 || changes[0].Name != "limits.memory" || !changes[0].Key.Live || changes[0].Old != "" || changes[0].New != "1GiB" {
		t.Errorf("diff %+v", changes)
	}
}

func TestKeysAreSorted(t *testing.T) {
	last := ""
	n := 0
	for k := range table().Keys() {
		if k.Name < last {
			t.Errorf("%s after %s", k.Name, last)
		}
		last = k.Name
		n++
	}
	if n != 11 {
		t.Errorf("%d keys", n)
	}
}

func TestMistakesInATablePanic(t *testing.T) {
	for name, keys := range map[string][]schema.Key{
		"twice":       {{Name: "a"}, {Name: "a"}},
		"twice scope": {{Name: "a"}, {Name: "a", Scope: "container"}},
		"empty":       {{}},
		"bad default": {{Name: "a", Type: schema.Bool(), Default: "maybe"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			schema.New("", keys...)
		}()
	}
	schema.New("", schema.Key{Name: "a", Scope: "container"}, schema.Key{Name: "a", Scope: "virtual-machine"})
}

func FuzzValidateKey(f *testing.F) {
	f.Add("user.x", "y")
	f.Add("volatile.eth0.hwaddr", "00:16:3e:00:00:01")
	f.Add("limits.cpu", "0-3,7\n")
	tab := table()
	f.Fuzz(func(t *testing.T, key, value string) {
		err := tab.ValidateKey(key, value, "container")
		if err != nil {
			if c := errs.ClassOf(err); c != errs.InvalidInput {
				t.Errorf("%q=%q: %v", key, value, err)
			}
			return
		}
		if strings.ContainsAny(key, "\x00\n\r \t") || strings.ContainsRune(value, 0) || len(value) > 4096 {
			t.Errorf("took %q=%q", key, value)
		}
		if strings.Contains(value, "\n") && !strings.HasPrefix(key, "user.") {
			t.Errorf("took several lines: %q=%q", key, value)
		}
	})
}
