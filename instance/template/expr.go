package template

import (
	"fmt"
	"strings"
)

// parser evaluates an expression while it reads it. Each level of precedence is a method.
type parser struct {
	ctx  Context
	toks []string
}

func (p *parser) peek() string {
	if len(p.toks) == 0 {
		return ""
	}
	return p.toks[0]
}

func (p *parser) accept(toks ...string) bool {
	for _, t := range toks {
		if p.peek() == t {
			p.toks = p.toks[1:]
			return true
		}
	}
	return false
}

func (p *parser) or(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("expression is nested too deeply")
	}
	v, err := p.and(depth)
	for err == nil && p.accept("or", "||") {
		var w any
		w, err = p.and(depth)
		v = truth(v) || truth(w)
	}
	return v, err
}

func (p *parser) and(depth int) (any, error) {
	v, err := p.compare(depth)
	for err == nil && p.accept("and", "&&") {
		var w any
		w, err = p.compare(depth)
		v = truth(v) && truth(w)
	}
	return v, err
}

func (p *parser) compare(depth int) (any, error) {
	if p.accept("not", "!") {
		if depth > maxDepth {
			return nil, fmt.Errorf("expression is nested too deeply")
		}
		v, err := p.compare(depth + 1)
		return !truth(v), err
	}
	v, err := p.filtered(depth)
	if err != nil {
		return nil, err
	}
	switch {
	case p.accept("=="):
		w, err := p.filtered(depth)
		return asText(v) == asText(w), err
	case p.accept("!="):
		w, err := p.filtered(depth)
		return asText(v) != asText(w), err
	}
	return v, nil
}

func (p *parser) filtered(depth int) (any, error) {
	v, err := p.value(depth)
	for err == nil && p.accept("|") {
		name := p.peek()
		if !p.accept("default", "lower", "upper", "trim", "safe") {
			return nil, fmt.Errorf("filter %.20q is not supported; default, lower, upper and trim are", name)
		}
		switch name {
		case "lower":
			v = strings.ToLower(asText(v))
		case "upper":
			v = strings.ToUpper(asText(v))
		case "trim":
			v = strings.TrimSpace(asText(v))
		case "default":
			if !p.accept(":") {
				return nil, fmt.Errorf(`default needs a value: default:"x"`)
			}
			var w any
			if w, err = p.value(depth); !truth(v) {
				v = w
			}
		}
	}
	return v, err
}

func (p *parser) value(depth int) (any, error) {
	if len(p.toks) == 0 {
		return nil, fmt.Errorf("expression ends too early")
	}
	t := p.toks[0]
	p.toks = p.toks[1:]
	switch {
	case t[0] == '"':
		return t[1:], nil
	case t == "(":
		v, err := p.or(depth + 1)
		if err == nil && !p.accept(")") {
			err = fmt.Errorf("a parenthesis is not closed")
		}
		return v, err
	case t == "true" || t == "True":
		return true, nil
	case t == "false" || t == "False":
		return false, nil
	case t == "config_get":
		return p.configGet(depth)
	case !isWord(t[0]):
		return nil, fmt.Errorf("unexpected %.20q", t)
	case t[0] >= '0' && t[0] <= '9':
		return t, nil
	case p.peek() == "(":
		return nil, fmt.Errorf("function %.20q is not supported; config_get is", t)
	}
	return p.lookup(t)
}

func (p *parser) configGet(depth int) (any, error) {
	if !p.accept("(") {
		return nil, fmt.Errorf(`config_get needs ("key", "default")`)
	}
	key, err := p.or(depth + 1)
	var def any = ""
	if err == nil && p.accept(",") {
		def, err = p.or(depth + 1)
	}
	if err == nil && !p.accept(")") {
		err = fmt.Errorf(`config_get needs ("key", "default")`)
	}
	if v, ok := p.ctx.Config[asText(key)]; ok && err == nil {
		return v, nil
	}
	return def, err
}

// lookup resolves a.b.c and a["b"]; what does not exist is empty, as in Django.
func (p *parser) lookup(path string) (any, error) {
	var v any = p.ctx.Names
	for _, part := range strings.Split(path, ".") {
		v = field(v, part)
	}
	for p.accept("[") {
		t := p.peek()
		if t == "" || t[0] != '"' {
			return nil, fmt.Errorf("a subscript must be a string")
		}
		p.toks = p.toks[1:]
		if !p.accept("]") {
			return nil, fmt.Errorf("a subscript is not closed")
		}
		v = field(v, t[1:])
	}
	return v, nil
}

func field(v any, name string) any {
	switch m := v.(type) {
	case map[string]any:
		return m[name]
	case map[string]string:
		if s, ok := m[name]; ok {
			return s
		}
	}
	return nil
}
