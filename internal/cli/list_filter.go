package cli

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
)

// matches reports whether an instance passes all filters.
func matches(i api.InstanceFull, filters []string) bool {
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			if !nameMatches(i.Name, f) {
				return false
			}
			continue
		}
		match := func() bool { return configMatches(i.ExpandedConfig, key, value) }
		if short, ok := shorthands[key]; ok {
			match = func() bool { return short(i, strings.Split(value, ",")) }
		}
		if !match() {
			return false
		}
	}
	return true
}

// nameMatches takes a filter without "=" as the beginning of the name or a regular expression for it.
func nameMatches(name, filter string) bool {
	if strings.HasPrefix(name, filter) {
		return true
	}
	expr := filter
	if !strings.ContainsAny(filter, "^$") {
		expr = "^" + filter
	}
	re, err := regexp.Compile(expr)
	return err == nil && re.MatchString(name)
}

// configMatches looks for a configuration key that filter key shortens and whose value matches.
func configMatches(config api.Config, key, value string) bool {
	if config[key] == value && value != "" {
		return true
	}
	expr := value
	if !strings.ContainsAny(value, "^$") {
		expr = "^" + value + "$"
	}
	re, err := regexp.Compile(expr)
	for k, v := range config {
		if !shortens(key, k) {
			continue
		}
		if v == value || (err == nil && re.MatchString(v)) {
			return true
		}
	}
	return false
}

// shortens reports whether each part of short begins the same part of full: "s.p" for "security.privileged".
func shortens(short, full string) bool {
	s, f := strings.Split(short, "."), strings.Split(full, ".")
	if len(s) != len(f) {
		return false
	}
	for i := range s {
		if !strings.HasPrefix(f[i], s[i]) {
			return false
		}
	}
	return true
}

// shorthands are the keys that are no configuration keys.
var shorthands = map[string]func(api.InstanceFull, []string) bool{
	"type":         func(i api.InstanceFull, v []string) bool { return oneOf(i.Type, v) },
	"status":       func(i api.InstanceFull, v []string) bool { return oneOf(i.Status, v) },
	"architecture": func(i api.InstanceFull, v []string) bool { return oneOf(i.Architecture, v) },
	"location":     func(i api.InstanceFull, v []string) bool { return oneOf(i.Location, v) },
	"ipv4":         func(i api.InstanceFull, v []string) bool { return hasAddress(i, "inet", v) },
	"ipv6":         func(i api.InstanceFull, v []string) bool { return hasAddress(i, "inet6", v) },
}

func oneOf(s string, values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, s) })
}

// hasAddress reports whether an address of the family is one of values, or within one of them.
func hasAddress(i api.InstanceFull, family string, values []string) bool {
	for _, have := range addresses(i, family) {
		addr, err := netip.ParseAddr(strings.Fields(have)[0])
		if err != nil {
			continue
		}
		for _, v := range values {
			if p, err := netip.ParsePrefix(v); err == nil && p.Contains(addr) {
				return true
			}
			if want, err := netip.ParseAddr(v); err == nil && want == addr {
				return true
			}
		}
	}
	return false
}
