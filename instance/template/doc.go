// Package template writes the files that an image fills in for each instance (metadata.yaml, templates).
//
// [Render] is the language: the small part of the Django-like one that images really use – {{ expression }},
// {% if %} {% elif %} {% else %} {% endif %} and {# comment #}. There are no loops, no includes and no way to reach a
// file, so a template can do no harm but be wrong. Output is not escaped, because it is not HTML.
//
// An expression is a string, a number, true, false, a dotted name (instance.name, properties.default, config["user.x"] is
// config_get), config_get("key", "default"), comparisons with == and !=, and, or, not, parentheses, and the filters
// default:"x", lower, upper and trim.
//
// [WriteFile] puts the result into the root of an instance that does not run: a stack of overlay layers of which the
// top one is written.
package template
