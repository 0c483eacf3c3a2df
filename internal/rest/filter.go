package rest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// maxFilter bounds ?filter= in bytes; longer ones are no human's.
const maxFilter = 4096

// filter is a parsed ?filter=:
//
//	filter = clause { ("and" | "or") clause }
//	clause = ["not"] field ("eq" | "ne") value
//
// A field is a dotted JSON path ("config.image.os"); a value is a word or is quoted with " or '. Clauses are taken from
// left to right without precedence, as LXD does. A value is a regular expression (RE2) for the whole of a string field, and
// compared as text with numbers and booleans.
type filter []clause

type clause struct {
	or     bool // joined to what is on the left by or
	negate bool
	field  string
	value  string
	re     *regexp.Regexp // nil: not a valid expression, compared as it is
}

func parseFilter(s string) (filter, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if len(s) > maxFilter {
		return nil, errs.Invalid("Invalid filter: longer than %d bytes", maxFilter)
	}
	words, err := splitFilter(s)
	if err != nil {
		return nil, err
	}
	var f filter
	for i := 0; i < len(words); {
		var c clause
		if len(f) > 0 {
			switch strings.ToLower(words[i].text) {
			case "and":
			case "or":
				c.or = true
			default:
				return nil, errs.Invalid("Invalid filter: %q stands where and or or must be", words[i].text)
			}
			i++
		}
		n, err := c.parse(words[i:])
		if err != nil {
			return nil, err
		}
		i += n
		f = append(f, c)
	}
	return f, nil
}

// parse reads one clause and returns how many words it took.
func (c *clause) parse(w []word) (int, error) {
	n := 0
	if len(w) > 0 && !w[0].quoted && strings.EqualFold(w[0].text, "not") {
		c.negate = true
		n, w = 1, w[1:]
	}
	switch len(w) {
	case 0:
		return 0, errs.Invalid("Invalid filter: clause has no field")
	case 1:
		return 0, errs.Invalid("Invalid filter: clause has no operator")
	case 2:
		return 0, errs.Invalid("Invalid filter: clause has no value")
	}
	switch strings.ToLower(w[1].text) {
	case "eq":
	case "ne":
		c.negate = !c.negate
	default:
		return 0, errs.Invalid("Invalid filter: unknown operator %q; allowed are eq and ne", w[1].text)
	}
	c.field, c.value = w[0].text, w[2].text
	expr := c.value
	if !strings.HasPrefix(expr, "^") && !strings.HasSuffix(expr, "$") {
		expr = "^(?:" + expr + ")$"
	}
	c.re, _ = regexp.Compile("(?i)" + expr) // lxc offers "status=running" for what is Running
	return n + 3, nil
}

type word struct {
	text   string
	quoted bool
}

// splitFilter cuts at blanks; quotes keep blanks, a backslash in quotes keeps the next character.
func splitFilter(s string) ([]word, error) {
	var words []word
	for {
		s = strings.TrimLeft(s, " \t\n\r")
		if s == "" {
			return words, nil
		}
		if q := s[0]; q == '"' || q == '\'' {
			text, rest, ok := unquote(s[1:], q)
			if !ok {
				return nil, errs.Invalid("Invalid filter: a quote is not closed")
			}
			words = append(words, word{text, true})
			s = rest
			continue
		}
		end := strings.IndexAny(s, " \t\n\r")
		if end < 0 {
			end = len(s)
		}
		words = append(words, word{s[:end], false})
		s = s[end:]
	}
}

func unquote(s string, quote byte) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == quote:
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// match reports whether an object, seen as JSON, passes. An empty filter passes everything.
func (f filter) match(object any) bool {
	if len(f) == 0 {
		return true
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return false
	}
	var tree map[string]any
	if json.Unmarshal(raw, &tree) != nil {
		return false
	}
	result := true
	for i, c := range f {
		m := c.match(tree)
		switch {
		case i == 0:
			result = m
		case c.or:
			result = result || m
		default:
			result = result && m
		}
	}
	return result
}

func (c clause) match(tree map[string]any) bool {
	equal := false
	switch v := lookup(tree, c.field).(type) {
	case nil:
	case string:
		equal = strings.EqualFold(v, c.value) || (c.re != nil && c.re.MatchString(v))
	case bool:
		equal = strconv.FormatBool(v) == strings.ToLower(c.value)
	case float64:
		equal = strconv.FormatFloat(v, 'f', -1, 64) == c.value
	default:
		equal = fmt.Sprint(v) == c.value
	}
	return equal != c.negate
}

// lookup follows a dotted path. Configuration keys have dots of their own, so what is left of the path is tried as one
// key first.
func lookup(tree map[string]any, field string) any {
	if v, ok := tree[field]; ok {
		return v
	}
	for i := 0; i < len(field); i++ {
		if field[i] != '.' {
			continue
		}
		if sub, ok := tree[field[:i]].(map[string]any); ok {
			if v := lookup(sub, field[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// filtered is listing of what passes the filter. Without urlOf there is only the full form.
func filtered[T any](r *request, items []T, f filter, urlOf func(T) string) response {
	if len(f) > 0 {
		kept := items[:0:0]
		for _, it := range items {
			if f.match(it) {
				kept = append(kept, it)
			}
		}
		items = kept
	}
	if urlOf == nil {
		if items == nil {
			items = []T{}
		}
		return reply(items)
	}
	return listing(r, items, urlOf)
}
