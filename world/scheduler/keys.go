package scheduler

import (
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/names"
)

// keys makes and reads the keys of a namespace.
type keys struct{ ns names.Namespace }

const (
	root       = "scheduler"
	schedules  = "schedules"
	specLeaf   = "spec"
	resultLeaf = "scheduled"
	hostsLeaf  = "exchange"
)

func (k keys) computer() string              { return k.ns.Key(root, "computer") }
func (k keys) all() string                   { return k.ns.Prefix(root, schedules) }
func (k keys) schedule(name string) string   { return k.ns.Prefix(root, schedules, name) }
func (k keys) spec(name string) string       { return k.ns.Key(root, schedules, name, specLeaf) }
func (k keys) result(name string) string     { return k.ns.Key(root, schedules, name, resultLeaf) }
func (k keys) hosts(name string) string      { return k.ns.Prefix(root, schedules, name, hostsLeaf) }
func (k keys) host(name, host string) string { return k.ns.Key(root, schedules, name, hostsLeaf, host) }

// parse takes a key apart: leaf is specLeaf, resultLeaf or hostsLeaf, with the host. ok is false for what is none of ours.
func (k keys) parse(key string) (schedule, leaf, host string, ok bool) {
	p, ok := k.ns.Split(key)
	if !ok || len(p) < 4 || p[0] != root || p[1] != schedules || CheckName(p[2]) != nil {
		return "", "", "", false
	}
	switch {
	case len(p) == 4 && (p[3] == specLeaf || p[3] == resultLeaf):
		return p[2], p[3], "", true
	case len(p) == 5 && p[3] == hostsLeaf && CheckHost(p[4]) == nil:
		return p[2], hostsLeaf, p[4], true
	}
	return "", "", "", false
}

// CheckName reports whether name can be a schedule's: up to 512 bytes of text without control characters.
func CheckName(name string) error { return names.Check("the schedule's name", name) }

// CheckHost reports whether name can be a host's, see [names.ParseMachine].
func CheckHost(name string) error {
	if _, err := names.ParseMachine(name); err != nil {
		return errs.Invalid("host: %w", err)
	}
	return nil
}
