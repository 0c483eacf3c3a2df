package rest

import "testing"

// The grammar is tested from inside: over HTTP it shows only through instances.
func TestFilter(t *testing.T) {
	object := map[string]any{"name": "web1", "status": "Running", "status_code": 103, "ephemeral": false,
		"config": map[string]string{"image.os": "Debian", "user.note": "it's me", "a": "b"}}
	for expr, want := range map[string]bool{
		"":                                       true,
		"name eq web1":                           true,
		"name eq web":                            false,
		"name eq web.*":                          true,
		"name eq ^web":                           true,
		"name eq (web1|^web1.*)":                 true,
		"name ne web1":                           false,
		"not name eq web1":                       false,
		"not name ne web1":                       true,
		"NOT name EQ web1":                       false,
		"status eq running":                      true,
		"status eq Running and name eq x":        false,
		"status eq Running or name eq x":         true,
		"name eq x or name eq y or name eq web1": true,
		"name eq web1 and name eq x or status_code eq 103": true,
		"config.image.os eq Debian":                        true,
		`config.user.note eq "it's me"`:                    true,
		`config.user.note eq 'it\'s me'`:                   true,
		"ephemeral eq false":                               true,
		"ephemeral eq true":                                false,
		"nothing eq x":                                     false,
		"nothing ne x":                                     true,
		"name eq [":                                        false,
	} {
		f, err := parseFilter(expr)
		if err != nil {
			t.Errorf("%q: %v", expr, err)
			continue
		}
		if got := f.match(object); got != want {
			t.Errorf("%q: got %v", expr, got)
		}
	}
	for _, bad := range []string{"x", "bad x", "name eq", "name like x", "name eq x y", "name eq x and", "name eq \"x", "not", "name eq x nor name eq y"} {
		if _, err := parseFilter(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := parseFilter("bad x"); err.Error() != "Invalid filter: clause has no value" {
		t.Error(err)
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"name eq x", "not a.b ne 'c d' or e eq \"\\\"\"", "((((", "a eq " + string(rune(0))} {
		f.Add(s)
	}
	object := map[string]any{"a": map[string]any{"b": "c"}, "name": "x"}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := parseFilter(s)
		if err == nil {
			parsed.match(object)
		} else if len(parsed) > 0 {
			t.Error("an error and a filter")
		}
	})
}
