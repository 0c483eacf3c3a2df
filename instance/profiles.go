package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// Service is what uses profiles.
var _ profile.Users = (*Service)(nil)

// usersOf returns the records that have a profile of holder: its own project's and those of projects that share its profiles.
func (s *Service) usersOf(holder api.ProjectName, name string) []state.Item[record] {
	var out []state.Item[record]
	for _, item := range s.store.list(api.ProjectName{}) {
		if item.Value.Phase == renaming || !slices.Contains(item.Value.Profiles, name) {
			continue
		}
		r, err := parseKey(item.Key)
		if err != nil {
			continue
		}
		if p, err := s.d.Projects.Effective(r.project, policy.Profiles); err == nil && p == holder {
			out = append(out, item)
		}
	}
	return out
}

// ProfileUsers implements [profile.Users].
func (s *Service) ProfileUsers(project api.ProjectName, name string) []string {
	var out []string
	for _, item := range s.usersOf(project, name) {
		if r, err := parseKey(item.Key); err == nil {
			out = append(out, instanceURL(r))
		}
	}
	return out
}

// profilesWith is profilesOf with one profile's content replaced.
func (s *Service) profilesWith(project api.ProjectName, names []string, name string, content api.ProfilePut) ([]api.ProfilePut, error) {
	out, err := s.profilesOf(project, names)
	if i := slices.Index(names, name); err == nil && i >= 0 {
		out[i] = content
	}
	return out, err
}

// CheckProfile implements [profile.Users].
func (s *Service) CheckProfile(project api.ProjectName, name string, content api.ProfilePut) ([]state.Op, error) {
	if err := config.Check(content.Config, config.Any, false); err != nil {
		return nil, err
	}
	devs, err := config.ParseDevices(content.Devices)
	if err != nil {
		return nil, err
	}
	if devs.Root != nil {
		if err := s.d.Volumes.PoolExists(devs.Root.Pool); err != nil {
			return nil, err
		}
	}
	if err := s.checkNetworks(project, devs); err != nil {
		return nil, err
	}
	for _, item := range s.usersOf(project, name) {
		if err := s.checkUser(item, name, content); err != nil {
			return nil, fmt.Errorf("instance %q: %w", state.SplitKey(item.Key)[1], err)
		}
	}
	return s.gateProfile(project, name, content)
}

// checkUser says whether an instance can live with a profile's new content.
func (s *Service) checkUser(item state.Item[record], name string, content api.ProfilePut) error {
	r, err := parseKey(item.Key)
	if err != nil {
		return err
	}
	profiles, err := s.profilesWith(r.project, item.Value.Profiles, name, content)
	if err != nil {
		return err
	}
	x, err := expandWith(profiles, item.Value)
	if err != nil {
		return err
	}
	if err := x.devs.NeedRoot(); err != nil {
		return err
	}
	if x.devs.Root.Pool.String() != item.Value.Pool {
		return errs.Invalid("Cannot update root disk device pool name to %q", x.devs.Root.Pool)
	}
	return nil
}

// ProfileChanged implements [profile.Users]: it completes the users' records and changes the running ones.
func (s *Service) ProfileChanged(ctx context.Context, project api.ProjectName, name string, old, now api.ProfilePut) error {
	var problems []error
	for _, item := range s.usersOf(project, name) {
		r, err := parseKey(item.Key)
		e := s.entries.get(r)
		if err != nil || e == nil {
			continue
		}
		err = e.exclusive(ctx, actUpdate, func(ctx context.Context) error {
			var before record
			after, err := s.store.modify(ctx, r, func(rec *record) error {
				before = rec.clone()
				return s.fillVolatile(r.project, rec)
			})
			if err != nil {
				return err
			}
			was, err := s.profilesWith(r.project, before.Profiles, name, old)
			if err != nil {
				return err
			}
			is, err := s.profilesWith(r.project, after.Profiles, name, now)
			if err != nil {
				return err
			}
			return s.applyExpanded(ctx, e, r, before, after, was, is)
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("instance %q: %w", r.name, err))
		}
	}
	return errors.Join(problems...)
}

// ProfileRenamed implements [profile.Users].
func (s *Service) ProfileRenamed(ctx context.Context, project api.ProjectName, from, to string) error {
	for _, item := range s.usersOf(project, from) {
		r, err := parseKey(item.Key)
		if err != nil {
			continue
		}
		_, err = s.store.modify(ctx, r, func(rec *record) error {
			if i := slices.Index(rec.Profiles, from); i >= 0 {
				rec.Profiles[i] = to
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
