package image

import (
	"context"
	"fmt"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

func aliasKey(project api.ProjectName, name api.AliasName) string {
	return state.Key(project.String(), name.String())
}

func (s *Service) aliasesByTarget(project api.ProjectName) map[string][]api.ImageAlias {
	out := map[string][]api.ImageAlias{}
	for _, it := range s.aliases.List(state.Key(project.String()) + "/") {
		out[it.Value.Target] = append(out[it.Value.Target], api.ImageAlias{Name: state.SplitKey(it.Key)[1], Description: it.Value.Description})
	}
	return out
}

// ListAliases returns the aliases of a project, sorted by name.
func (s *Service) ListAliases(project api.ProjectName) []api.ImageAliasesEntry {
	out := []api.ImageAliasesEntry{}
	for _, it := range s.aliases.List(state.Key(project.String()) + "/") {
		out = append(out, renderAlias(state.SplitKey(it.Key)[1], it.Value))
	}
	return out
}

func renderAlias(name string, r aliasRecord) api.ImageAliasesEntry {
	e := api.ImageAliasesEntry{Name: name, Type: r.Type}
	e.Description, e.Target = r.Description, r.Target
	return e
}

// GetAlias returns one alias; "Image alias not found".
func (s *Service) GetAlias(project api.ProjectName, name api.AliasName) (*api.ImageAliasesEntry, error) {
	it, err := s.alias(project, name)
	if err != nil {
		return nil, err
	}
	e := renderAlias(name.String(), it.Value)
	return &e, nil
}

func (s *Service) alias(project api.ProjectName, name api.AliasName) (state.Item[aliasRecord], error) {
	it, err := s.aliases.Get(aliasKey(project, name))
	if errs.IsNotFound(err) {
		err = errs.NotFound("Image alias not found")
	}
	return it, err
}

// CreateAlias gives an image a name. The target is a fingerprint or a unique prefix of one.
func (s *Service) CreateAlias(ctx context.Context, project api.ProjectName, req api.ImageAliasesPost) error {
	name, err := api.ParseAliasName(req.Name)
	if err != nil {
		return err
	}
	if req.Target == "" {
		return errs.Invalid("the alias needs a target: the fingerprint of an image")
	}
	img, err := s.Get(project, req.Target)
	if err != nil {
		return err
	}
	_, err = s.aliases.Create(ctx, aliasKey(project, name), aliasRecord{img.Fingerprint, req.Description, img.Type})
	if errs.IsExists(err) {
		return errs.Exists("Alias %q already exists", name)
	}
	if err != nil {
		return fmt.Errorf("create image alias: %w", err)
	}
	return nil
}

// UpdateAlias is [Service.ModifyAlias] for who has decided already.
func (s *Service) UpdateAlias(ctx context.Context, project api.ProjectName, name api.AliasName, put api.ImageAliasesEntryPut) error {
	return s.ModifyAlias(ctx, project, name, func(api.ImageAliasesEntry) (api.ImageAliasesEntryPut, error) { return put, nil })
}

// ModifyAlias replaces target and description by what change makes of the current ones; it is called again when somebody else was faster.
func (s *Service) ModifyAlias(ctx context.Context, project api.ProjectName, name api.AliasName, change func(current api.ImageAliasesEntry) (api.ImageAliasesEntryPut, error)) error {
	for {
		err := s.tryAlias(ctx, project, name, change)
		if !errs.IsConflict(err) || ctx.Err() != nil {
			return err
		}
	}
}

func (s *Service) tryAlias(ctx context.Context, project api.ProjectName, name api.AliasName, change func(api.ImageAliasesEntry) (api.ImageAliasesEntryPut, error)) error {
	it, err := s.alias(project, name)
	if err != nil {
		return err
	}
	put, err := change(renderAlias(name.String(), it.Value))
	if err != nil {
		return err
	}
	if put.Target == "" {
		return errs.Invalid("the target of an alias is required: the fingerprint of an image")
	}
	img, err := s.Get(project, put.Target)
	if err != nil {
		return err
	}
	it.Value = aliasRecord{img.Fingerprint, put.Description, img.Type}
	_, err = s.aliases.Update(ctx, it)
	return err
}

// RenameAlias gives an alias another name.
func (s *Service) RenameAlias(ctx context.Context, project api.ProjectName, name api.AliasName, to string) error {
	target, err := api.ParseAliasName(to)
	if err != nil {
		return err
	}
	it, err := s.alias(project, name)
	if err != nil || target == name {
		return err
	}
	_, err = s.deps.State.Txn(ctx, s.aliases.CreateOp(aliasKey(project, target), it.Value), s.aliases.DeleteOp(it))
	if errs.IsExists(err) {
		return errs.Exists("Alias %q already exists", target)
	}
	return err
}

// DeleteAlias removes an alias; the image stays.
func (s *Service) DeleteAlias(ctx context.Context, project api.ProjectName, name api.AliasName) error {
	it, err := s.alias(project, name)
	if err != nil {
		return err
	}
	_, err = s.deps.State.Txn(ctx, s.aliases.DeleteOp(it))
	return err
}
