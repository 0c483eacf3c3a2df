package fake

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

var ops = []string{
	"create", "start", "shutdown", "kill", "freeze", "unfreeze", "exec", "console", "consolelog",
	"clearconsolelog", "files", "stats", "setlimits", "cleanup", "recover", "*",
}

type rule struct {
	op, id string
	nth    int // 0: every call
	seen   int
	action string
	err    error
	code   int
}

// Inject adds the rules of script (see the package comment). On a syntax error none is added.
func (h *Host) Inject(script string) error {
	rules, err := parse(script)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rules = append(h.rules, rules...)
	return nil
}

// Heal forgets all rules. Calls that hang already stay so until their context ends.
func (h *Host) Heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rules = nil
}

func parse(script string) ([]*rule, error) {
	var out []*rule
	n := 0
	for line := range strings.Lines(script) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := parseRule(strings.Fields(line))
		if err != nil {
			return nil, errs.Invalid("fault rule in line %d: %v", n, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func parseRule(f []string) (*rule, error) {
	if len(f) < 3 {
		return nil, fmt.Errorf("want OP ID ACTION, got %d words", len(f))
	}
	r := &rule{op: f[0], id: f[1]}
	if !slices.Contains(ops, r.op) {
		return nil, fmt.Errorf("operation %q is none of %s", r.op, strings.Join(ops, " "))
	}
	f = f[2:]
	if f[0] == "nth" {
		if len(f) < 3 {
			return nil, fmt.Errorf("nth wants a number and an action")
		}
		n, err := strconv.Atoi(f[1])
		if err != nil || n < 1 {
			return nil, fmt.Errorf("nth wants a number from 1 on, not %q", f[1])
		}
		r.nth, f = n, f[2:]
	}
	r.action = f[0]
	return r, r.parseArgs(f[1:])
}

func (r *rule) parseArgs(args []string) error {
	switch r.action {
	case "error", "after":
		if len(args) < 2 {
			return fmt.Errorf("%s wants a class and a text", r.action)
		}
		c, ok := classByName(args[0])
		if !ok {
			return fmt.Errorf("unknown error class %q", args[0])
		}
		r.err = errs.Classify(c, fmt.Errorf("%s", strings.Join(args[1:], " ")))
		return nil
	case "exit":
		if len(args) != 1 {
			return fmt.Errorf("exit wants a code")
		}
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 0 || n > 255 {
			return fmt.Errorf("exit wants a code from 0 to 255, not %q", args[0])
		}
		r.code = n
		return nil
	case "hang", "reboot", "ignore":
		if len(args) != 0 {
			return fmt.Errorf("%s takes no argument", r.action)
		}
		return nil
	}
	return fmt.Errorf("action %q is none of error, after, hang, exit, reboot, ignore", r.action)
}

func classByName(s string) (errs.Class, bool) {
	for c := errs.Internal; c <= errs.UnsupportedClass; c++ {
		if c.String() == s {
			return c, true
		}
	}
	return 0, false
}

// match finds the rule for a call and counts it.
func (h *Host) match(op, id string) *rule {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls[op]++
	for _, r := range h.rules {
		if r.op != "*" && r.op != op || r.id != "*" && r.id != id {
			continue
		}
		r.seen++
		if r.nth == 0 || r.nth == r.seen {
			return r
		}
	}
	return nil
}

// do runs effect under the rules.
func (h *Host) do(ctx context.Context, op, id string, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := h.match(op, id)
	if r == nil {
		return effect()
	}
	switch r.action {
	case "error":
		return fmt.Errorf("%s %s: %w", op, id, r.err)
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "ignore":
		return nil
	}
	if err := effect(); err != nil {
		return err
	}
	switch r.action {
	case "after":
		return fmt.Errorf("%s %s: %w", op, id, r.err)
	case "exit":
		h.Exit(id, driver.Exit{Code: r.code})
	case "reboot":
		h.Exit(id, driver.Exit{Code: 129, Reboot: true})
	}
	return nil
}
