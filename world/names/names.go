// Package names makes and reads the keys of the World.
package names

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// Limits of what stands in keys and values, in bytes.
const (
	MaxNamespace = 255
	MaxMachine   = 253
	MaxName      = 512
	MaxValue     = 960 << 10 // a transaction holds 1 MiB, keys included
)

// DefaultNamespace is where the World lies when nothing else is said.
const DefaultNamespace = "/shoal/world"

// Everyone stands for all machines where a machine is named.
const Everyone = "*"

// Namespace is a prefix of keys; the zero value is DefaultNamespace. Worlds with different namespaces see nothing of each other.
type Namespace struct{ s string }

var namespaceRE = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)

// ParseNamespace reads a namespace: parts of letters, digits, dots, underscores and hyphens, each after a slash. "" is the default. Class
// Invalid for anything else, and for what lies within the cluster's own tables or around them.
func ParseNamespace(s string) (Namespace, error) {
	if s == "" {
		return Namespace{}, nil
	}
	if len(s) > MaxNamespace || !namespaceRE.MatchString(s) {
		return Namespace{}, errs.Invalid("namespace %q: must be parts like /shoal/world, of letters, digits, dots, underscores and hyphens, and have at most %d bytes", s, MaxNamespace)
	}
	if own := state.DefaultPrefix; strings.HasPrefix(s+"/", own) || strings.HasPrefix(own, s+"/") {
		return Namespace{}, errs.Invalid("namespace %q: the tables of the cluster lie in %s", s, strings.TrimSuffix(own, "/"))
	}
	return Namespace{s}, nil
}

// String returns the namespace without a slash at its end.
func (n Namespace) String() string {
	if n.s == "" {
		return DefaultNamespace
	}
	return n.s
}

// Key returns the key of these parts. Each is escaped: a slash in a part never separates.
func (n Namespace) Key(parts ...string) string { return n.String() + "/" + state.Key(parts...) }

// Prefix returns the beginning of all keys whose first parts are these, and of no others.
func (n Namespace) Prefix(parts ...string) string { return n.String() + "/" + state.Prefix(parts...) }

// Split is the inverse of Key. ok is false for a key of another namespace and for one that Key cannot have made.
func (n Namespace) Split(key string) (parts []string, ok bool) {
	rest, ok := strings.CutPrefix(key, n.String()+"/")
	if !ok {
		return nil, false
	}
	parts = state.SplitKey(rest)
	return parts, state.Key(parts...) == rest
}

// Machine is the name of a machine.
type Machine struct{ s string }

var machineRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// ParseMachine reads a machine's name: 1 to 253 letters, digits, dots, underscores and hyphens, at least one letter or digit, not
// beginning with a dot or hyphen (the rule of mgmt's util.ValidHostname). Class Invalid for anything else.
func ParseMachine(s string) (Machine, error) {
	if len(s) > MaxMachine || !machineRE.MatchString(s) || strings.Trim(s, "._-") == "" {
		return Machine{}, errs.Invalid("machine name %q: must have 1 to %d letters, digits, dots, underscores and hyphens, one of them a letter or digit, and not begin with a dot or hyphen", s, MaxMachine)
	}
	return Machine{s}, nil
}

// String returns the name.
func (m Machine) String() string { return m.s }

// IsZero says that there is no name.
func (m Machine) IsZero() bool { return m.s == "" }

// Check reports, with class Invalid, what cannot be a name in a key: nothing, too many bytes, what is not UTF-8, control characters.
// Everything else is allowed, slashes too. what says in the error whose name it is.
func Check(what, s string) error {
	switch {
	case s == "":
		return errs.Invalid("%s is empty", what)
	case len(s) > MaxName:
		return errs.Invalid("%s has %d bytes, at most %d are allowed", what, len(s), MaxName)
	case !utf8.ValidString(s):
		return errs.Invalid("%s %q is not UTF-8", what, s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return errs.Invalid("%s %q has control characters", what, s)
	}
	return nil
}

// CheckValue reports, with class TooLarge, a value that does not fit into a transaction.
func CheckValue(what string, size int) error {
	if size > MaxValue {
		return errs.TooLarge("%s has %d bytes, at most %d are allowed", what, size, MaxValue)
	}
	return nil
}
