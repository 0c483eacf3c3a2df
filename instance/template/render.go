package template

import (
	"fmt"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// Context is what a template can see. Values are strings, bools, and maps with string keys of the same.
type Context struct {
	Names  map[string]any
	Config map[string]string // what config_get reads
}

// Render evaluates a template. Errors are of class InvalidInput and name the line; the output never exceeds MaxOutput.
func Render(src string, c Context) (string, error) {
	if len(src) > MaxSource {
		return "", errs.TooLarge("template has %d bytes, %d are allowed", len(src), MaxSource)
	}
	nodes, err := split(src)
	if err != nil {
		return "", errs.Classify(errs.InvalidInput, err)
	}
	r := renderer{ctx: c, nodes: nodes}
	if err := r.block(0, true); err != nil {
		return "", errs.Classify(errs.InvalidInput, err)
	}
	if r.pos < len(nodes) {
		return "", errs.Invalid("line %d: %q without an if", nodes[r.pos].line, nodes[r.pos].body)
	}
	return r.out.String(), nil
}

type renderer struct {
	ctx   Context
	nodes []node
	pos   int
	out   strings.Builder
}

// block renders until a tag that ends or continues an if, which it leaves for the caller. With live false it only skips.
func (r *renderer) block(depth int, live bool) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d nested ifs", maxDepth)
	}
	for r.pos < len(r.nodes) {
		n := r.nodes[r.pos]
		word, rest, _ := strings.Cut(n.body, " ")
		switch {
		case n.kind == text && live:
			r.out.WriteString(n.body)
		case n.kind == output && live:
			v, err := r.eval(n.body)
			if err != nil {
				return fmt.Errorf("line %d: %w", n.line, err)
			}
			r.out.WriteString(asText(v))
		case n.kind != tag:
		case word == "if":
			if err := r.conditional(depth, live, rest); err != nil {
				return err
			}
		case word == "elif" || word == "else" || word == "endif":
			return nil
		default:
			return fmt.Errorf("line %d: tag %.20q is not supported; if, elif, else and endif are", n.line, word)
		}
		if r.out.Len() > MaxOutput {
			return errs.TooLarge("line %d: the output is larger than %d bytes", n.line, MaxOutput)
		}
		r.pos++
	}
	return nil
}

// conditional renders one if … endif and leaves pos on the endif.
func (r *renderer) conditional(depth int, live bool, cond string) error {
	line, done, sawElse := r.nodes[r.pos].line, !live, false
	for {
		hit := false
		if !done {
			v, err := r.eval(cond)
			if err != nil {
				return fmt.Errorf("line %d: %w", line, err)
			}
			hit = truth(v)
		}
		done = done || hit
		r.pos++
		if err := r.block(depth+1, hit); err != nil {
			return err
		}
		if r.pos >= len(r.nodes) {
			return fmt.Errorf("line %d: if without endif", line)
		}
		word, rest, _ := strings.Cut(r.nodes[r.pos].body, " ")
		switch {
		case word == "endif":
			return nil
		case sawElse:
			return fmt.Errorf("line %d: %s after else", r.nodes[r.pos].line, word)
		case word == "else":
			cond, sawElse = "true", true
		default:
			cond = rest
		}
	}
}

func (r *renderer) eval(s string) (any, error) {
	toks, err := tokens(s)
	if err != nil {
		return nil, err
	}
	p := parser{ctx: r.ctx, toks: toks}
	v, err := p.or(0)
	if err == nil && len(p.toks) > 0 {
		err = fmt.Errorf("unexpected %.20q", p.toks[0])
	}
	return v, err
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	}
	return true
}

func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	}
	return "" // a map has no text
}
