package instance

import (
	"errors"
	"maps"
	"reflect"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// unlimited stands in where there are no projects: each has everything of its own and may do everything.
type unlimited struct{}

func (unlimited) Effective(name api.ProjectName, _ string) (api.ProjectName, error) { return name, nil }

func (unlimited) Gate(api.ProjectName, policy.Contents, policy.Contents) ([]state.Op, error) {
	return nil, nil
}

// gate decides whether the record of r may become now; old is nil for a new one. Records are written through the store, which asks here
// every time: there is no way around it. What does not change the effective configuration passes without a look.
func (s *Service) gate(r ref, old, now *record) ([]state.Op, error) {
	if old != nil && sameToPolicy(*old, *now) {
		return nil, nil
	}
	before := policy.Contents{}
	if old != nil {
		var err error
		if before, err = s.contentsOf(r, *old); err != nil {
			before = policy.Contents{} // what cannot be read cannot excuse anything
		}
	}
	after, err := s.contentsOf(r, *now)
	if err != nil {
		return nil, err
	}
	return s.d.Projects.Gate(r.project, before, after)
}

// sameToPolicy reports whether two records have the same effective configuration, given the same profiles.
func sameToPolicy(a, b record) bool {
	return maps.Equal(withoutVolatile(a.Config), withoutVolatile(b.Config)) && slices.Equal(a.Profiles, b.Profiles) && reflect.DeepEqual(a.Devices, b.Devices)
}

func withoutVolatile(c api.Config) api.Config {
	out := maps.Clone(c)
	maps.DeleteFunc(out, func(k, _ string) bool { return config.IsVolatile(k) })
	return out
}

func (s *Service) contentsOf(r ref, rec record) (policy.Contents, error) {
	x, err := s.expand(r.project, rec)
	if err != nil {
		return policy.Contents{}, err
	}
	return policy.OneInstance(policyInstance(r, rec, x)), nil
}

func policyInstance(r ref, rec record, x expanded) policy.Instance {
	return policy.Instance{Name: r.name.String(), Type: rec.Type, Config: withoutVolatile(x.cfg), Devices: x.raw}
}

// Contents returns the project's instances as the gate sees them. An instance counts from the moment on which its record is written until it is gone.
func (s *Service) Contents(project api.ProjectName) (map[string]policy.Instance, error) {
	out := map[string]policy.Instance{}
	var problems []error
	for _, item := range s.store.list(project) {
		r, err := parseKey(item.Key)
		if err != nil || item.Value.Phase == renaming {
			continue
		}
		x, err := s.expand(project, item.Value)
		if err != nil {
			// It counts all the same; what it needs cannot be told.
			problems = append(problems, err)
		}
		out[r.name.String()] = policyInstance(r, item.Value, x)
	}
	return out, errors.Join(problems...)
}

// gateProfile decides whether a profile's content may become now: in its own project, and in every project whose instances have it.
func (s *Service) gateProfile(holder api.ProjectName, name string, now api.ProfilePut) ([]state.Op, error) {
	type change struct{ before, after policy.Contents }
	changes := map[api.ProjectName]*change{}
	of := func(p api.ProjectName) *change {
		if changes[p] == nil {
			changes[p] = &change{policy.Contents{Instances: map[string]policy.Instance{}}, policy.Contents{Instances: map[string]policy.Instance{}}}
		}
		return changes[p]
	}
	of(holder).after.Profiles = map[string]policy.Profile{name: {Name: name, Config: now.Config, Devices: now.Devices}}
	if old, err := s.d.Profiles.Peek(holder, name); err == nil {
		of(holder).before.Profiles = map[string]policy.Profile{name: {Name: name, Config: old.Config, Devices: old.Devices}}
	}
	for _, item := range s.usersOf(holder, name) {
		r, err := parseKey(item.Key)
		if err != nil {
			continue
		}
		if x, err := s.expand(r.project, item.Value); err == nil {
			of(r.project).before.Instances[r.name.String()] = policyInstance(r, item.Value, x)
		}
		profiles, err := s.profilesWith(r.project, item.Value.Profiles, name, now)
		if err != nil {
			return nil, err
		}
		x, err := expandWith(profiles, item.Value)
		if err != nil {
			return nil, err
		}
		of(r.project).after.Instances[r.name.String()] = policyInstance(r, item.Value, x)
	}
	var ops []state.Op
	for p, c := range changes {
		more, err := s.d.Projects.Gate(p, c.before, c.after)
		if err != nil {
			return nil, err
		}
		ops = append(ops, more...)
	}
	return ops, nil
}

// faster reports whether a transaction with operations of the gate failed because something changed meanwhile.
func faster(err error) bool { return errs.IsConflict(err) || errs.IsExists(err) }
