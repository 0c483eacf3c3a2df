package instance

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// Rename returns the operation that gives a stopped instance another name ("Renaming instance").
func (s *Service) Rename(ctx context.Context, project api.ProjectName, name string, req api.InstancePost) (op.Spec, error) {
	if req.Migration || req.Pool != "" || req.Project != "" && req.Project != project.String() {
		return op.Spec{}, errs.Unsupported("moving an instance to another pool, project or server is not supported yet; renaming is")
	}
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	to, err := api.ParseInstanceName(req.Name)
	if err != nil {
		return op.Spec{}, err
	}
	if status, _ := e.now(); isRunning(status) {
		return op.Spec{}, errs.Invalid("Renaming of running instance not allowed")
	}
	target := ref{project, to}
	if s.entries.get(target) != nil {
		return op.Spec{}, errs.Exists("Name %q already in use", to)
	}
	spec := instanceOp("Renaming instance", e.name())
	spec.Run = func(ctx context.Context, _ op.Handle) error { return s.rename(ctx, e, target) }
	return spec, nil
}

func (s *Service) rename(ctx context.Context, e *entry, to ref) error {
	return e.exclusive(ctx, actRename, func(ctx context.Context) error {
		if err := e.want("Renaming of running instance not allowed", api.Stopped); err != nil {
			return err
		}
		from := e.name()
		if !s.entries.reserve(to, e) {
			return errs.Exists("Name %q already in use", to.name)
		}
		if err := s.beginRename(ctx, from, to); err != nil {
			s.entries.drop(to, e)
			return err
		}
		ctx, cancel := detached(ctx)
		defer cancel()
		if err := s.finishRename(ctx, e, to); err != nil {
			e.set(api.Error)
			return fmt.Errorf("rename instance %q: %w", from.name, err)
		}
		s.event(ctx, to, "instance-renamed", map[string]any{"old_name": from.name.String()})
		return nil
	})
}

// beginRename writes the intent and takes the new name, in one transaction.
func (s *Service) beginRename(ctx context.Context, from, to ref) error {
	item, err := s.store.get(from)
	if err != nil {
		return err
	}
	item.Value.RenamingTo = to.name.String()
	shadow := record{ID: item.Value.ID, Type: item.Value.Type, Phase: renaming}
	_, err = s.store.db.Txn(ctx, s.store.records.UpdateOp(item), s.store.records.CreateOp(to.key(), shadow))
	if errs.IsExists(err) {
		return errs.Exists("Name %q already in use", to.name)
	}
	return err
}

// finishRename does the effects, which are idempotent, and then makes the new name the only one.
func (s *Service) finishRename(ctx context.Context, e *entry, to ref) error {
	from := e.name()
	item, err := s.store.get(from)
	if err != nil {
		return err
	}
	shadow, err := s.store.get(to)
	if err != nil {
		return err
	}
	rec := item.Value.clone()
	var problems []error
	for _, nic := range s.recordedNICs(rec, from) {
		problems = append(problems, s.d.NICs.Forget(ctx, nic))
	}
	pool, err := api.ParsePoolName(rec.Pool)
	if err == nil {
		err = s.d.Volumes.RenameRoot(ctx, pool, to.project, from.name, to.name)
	}
	problems = append(problems, err, s.renameLogs(from, to))
	if err := errors.Join(problems...); err != nil {
		return err
	}
	rec.RenamingTo = ""
	rec.Config["volatile.cloud-init.instance-id"] = newUUID()
	if rec.Config["volatile.apply_template"] == "" && rec.Image != "" {
		rec.Config["volatile.apply_template"] = string(actRename)
	}
	shadow.Value = rec
	if _, err := s.store.db.Txn(ctx, s.store.records.DeleteOp(item), s.store.records.UpdateOp(shadow)); err != nil {
		return err
	}
	s.entries.move(e, to)
	return nil
}
