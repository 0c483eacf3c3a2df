package schema

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/units"
)

// Limits on a whole configuration, whatever its keys are.
const (
	maxKeys    = 10_000
	maxKeyName = 255
)

// Key describes one configuration key, or a family of them.
type Key struct {
	// Name is the key, or a pattern: "*" as the last part stands for one or more parts ("user.*"), elsewhere for exactly
	// one ("volatile.*.hwaddr").
	Name string
	Type Type
	// Default is what holds when the key is not set; empty: nothing does. For a default that depends on other things
	// say so in Doc.
	Default string
	// Live means that a change takes effect on what runs, without a restart.
	Live bool
	// Internal keys are written by the daemon only; [Table.ValidateChange] refuses a client's change.
	Internal bool
	// Restricted names the restriction of a project that governs the key, "" when none does.
	Restricted string
	// Scope narrows the table to a kind of object, for example "container"; empty: all kinds.
	Scope string
	// Doc says in one sentence what the key is for.
	Doc string
}

// Table is a set of keys.
type Table struct {
	unknown string
	exact   map[string]Key
	pattern []Key // longest first: the most exact wins
	all     []Key // by name
}

// New makes a table. unknown is the text for a key that is not in it, with one %s or %q for the key; empty means LXD's
// "Unknown configuration key: %s". A table is part of the program, so a mistake in it (a key twice, a default that its own
// type refuses) panics, in the first test that touches the room.
func New(unknown string, keys ...Key) *Table {
	if unknown == "" {
		unknown = "Unknown configuration key: %s"
	}
	t := &Table{unknown: unknown, exact: map[string]Key{}, all: slices.Clone(keys)}
	slices.SortStableFunc(t.all, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	for i, k := range t.all {
		if k.Name == "" || i > 0 && t.all[i-1].Name == k.Name && (t.all[i-1].Scope == k.Scope || k.Scope == "" || t.all[i-1].Scope == "") {
			panic(fmt.Sprintf("schema: key %q is empty or twice in the table", k.Name))
		}
		if k.Default != "" {
			if err := k.check(k.Default); err != nil {
				panic(fmt.Sprintf("schema: default of %s: %v", k.Name, err))
			}
		}
		if strings.Contains(k.Name, "*") {
			t.pattern = append(t.pattern, k)
		} else {
			t.exact[k.Scope+"\x00"+k.Name] = k
		}
	}
	slices.SortStableFunc(t.pattern, func(a, b Key) int { return len(b.Name) - len(a.Name) })
	return t
}

// Keys walks all keys in the order of their names, for documentation and completion.
func (t *Table) Keys() iter.Seq[Key] { return slices.Values(t.all) }

// Lookup finds the key that name belongs to, for objects of the kind scope. scope "" finds only keys of all kinds, except that a
// profile, which may be meant for any kind, passes [AnyScope].
func (t *Table) Lookup(name, scope string) (Key, bool) {
	if k, ok := t.exact["\x00"+name]; ok {
		return k, true
	}
	if k, ok := t.exact[scope+"\x00"+name]; ok {
		return k, true
	}
	if scope == AnyScope {
		for _, k := range t.all {
			if k.Name == name {
				return k, true
			}
		}
	}
	for _, k := range t.pattern {
		if (k.Scope == "" || k.Scope == scope || scope == AnyScope) && match(k.Name, name) {
			return k, true
		}
	}
	return Key{}, false
}

// AnyScope finds keys of every kind, see [Table.Lookup].
const AnyScope = "*"

func match(pattern, name string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, ".")
		n, restN, moreN := strings.Cut(name, ".")
		switch {
		case n == "":
			return false
		case p == "*" && !moreP:
			return !strings.HasSuffix(name, ".") && !strings.Contains(name, "..")
		case p != "*" && p != n, moreP != moreN:
			return false
		case !moreP:
			return true
		}
		pattern, name = restP, restN
	}
}

// Validate checks every key and value of config. The error (errs.InvalidInput) has all complaints, ordered by key; each names
// the key, the value and what is allowed.
func (t *Table) Validate(config map[string]string, scope string) error {
	if len(config) > maxKeys {
		return errs.TooLarge("the configuration has %d keys, at most %d are allowed", len(config), maxKeys)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(config)) {
		if err := t.ValidateKey(name, config[name], scope); err != nil {
			all = append(all, err.Error())
		}
		if len(all) == 10 {
			all = append(all, "…")
			break
		}
	}
	if all != nil {
		return errs.Invalid("%s", strings.Join(all, "; "))
	}
	return nil
}

