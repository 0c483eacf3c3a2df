// Package profile keeps profiles: configuration and devices that instances share.
//
// [Store] is the bare table, which the instance room reads to expand configuration. [Service] is what rest calls:
// it validates through [Users], the instance room, before it writes, and tells it afterwards so that running instances
// change. The profile "default" of every project always exists and can be changed but neither deleted nor renamed.
package profile

import (
	"context"
	"net/url"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// Users is what uses profiles: the instance room.
type Users interface {
	// ProfileUsers returns the URLs of the instances that have the profile, those of projects that share it too, sorted by project and name.
	ProfileUsers(project api.ProjectName, profile string) []string
	// CheckProfile says whether the content is valid by itself and, when the profile has users, for each of them. What it returns must be part
	// of the transaction that writes the content, which fails with Conflict or Exists when the answer has become stale.
	CheckProfile(project api.ProjectName, name string, content api.ProfilePut) ([]state.Op, error)
	// ProfileChanged applies what changed to the running users, as far as it can be changed live.
	ProfileChanged(ctx context.Context, project api.ProjectName, name string, old, now api.ProfilePut) error
	// ProfileRenamed makes the users refer to the new name.
	ProfileRenamed(ctx context.Context, project api.ProjectName, from, to string) error
}

// Events receives lifecycle events.
type Events interface {
	Lifecycle(ctx context.Context, project api.ProjectName, action, source string, details map[string]any)
}

// Deps is everything that the service needs.
type Deps struct {
	Store  *Store
	Users  Users
	Events Events // optional
}

// Service creates, changes and deletes profiles. Safe for concurrent use.
type Service struct{ d Deps }

// New returns the service.
func New(d Deps) (*Service, error) {
	if d.Store == nil || d.Users == nil {
		return nil, errs.Invalid("profile service: Store and Users are needed")
	}
	return &Service{d: d}, nil
}

// List returns all profiles of a project sorted by name.
func (s *Service) List(project api.ProjectName) []api.Profile {
	var out []api.Profile
	for _, name := range s.d.Store.Names(project) {
		if p, err := s.Get(project, name); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Get returns one profile with its users' URLs. The ETag of a profile is made from its ProfilePut.
func (s *Service) Get(project api.ProjectName, name string) (api.Profile, error) {
	put, err := s.d.Store.Get(project, name)
	if err != nil {
		return api.Profile{}, err
	}
	p := api.Profile{ProfilePut: put, Name: name, UsedBy: []string{}}
	p.UsedBy = append(p.UsedBy, s.d.Users.ProfileUsers(project, name)...)
	return p, nil
}

// Create makes a profile; Exists when the name is taken.
func (s *Service) Create(ctx context.Context, project api.ProjectName, req api.ProfilesPost) error {
	name, err := api.ParseProfileName(req.Name)
	if err != nil {
		return err
	}
	if name == api.DefaultProfile {
		return errs.Exists("The profile already exists")
	}
	put := clone(req.ProfilePut)
	for {
		ops, err := s.d.Users.CheckProfile(project, req.Name, put)
		if err != nil {
			return err
		}
		if _, err := s.d.Store.Get(project, req.Name); err == nil {
			return errs.Exists("The profile already exists")
		}
		err = s.d.Store.write(ctx, state.Item[api.ProfilePut]{Key: key(project, req.Name), Value: put}, ops...)
		if (errs.IsConflict(err) || errs.IsExists(err)) && ctx.Err() == nil {
			continue // this name or the project's contents: the next round says which
		}
		if err == nil {
			s.event(ctx, project, "profile-created", req.Name, nil)
		}
		return err
	}
}

// Update replaces a profile's content. check, which may be nil, gets the current content and decides on If-Match;
// it is repeated with the write, so two clients with the same ETag cannot both win.
func (s *Service) Update(ctx context.Context, project api.ProjectName, name string, put api.ProfilePut, check func(current api.ProfilePut) error) error {
	return s.change(ctx, project, name, check, func(api.ProfilePut) api.ProfilePut { return put })
}

// Patch merges config and devices key by key into a profile, and sets the description when it is not empty.
func (s *Service) Patch(ctx context.Context, project api.ProjectName, name string, put api.ProfilePut, check func(current api.ProfilePut) error) error {
	return s.change(ctx, project, name, check, func(cur api.ProfilePut) api.ProfilePut {
		out := clone(cur)
		for k, v := range put.Config {
			out.Config[k] = v
		}
		for k, v := range put.Devices {
			out.Devices[k] = v
		}
		if put.Description != "" {
			out.Description = put.Description
		}
		return out
	})
}

func (s *Service) change(ctx context.Context, project api.ProjectName, name string, check func(api.ProfilePut) error, next func(api.ProfilePut) api.ProfilePut) error {
	for {
		item, err := s.d.Store.item(project, name)
		if err != nil {
			return err
		}
		if check != nil {
			if err := check(item.Value); err != nil {
				return err
			}
		}
		old := item.Value
		item.Value = clone(next(old))
		ops, err := s.d.Users.CheckProfile(project, name, item.Value)
		if err != nil {
			return err
		}
		err = s.d.Store.write(ctx, item, ops...)
		if (errs.IsConflict(err) || errs.IsExists(err)) && ctx.Err() == nil {
			continue // somebody was faster: look again, the ETag too
		}
		if err != nil {
			return err
		}
		s.event(ctx, project, "profile-updated", name, nil)
		return s.d.Users.ProfileChanged(ctx, project, name, old, item.Value)
	}
}

// Rename gives a profile another name; its users follow.
func (s *Service) Rename(ctx context.Context, project api.ProjectName, from, to string) error {
	if from == api.DefaultProfile.String() {
		return errs.Forbidden(`The "default" profile cannot be renamed`)
	}
	if _, err := api.ParseProfileName(to); err != nil {
		return err
	}
	item, err := s.d.Store.item(project, from)
	if err != nil {
		return err
	}
	moved := state.Item[api.ProfilePut]{Key: key(project, to), Value: item.Value}
	if to == api.DefaultProfile.String() {
		return errs.Exists("Name %q already in use", to)
	}
	// The new name first: a crash between the steps leaves a second profile, never an instance without one.
	if err := s.d.Store.write(ctx, moved); errs.IsExists(err) {
		return errs.Exists("Name %q already in use", to)
	} else if err != nil {
		return err
	}
	if err := s.d.Users.ProfileRenamed(ctx, project, from, to); err != nil {
		return err
	}
	if err := s.d.Store.table.Delete(ctx, item.Key); err != nil {
		return err
	}
	s.event(ctx, project, "profile-renamed", to, map[string]any{"old_name": from})
	return nil
}

// Delete removes a profile that nobody uses.
func (s *Service) Delete(ctx context.Context, project api.ProjectName, name string) error {
	if name == api.DefaultProfile.String() {
		return errs.Forbidden(`The "default" profile cannot be deleted`)
	}
	if _, err := s.d.Store.Get(project, name); err != nil {
		return err
	}
	if len(s.d.Users.ProfileUsers(project, name)) > 0 {
		return errs.Invalid("Profile is currently in use")
	}
	if err := s.d.Store.table.Delete(ctx, key(project, name)); err != nil {
		return err
	}
	s.event(ctx, project, "profile-deleted", name, nil)
	return nil
}

func (s *Service) event(ctx context.Context, project api.ProjectName, action, name string, details map[string]any) {
	if s.d.Events != nil {
		s.d.Events.Lifecycle(ctx, project, action, objectURL("profiles", project, name), details)
	}
}

func objectURL(kind string, project api.ProjectName, name string) string {
	u := "/1.0/" + kind + "/" + url.PathEscape(name)
	if project != api.DefaultProject {
		u += "?project=" + url.QueryEscape(project.String())
	}
	return u
}
