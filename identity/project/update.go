package project

import (
	"context"
	"maps"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/internal/state"
)

// Update writes what change makes of the current configuration and description. change may be called more than once and decides on If-Match too:
// its error refuses the change, and what it was given is what is replaced. Features that change leaves out stay as they are and cannot
// change while the project holds objects; limits and restrictions that the contents already break are refused.
func (s *Service) Update(ctx context.Context, name api.ProjectName, change func(current api.ProjectPut) (api.ProjectPut, error)) error {
	for {
		err := s.tryUpdate(ctx, name, change)
		if (errs.IsConflict(err) || errs.IsExists(err)) && ctx.Err() == nil {
			continue // somebody was faster: decide again on what they wrote
		}
		return err
	}
}

func (s *Service) tryUpdate(ctx context.Context, name api.ProjectName, change func(api.ProjectPut) (api.ProjectPut, error)) error {
	item, err := s.item(name)
	if err != nil {
		return err
	}
	next, err := s.next(name, item.Value, change)
	if err != nil {
		return err
	}
	if sensitive(item.Value.Config, next.Config) {
		// From here on nobody changes the contents without changing this record.
		if item, err = s.watch(ctx, name); err != nil {
			return err
		}
		if next, err = s.next(name, item.Value, change); err != nil {
			return err
		}
		if err := s.fits(name, item.Value, next); err != nil {
			return err
		}
	}
	next.Watched = policy.Governed(next.Config)
	next.Changes = item.Value.Changes
	return s.write(ctx, item, next)
}

// next is the record as change wants it.
func (s *Service) next(name api.ProjectName, cur record, change func(api.ProjectPut) (api.ProjectPut, error)) (record, error) {
	put, err := change(api.ProjectPut{Config: maps.Clone(cur.Config), Description: cur.Description})
	if err != nil {
		return record{}, err
	}
	cfg := maps.Clone(put.Config)
	if cfg == nil {
		cfg = map[string]string{}
	}
	maps.DeleteFunc(cfg, func(_, v string) bool { return v == "" })
	for _, f := range policy.Features() {
		if cfg[f] == "" && cur.Config[f] != "" {
			cfg[f] = cur.Config[f]
		}
	}
	if err := policy.CheckConfig(cfg); err != nil {
		return record{}, err
	}
	for _, f := range policy.Features() {
		if name == api.DefaultProject && on(cfg, f) != on(cur.Config, f) {
			return record{}, errs.Invalid("You can't change the features of the default project")
		}
	}
	return record{Name: name.String(), Description: put.Description, Config: cfg}, nil
}

func on(cfg map[string]string, key string) bool { v, _ := schema.ParseBool(cfg[key]); return v }

// sensitive reports whether the contents matter to a change.
func sensitive(before, after map[string]string) bool {
	for _, cfg := range []map[string]string{before, after} {
		for k := range cfg {
			if before[k] != after[k] && !strings.HasPrefix(k, "user.") {
				return true
			}
		}
	}
	return false
}

// fits holds a change against the contents.
func (s *Service) fits(name api.ProjectName, cur, next record) error {
	for _, f := range policy.Features() {
		if on(cur.Config, f) != on(next.Config, f) && !empty(s.d.UsedBy(name)) {
			verb := "enabled"
			if !on(next.Config, f) {
				verb = "disabled"
			}
			return errs.Invalid("Project feature %q cannot be %s on non-empty projects", f, verb)
		}
	}
	contents, err := s.d.Contents(name)
	if err != nil {
		return err
	}
	return policy.CheckProject(policy.Project{Name: name.String(), Config: cur.Config}, policy.Project{Name: name.String(), Config: next.Config}, contents)
}

// watch marks the record so that every change of the contents changes it, see Gate. The mark alone changes nothing that a user sees, so a
// crash after it costs later changes one write more and nothing else.
func (s *Service) watch(ctx context.Context, name api.ProjectName) (state.Item[record], error) {
	for {
		item, err := s.item(name)
		if err != nil || item.Value.Watched {
			return item, err
		}
		item.Value.Watched = true
		err = s.write(ctx, item, item.Value)
		if err != nil && !errs.IsConflict(err) && !errs.IsExists(err) || ctx.Err() != nil {
			return item, err
		}
	}
}

// write stores now, provided that nobody has changed the record since item was read.
func (s *Service) write(ctx context.Context, item state.Item[record], now record) error {
	op := s.table.CreateOp(item.Key, now)
	if item.Rev != 0 {
		item.Value = now
		op = s.table.UpdateOp(item)
	}
	_, err := s.d.State.Txn(ctx, op)
	return err
}
