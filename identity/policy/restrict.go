package policy

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// Governs returns the restriction under which a configuration key of an instance of a type falls, "" for none.
func Governs(key, typ string) string {
	const lowlevel, vmLowlevel = "restricted.containers.lowlevel", "restricted.virtual-machines.lowlevel"
	of := lowlevel
	if typ == vm {
		of = vmLowlevel
	}
	switch {
	case key == "raw.idmap":
		return "restricted.idmap" // .uid and .gid together
	case typ == container && strings.HasPrefix(key, "raw.qemu"), typ == vm && (key == "raw.lxc" || key == "raw.seccomp"):
		return "" // of the other type, which ignores them
	case strings.HasPrefix(key, "raw."), key == "boot.host_shutdown_timeout":
		return of
	case strings.HasPrefix(key, "snapshots.schedule"):
		return "restricted.snapshots"
	case typ == vm:
		if key == "limits.memory.hugepages" || key == "agent.nic_config" {
			return vmLowlevel
		}
		return ""
	case key == "security.privileged", key == "security.idmap.isolated":
		return "restricted.containers.privilege"
	case key == "security.nesting":
		return "restricted.containers.nesting"
	case strings.HasPrefix(key, "security.syscalls.intercept."):
		return "restricted.containers.interception"
	case strings.HasPrefix(key, "linux.sysctl."), key == "linux.kernel_modules", key == "security.devlxd.images", strings.HasPrefix(key, "security.guestapi.images"),
		key == "security.idmap.base", key == "security.idmap.size", key == "security.syscalls.allow", key == "security.syscalls.whitelist",
		key == "security.syscalls.deny_default", key == "security.syscalls.blacklist_default":
		return lowlevel
	}
	return ""
}

// harmless are values of governed keys that ask for nothing.
func harmless(v string) bool {
	b, ok := schema.ParseBool(v)
	return v == "" || ok && !b
}

// checkConfig looks at the effective configuration. what is "instance" or "profile".
func checkConfig(p Project, what, name, typ string, cfg map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(cfg)) {
		rule, v := Governs(key, typ), cfg[key]
		if rule == "" || v == "" {
			continue
		}
		ok := true
		switch rule {
		case "restricted.idmap":
			if err := checkIDMap(p, v); err != nil {
				return errs.Forbidden("%s %q of project %q: raw.idmap: %w", what, name, p.Name, err)
			}
		case "restricted.containers.privilege":
			ok = privilegeAllowed(p.word(rule), key, v)
		case "restricted.containers.interception":
			word := p.word(rule)
			ok = harmless(v) || word == full || word == allow && !strings.HasPrefix(key, "security.syscalls.intercept.mount")
		case "restricted.containers.nesting", "restricted.snapshots":
			ok = p.word(rule) == allow || harmless(v)
		default:
			on, isBool := schema.ParseBool(v)
			strict := isBool && on && strings.HasSuffix(key, "t_default") // the default list of denied calls, asked for by name
			ok = p.word(rule) == allow || strict
		}
		if !ok {
			return errs.Forbidden("%s %q of project %q: %s=%.60q is forbidden (%s=%s)", what, name, p.Name, key, v, rule, p.word(rule))
		}
	}
	return nil
}

// privilegeAllowed decides on security.privileged and security.idmap.isolated. Every unprivileged container has a range of its own unless it
// asks not to, so a key that is not set is isolated.
func privilegeAllowed(word, key, v string) bool {
	on, _ := schema.ParseBool(v)
	switch {
	case word == allow:
		return true
	case key == "security.privileged":
		return !on
	}
	return word != isolated || on
}

// span is a range of ids, both ends included.
type span struct{ from, to int64 }

func parseSpan(s string) (span, error) {
	a, b, isRange := strings.Cut(strings.TrimSpace(s), "-")
	from, err := strconv.ParseInt(a, 10, 64)
	to := from
	if err == nil && isRange {
		to, err = strconv.ParseInt(b, 10, 64)
	}
	if err != nil || from < 0 || to < from || to > 1<<32-2 {
		return span{}, fmt.Errorf("%q is not an id or a range such as 1000-1999", s)
	}
	return span{from, to}, nil
}

func parseRanges(s string) (out []span, err error) {
	for part := range strings.SplitSeq(s, ",") {
		r, err := parseSpan(part)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// checkIDMap holds every id of the host that raw.idmap names against restricted.idmap.uid and .gid.
func checkIDMap(p Project, raw string) error {
	for line := range strings.Lines(raw) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 || !slices.Contains([]string{"both", "uid", "gid"}, f[0]) {
			return fmt.Errorf("line %.60q is not \"both|uid|gid HOST INSTANCE\"", strings.TrimSpace(line))
		}
		host, err := parseSpan(f[1])
		if err != nil {
			return err
		}
		for _, kind := range []string{"uid", "gid"} {
			if f[0] != "both" && f[0] != kind {
				continue
			}
			rule := "restricted.idmap." + kind
			if !covered(p.Config[rule], host) {
				return fmt.Errorf("%s %s of the host is forbidden (%s=%s)", kind, f[1], rule, p.Config[rule])
			}
		}
	}
	return nil
}

func covered(list string, want span) bool {
	if list == "" {
		return false
	}
	ranges, err := parseRanges(list)
	return err == nil && slices.ContainsFunc(ranges, func(r span) bool { return r.from <= want.from && want.to <= r.to })
}

func parsePaths(s string) (out []string, err error) {
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if !path.IsAbs(part) || path.Clean(part) != part {
			return nil, fmt.Errorf("%q is not an absolute path without . and .. and without a slash at the end", part)
		}
		out = append(out, part)
	}
	return out, nil
}
