package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// Bounds of what one instance or profile may carry. A record must fit into one value of the database (1.5 MiB).
const (
	maxKey   = 255
	maxValue = 256 << 10
	maxTotal = 768 << 10
)

// Check validates configuration keys and values for a type of instance ([Any] for profiles). With volatile set, the server's
// own keys are allowed. The error names the key, the value, and what is allowed; of several it is always the same one.
func Check(cfg api.Config, scope string, volatile bool) error {
	total := 0
	for _, name := range sortedKeys(cfg) {
		value := cfg[name]
		total += len(name) + len(value)
		if len(name) > maxKey || len(value) > maxValue || total > maxTotal {
			return errs.TooLarge("configuration key %.40q: a key may have %d bytes, a value %d, all together %d", name, maxKey, maxValue, maxTotal)
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return errs.Invalid("invalid value for configuration key %q: it must be UTF-8 text without NUL", name)
		}
		if err := checkOne(name, value, scope, volatile); err != nil {
			return err
		}
	}
	return nil
}

func checkOne(name, value, scope string, volatile bool) error {
	k, ok := Find(name, scope)
	if !ok || k.Internal && !volatile || !plainKeyRE.MatchString(name) {
		return errs.Invalid("Unknown configuration key: %s", name)
	}
	if value == "" || k.Internal {
		return nil // empty means unset
	}
	if k.Planned && !slices.Contains(k.Neutral, strings.ToLower(value)) {
		also := ""
		if len(k.Neutral) > 0 {
			also = fmt.Sprintf(" (only %q, which is what happens anyway)", k.Neutral[0])
		}
		return errs.Unsupported("configuration key %q is not supported yet%s", name, also)
	}
	return table.ValidateKey(name, value, scope)
}

// plainKeyRE keeps control characters, spaces and "=" out of keys, which travel into environments and logs.
var plainKeyRE = regexp.MustCompile(`^[A-Za-z0-9_.:@+/-]+$`)

// Clean returns a copy without empty values, which mean unset. It is never nil.
func Clean(cfg api.Config) api.Config {
	out := make(api.Config, len(cfg))
	for k, v := range cfg {
		if v != "" {
			out[k] = v
		}
	}
	return out
}

// IsTrue reports whether a boolean value, checked before, is true.
func IsTrue(v string) bool { b, _ := schema.ParseBool(v); return b }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
