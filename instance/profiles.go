package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/state"
)

// Service is what uses profiles.
var _ profile.Users = (*Service)(nil)

// usersOf returns the project's records that have a profile.
func (s *Service) usersOf(project api.ProjectName, name string) []state.Item[record] {
	var out []state.Item[record]
	for _, item := range s.store.list(project) {
		if item.Value.Phase != renaming && slices.Contains(item.Value.Profiles, name) {
			out = append(out, item)
		}
	}
	return out
}

// ProfileUsers implements [profile.Users].
func (s *Service) ProfileUsers(project api.ProjectName, name string) []string {
	var out []string
	for _, item := range s.usersOf(project, name) {
		out = append(out, state.SplitKey(item.Key)[1])
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
func (s *Service) CheckProfile(project api.ProjectName, name string, content api.ProfilePut) error {
	if err := config.Check(content.Config, config.Any, false); err != nil {
		return err
	}
	devs, err := config.ParseDevices(content.Devices)
	if err != nil {
		return err
	}
	if devs.Root != nil {
		if err := s.d.Volumes.PoolExists(devs.Root.Pool); err != nil {
			return err
		}
	}
	if err := s.checkNetworks(project, devs); err != nil {
		return err
	}
	for _, item := range s.usersOf(project, name) {
		profiles, err := s.profilesWith(project, item.Value.Profiles, name, content)
		if err != nil {
			return err
		}
		x, err := expandWith(profiles, item.Value)
		if err == nil {
			err = x.devs.NeedRoot()
		}
		if err == nil && x.devs.Root.Pool.String() != item.Value.Pool {
			err = fmt.Errorf("Cannot update root disk device pool name to %q", x.devs.Root.Pool) //nolint:staticcheck // LXD's text
		}
		if err != nil {
			return fmt.Errorf("instance %q: %w", state.SplitKey(item.Key)[1], err)
		}
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
				return s.fillVolatile(project, rec)
			})
			if err != nil {
				return err
			}
			was, err := s.profilesWith(project, before.Profiles, name, old)
			if err != nil {
				return err
			}
			is, err := s.profilesWith(project, after.Profiles, name, now)
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
