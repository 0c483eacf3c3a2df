package template_test

import (
	"strings"
	"testing"

	"github.com/shoal-project/shoal/instance/template"
	"github.com/shoal-project/shoal/internal/errs"
)

var ctx = template.Context{
	Names: map[string]any{
		"instance": map[string]any{"name": "web", "privileged": false}, "container": map[string]any{"name": "web"},
		"trigger": "create", "properties": map[string]string{"default": "#cloud-config\n{}", "os": "Debian"},
		"config": map[string]string{"user.x": "1"},
	},
	Config: map[string]string{"user.user-data": "data", "user.empty": "", "user.tpl": "{{ instance.name }}", "user.big": strings.Repeat("y", 2000)},
}

func TestRender(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"plain", "127.0.0.1 localhost\n", "127.0.0.1 localhost\n"},
		{"name", "{{ container.name }}\n", "web\n"},
		{"both names", "{{instance.name}}{{ container.name }}", "webweb"},
		{"lone braces", "a { b } {c} } }} {", "a { b } {c} } }} {"},
		{"comment", "a{# {{ x }} #}b", "ab"},
		{"config", `{{ config_get("user.user-data", properties.default) }}`, "data"},
		{"config default", `{{ config_get("user.none", properties.default) }}`, "#cloud-config\n{}"},
		{"config no default", `[{{ config_get('user.none') }}]`, "[]"},
		{"subscript", `{{ config["user.x"] }}`, "1"},
		{"if equal", `{% if config_get("user.network-config", "") == "" %}version: 1{% else %}own{% endif %}`, "version: 1"},
		{"elif", `{% if trigger == "copy" %}1{% elif trigger == "create" %}2{% else %}3{% endif %}`, "2"},
		{"nested", `{% if true %}a{% if false %}b{% if true %}c{% endif %}{% endif %}d{% endif %}`, "ad"},
		{"else of a skipped if", `{% if false %}{% if true %}x{% else %}y{% endif %}{% else %}z{% endif %}`, "z"},
		{"logic", `{% if not instance.privileged and ("a" == "b" or properties.os|lower == "debian") %}yes{% endif %}`, "yes"},
		{"filter", `{{ properties.none|default:"x"|upper }}`, "X"},
		{"unknown name", "[{{ no.such.name }}]", "[]"},
		{"no escaping", `{{ "<&>" }}`, "<&>"},
		{"trim", "a  {%- if true -%}  b  {%- endif -%}  c", "abc"},
		{"output is not evaluated again", `{{ config_get("user.tpl") }}`, `{{ instance.name }}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := template.Render(tt.src, ctx)
			if err != nil || got != tt.want {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"include", `{% include "/etc/shadow" %}`, `tag "include" is not supported`},
		{"extends", `x{% extends "/etc/shadow" %}`, `tag "extends" is not supported`},
		{"ssi", `{% ssi /etc/shadow %}`, `tag "ssi" is not supported`},
		{"loop", `{% for x in y %}{% endfor %}`, `tag "for" is not supported`},
		{"function", `{{ open("/etc/shadow") }}`, `function "open" is not supported`},
		{"filter", `{{ x|read }}`, `filter "read" is not supported`},
		{"unclosed", "a\n{{ x", "line 2"},
		{"unclosed string", `{{ "x }}`, "is not closed"},
		{"no endif", `{% if true %}x`, "if without endif"},
		{"else twice", `{% if true %}{% else %}{% else %}{% endif %}`, "after else"},
		{"endif alone", `x{% endif %}`, "without an if"},
		{"deep", strings.Repeat("{% if true %}", 40) + strings.Repeat("{% endif %}", 40), "nested"},
		{"deep parentheses", "{{ " + strings.Repeat("(", 500) + " }}", "nested too deeply"},
		{"deep not", "{{ " + strings.Repeat("not ", 500) + "x }}", "nested too deeply"},
		{"output", strings.Repeat(`{{ config_get("user.big") }}`, 1000), "larger than"},
		{"source", strings.Repeat("x", template.MaxSource+1), "are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := template.Render(tt.src, ctx)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if c := errs.ClassOf(err); c != errs.InvalidInput && c != errs.TooLargeClass {
				t.Fatalf("class %v", c)
			}
		})
	}
}

func FuzzRender(f *testing.F) {
	for _, s := range []string{"{{ container.name }}", `{% if config_get("a","b") == "c" %}x{% else %}y{% endif %}`, "{# #}{%- x -%}", `{{ a["b"]|default:"c" }}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		out, err := template.Render(src, ctx)
		if err == nil && len(out) > template.MaxOutput+template.MaxSource {
			t.Fatalf("%d bytes", len(out))
		}
		if err == nil && !strings.Contains(src, "{") && out != src {
			t.Fatalf("%q became %q", src, out)
		}
	})
}
