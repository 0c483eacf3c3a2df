package template

import (
	"fmt"
	"strings"
)

// Limits of a template.
const (
	MaxSource = 1 << 20
	MaxOutput = 1 << 20
	maxDepth  = 32
)

type nodeKind int

const (
	text   nodeKind = iota
	output          // {{ … }}
	tag             // {% … %}
)

type node struct {
	kind nodeKind
	body string
	line int
}

// split cuts the source into text, outputs and tags, and drops comments. "{%-" and "-%}" trim white space.
func split(src string) ([]node, error) {
	var nodes []node
	line, trimNext := 1, false
	add := func(n node) {
		if n.kind == text && trimNext {
			n.body = strings.TrimLeft(n.body, " \t\r\n")
		}
		trimNext = false
		if n.body != "" || n.kind != text {
			nodes = append(nodes, n)
		}
	}
	for src != "" {
		i := strings.IndexByte(src, '{')
		for i >= 0 && (i+1 >= len(src) || !strings.ContainsRune("{%#", rune(src[i+1]))) {
			j := strings.IndexByte(src[i+1:], '{')
			if j < 0 {
				i = -1
				break
			}
			i += 1 + j
		}
		if i < 0 {
			add(node{text, src, line})
			break
		}
		kind, end := output, "}}"
		switch src[i+1] {
		case '%':
			kind, end = tag, "%}"
		case '#':
			end = "#}"
		}
		j := strings.Index(src[i+2:], end)
		if j < 0 {
			return nil, fmt.Errorf("line %d: %q is not closed", line+strings.Count(src[:i], "\n"), src[i:i+2])
		}
		body, before := src[i+2:i+2+j], src[:i]
		if strings.HasPrefix(body, "-") && src[i+1] != '#' {
			body, before = body[1:], strings.TrimRight(before, " \t\r\n")
		}
		add(node{text, before, line})
		line += strings.Count(src[:i], "\n")
		if strings.HasSuffix(body, "-") && src[i+1] != '#' {
			body, trimNext = body[:len(body)-1], true
		}
		if src[i+1] != '#' {
			trim := trimNext
			trimNext = false
			add(node{kind, strings.TrimSpace(body), line})
			trimNext = trim
		}
		line += strings.Count(body, "\n")
		src = src[i+2+j+2:]
	}
	return nodes, nil
}

// tokens of an expression: names, strings (with the quote as first byte), numbers and operators.
func tokens(s string) ([]string, error) {
	var out []string
	for s = strings.TrimLeft(s, " \t\r\n"); s != ""; s = strings.TrimLeft(s, " \t\r\n") {
		switch c := s[0]; {
		case c == '"' || c == '\'':
			str, rest, err := quoted(s)
			if err != nil {
				return nil, err
			}
			out, s = append(out, `"`+str), rest
		case isWord(c):
			i := 1
			for i < len(s) && (isWord(s[i]) || s[i] == '.') {
				i++
			}
			out, s = append(out, s[:i]), s[i:]
		case strings.HasPrefix(s, "==") || strings.HasPrefix(s, "!=") || strings.HasPrefix(s, "&&") || strings.HasPrefix(s, "||"):
			out, s = append(out, s[:2]), s[2:]
		case strings.IndexByte("(),|:![]", c) >= 0:
			out, s = append(out, s[:1]), s[1:]
		default:
			return nil, fmt.Errorf("unexpected %q", c)
		}
		if len(out) > 1000 {
			return nil, fmt.Errorf("expression is too long")
		}
	}
	return out, nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func quoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", fmt.Errorf("string %.20q is not closed", s)
}
