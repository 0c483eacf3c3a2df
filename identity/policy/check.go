package policy

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// Check says whether the contents of a project may become after, given that they are before. It looks at the restrictions for what
// is new or changed, and at the limits for what has grown: a project that is over a limit, because the limit is younger than its contents,
// may always shrink. The error is of class Denied; it names the object, the key and what is allowed, of several always the same.
func Check(p Project, before, after Contents) error {
	if p.Restricted() {
		if err := restrictions(p, before, after); err != nil {
			return err
		}
	}
	return limits(p, before, after)
}

// CheckProject says whether a project with these contents may have the configuration of after instead of before's. Only what changes
// is looked at.
func CheckProject(before, after Project, contents Contents) error {
	if after.Restricted() && !reflect.DeepEqual(section(before, restrictedKey), section(after, restrictedKey)) {
		now := contents
		now.Copies = nil // what was made while it was allowed stays
		if err := restrictions(after, Contents{}, now); err != nil {
			return errs.Classify(errs.InvalidInput, err)
		}
	}
	return lowered(before, after, contents)
}

// section is the part of the configuration that decides on restrictions.
func section(p Project, prefix string) map[string]string {
	out := map[string]string{}
	for k, v := range p.Config {
		if v != "" && strings.HasPrefix(k, prefix) {
			out[k] = v
		}
	}
	return out
}

// Governed reports whether anything has to be checked for a project.
func Governed(cfg map[string]string) bool { return (Project{Config: cfg}).Restricted() || Limited(cfg) }

// Limited reports whether a project has a limit.
func Limited(cfg map[string]string) bool {
	for k, v := range cfg {
		if v != "" && strings.HasPrefix(k, "limits.") {
			return true
		}
	}
	return false
}

func restrictions(p Project, before, after Contents) error {
	for _, name := range changed(before.Profiles, after.Profiles) {
		x := after.Profiles[name]
		// A profile may be meant for any type of instance: what is forbidden to one of them is forbidden in it.
		for _, typ := range []string{container, vm} {
			if err := checkConfig(p, "profile", name, typ, x.Config); err != nil {
				return err
			}
		}
		if err := checkDevices(p, "profile", name, x.Devices); err != nil {
			return err
		}
	}
	for _, name := range changed(before.Instances, after.Instances) {
		x := after.Instances[name]
		if err := checkConfig(p, "instance", name, x.Type, x.Config); err != nil {
			return err
		}
		if err := checkDevices(p, "instance", name, x.Devices); err != nil {
			return err
		}
	}
	for _, key := range changed(before.Copies, after.Copies) {
		c := after.Copies[key]
		kind, rule := "Snapshots", "restricted.snapshots"
		if c.Backup {
			kind, rule = "Backups", "restricted.backups"
		}
		if p.word(rule) != allow {
			return errs.Forbidden("%s are not allowed in project %q (%s=%s): %q of %q", kind, p.Name, rule, p.word(rule), c.Name, c.Of)
		}
	}
	return nil
}

// changed lists what is new or different in after, sorted.
func changed[V any](before, after map[string]V) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name, now := range maps.All(after) {
			if was, ok := before[name]; ok && reflect.DeepEqual(was, now) {
				continue
			}
			if !yield(name) {
				return
			}
		}
	})
}
