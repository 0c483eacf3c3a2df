package schema

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/units"
)

// Type says which values a key takes. Make one with a function of this package.
type Type struct {
	Name    string             // one word: bool, integer, size, …
	Allowed string             // what is allowed, for errors and documentation: "true or false"
	Lines   bool               // the value may have several lines
	Max     int                // longest value in bytes; 0 means maxValue
	Check   func(string) error // nil: every value; the error need not repeat the value
}

// maxValue is the longest value of a key that does not say otherwise, in bytes.
const maxValue = 4096

func simple(name, allowed string, ok func(string) bool) Type {
	return Type{Name: name, Allowed: allowed, Check: func(s string) error {
		if !ok(s) {
			return fmt.Errorf("allowed is %s", allowed)
		}
		return nil
	}}
}

// String takes any single line.
func String() Type { return Type{Name: "string", Allowed: "a line of text"} }

// Text takes several lines, at most max bytes.
func Text(max int) Type {
	return Type{Name: "text", Allowed: fmt.Sprintf("text of at most %d bytes", max), Lines: true, Max: max}
}

// ParseBool reads a boolean as LXD does: true, yes, on and 1, false, no, off and 0, in any case.
func ParseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// Bool takes true or false and the other words that LXD takes for them.
func Bool() Type {
	return simple("bool", "true or false", func(s string) bool { _, ok := ParseBool(s); return ok })
}

// Int takes a whole number from min to max.
func Int(min, max int64) Type {
	return simple("integer", fmt.Sprintf("a whole number from %d to %d", min, max), func(s string) bool {
		n, err := strconv.ParseInt(s, 10, 64)
		return err == nil && n >= min && n <= max && s[0] != '+'
	})
}

// OneOf takes one of the given words.
func OneOf(words ...string) Type {
	return simple("enum", "one of "+strings.Join(words, ", "), func(s string) bool { return slices.Contains(words, s) })
}

// ListOf takes a comma-separated list of what t takes, without empty elements.
func ListOf(t Type) Type {
	return Type{Name: "list of " + t.Name, Allowed: "a comma-separated list, each " + t.Allowed, Check: func(s string) error {
		for e := range strings.SplitSeq(s, ",") {
			e = strings.TrimSpace(e)
			if e == "" {
				return fmt.Errorf("the list has an empty element")
			}
			if t.Check == nil {
				continue
			}
			if err := t.Check(e); err != nil {
				return fmt.Errorf("element %q: %w", e, err)
			}
		}
		return nil
	}}
}

// Or takes what one of the types takes.
func Or(types ...Type) Type {
	var names, allowed []string
	for _, t := range types {
		names, allowed = append(names, t.Name), append(allowed, t.Allowed)
	}
	out := simple(strings.Join(names, " or "), strings.Join(allowed, ", or "), func(s string) bool {
		return slices.ContainsFunc(types, func(t Type) bool { return t.Check == nil || t.Check(s) == nil })
	})
	return out
}

// Size takes a size in bytes, see [units.ParseBytes].
func Size() Type {
	return Type{Name: "size", Allowed: "a size such as 10GiB or 500MB", Check: func(s string) error { _, err := units.ParseBytes(s); return err }}
}

// SizeOrPercent takes a size in bytes or a percentage.
func SizeOrPercent() Type {
	return Type{Name: "size or percentage", Allowed: "a size such as 10GiB, or 1% to 100%", Check: func(s string) error {
		_, err := units.ParseBytesOrPercent(s, 100)
		return err
	}}
}

// Percent takes 1% to 100%.
func Percent() Type {
	return Type{Name: "percentage", Allowed: "1% to 100%", Check: func(s string) error { _, err := units.ParsePercent(s); return err }}
}

// Rate takes a rate in bits per second, see [units.ParseBits].
func Rate() Type {
	return Type{Name: "rate", Allowed: "a rate such as 100Mbit", Check: func(s string) error { _, err := units.ParseBits(s); return err }}
}

// Expiry takes an expression such as "1d 12H", see [units.AddExpiry].
func Expiry() Type {
	return Type{Name: "expiry", Allowed: "numbers with the units S, M, H, d, w, m, y", Check: func(s string) error {
		_, err := units.AddExpiry(time.Unix(0, 0), s)
		return err
	}}
}

var macRE = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$`)

// MAC takes a unicast Ethernet address.
func MAC() Type {
	return simple("MAC address", "a unicast MAC address such as 00:16:3e:12:34:56", func(s string) bool {
		m, err := net.ParseMAC(s)
		return macRE.MatchString(s) && err == nil && m[0]&1 == 0
	})
}

// Addr takes an address without a zone; bits is 32 for IPv4, 128 for IPv6.
func Addr(bits int) Type {
	return simple(family(bits)+" address", "an "+family(bits)+" address", func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err == nil && a.BitLen() == bits && a.Zone() == "" && !a.Is4In6()
	})
}

// CIDR takes an address with a prefix length, such as 10.0.0.1/24; bits as for [Addr].
func CIDR(bits int) Type {
	return simple(family(bits)+" CIDR", "an "+family(bits)+" address with a prefix length", func(s string) bool {
		p, err := netip.ParsePrefix(s)
		return err == nil && p.Addr().BitLen() == bits && !p.Addr().Is4In6()
	})
}

func family(bits int) string {
	if bits == 32 {
		return "IPv4"
	}
	return "IPv6"
}

// Pattern takes what matches the whole of a regular expression; allowed says it in words.
func Pattern(name, allowed, expr string) Type {
	re := regexp.MustCompile(`\A(?:` + expr + `)\z`)
	return simple(name, allowed, re.MatchString)
}

// Custom takes what check returns nil for; allowed says it in words.
func Custom(name, allowed string, check func(string) error) Type {
	return Type{Name: name, Allowed: allowed, Check: check}
}