// ValidateKey checks one key and its value; an empty value is always allowed and means that the key is not set.
func (t *Table) ValidateKey(name, value, scope string) error {
	if len(name) > maxKeyName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }) {
		return errs.Invalid("bad configuration key %.80q: allowed are at most %d bytes without spaces and control characters", name, maxKeyName)
	}
	k, ok := t.Lookup(name, scope)
	if !ok {
		return errs.Invalid(t.unknown, name)
	}
	if value == "" {
		return nil
	}
	if err := k.check(value); err != nil {
		return errs.Invalid("Invalid value for %q: %w", name, err)
	}
	return nil
}

func (k Key) check(value string) error {
	limit := k.Type.Max
	if limit == 0 {
		limit = maxValue
	}
	switch {
	case len(value) > limit:
		return fmt.Errorf("it has %d bytes, at most %d are allowed", len(value), limit)
	case strings.ContainsRune(value, 0):
		return errors.New("it has a NUL byte")
	case !k.Type.Lines && strings.ContainsAny(value, "\n\r\u2028\u2029"):
		return errors.New("it has more than one line")
	case k.Type.Check == nil:
		return nil
	}
	if err := k.Type.Check(value); err != nil {
		return fmt.Errorf("%.200q: %w", value, err)
	}
	return nil
}

// Change is a difference between two configurations.
type Change struct {
	Name     string
	Old, New string // empty: not set
	Key      Key    // of the table; the zero Key when the table does not know it any more
}

// Diff lists what changes from before to after, ordered by key. Setting a key to "" equals removing it.
func (t *Table) Diff(before, after map[string]string, scope string) []Change {
	names := map[string]bool{}
	for n := range before {
		names[n] = true
	}
	for n := range after {
		names[n] = true
	}
	var out []Change
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if before[n] != after[n] {
			k, _ := t.Lookup(n, scope)
			out = append(out, Change{Name: n, Old: before[n], New: after[n], Key: k})
		}
	}
	return out
}

// ValidateChange checks what a client may change: all of after that differs from before must be valid, and no
// key that only the daemon writes may differ. What is stored already, by an older version perhaps, is left alone.
func (t *Table) ValidateChange(before, after map[string]string, scope string) error {
	changed := map[string]string{}
	for _, c := range t.Diff(before, after, scope) {
		if c.Key.Internal {
			return errs.Invalid("%q is kept by the daemon and cannot be changed", c.Name)
		}
		if c.New != "" {
			changed[c.Name] = c.New
		}
	}
	return t.Validate(changed, scope)
}

// Get returns the value of a key, its default when it is not set. name must be in the table, a mistake panics.
func (t *Table) Get(config map[string]string, name string) string {
	if v := config[name]; v != "" {
		return v
	}
	k, ok := t.Lookup(name, AnyScope)
	if !ok {
		panic("schema: no key " + name)
	}
	return k.Default
}

// Bool returns the value of a boolean key, see [Table.Get].
func (t *Table) Bool(config map[string]string, name string) bool {
	b, _ := ParseBool(t.Get(config, name))
	return b
}

// Int returns the value of a number key, see [Table.Get]; 0 when it is neither set nor has a default.
func (t *Table) Int(config map[string]string, name string) int64 {
	n, _ := strconv.ParseInt(t.Get(config, name), 10, 64)
	return n
}

// Size returns the value of a size key in bytes, see [Table.Get]; a percentage is taken of total.
func (t *Table) Size(config map[string]string, name string, total int64) int64 {
	n, _ := units.ParseBytesOrPercent(t.Get(config, name), total)
	return n
}

// Defaults returns config with the defaults of all keys that are not set and are no patterns.
func (t *Table) Defaults(config map[string]string, scope string) map[string]string {
	out := maps.Clone(config)
	if out == nil {
		out = map[string]string{}
	}
	for _, k := range t.all {
		if k.Default != "" && out[k.Name] == "" && (k.Scope == "" || k.Scope == scope) && !strings.Contains(k.Name, "*") {
			out[k.Name] = k.Default
		}
	}
	return out
}
