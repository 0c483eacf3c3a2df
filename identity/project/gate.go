package project

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/state"
)

// Gate decides whether the objects of before may make way for those of after in a project: the only way in for whoever writes
// instances, profiles, volumes, networks, snapshots and backups. The answer holds only with the operations that it returns, which belong into
// the transaction that writes; when that one fails with errs.Conflict (or errs.Exists, for the default project before it was ever
// written), somebody was faster and the caller asks again. So of two changes that fit one by one but not together one is refused, and so
// is one that was decided on before the project's limits changed or the project went. errs.Denied: a limit or a restriction is in
// the way; errs.NotFound: there is no such project.
//
// The record of a project with limits or restrictions is changed by every change of its contents; that of another project
// is only compared, so changes in it do not get in each other's way.
func (s *Service) Gate(name api.ProjectName, before, after policy.Contents) ([]state.Op, error) {
	item, err := s.item(name) // before the contents are read: what comes later breaks the transaction
	if err != nil {
		return nil, err
	}
	if policy.Governed(item.Value.Config) {
		total, now := before, after
		if policy.Limited(item.Value.Config) {
			if total, err = s.d.Contents(name); err != nil {
				return nil, err
			}
			now = total.Apply(before, after)
			total = total.Apply(policy.Contents{}, before)
		}
		if err := policy.Check(policy.Project{Name: name.String(), Config: item.Value.Config}, total, now); err != nil {
			return nil, err
		}
	}
	switch {
	case item.Rev == 0:
		return []state.Op{s.table.AbsentOp(item.Key)}, nil
	case !item.Value.Watched:
		return []state.Op{s.table.CheckOp(item)}, nil
	}
	item.Value.Changes++
	return []state.Op{s.table.UpdateOp(item)}, nil
}

// Policy returns what the gate knows of a project.
func (s *Service) Policy(name api.ProjectName) (policy.Project, error) {
	rec, err := s.read(name)
	return policy.Project{Name: name.String(), Config: rec.Config}, err
}

// State returns how much of its limits a project uses.
func (s *Service) State(name api.ProjectName) (api.ProjectState, error) {
	p, err := s.Policy(name)
	if err != nil {
		return api.ProjectState{}, err
	}
	contents, err := s.d.Contents(name)
	return api.ProjectState{Resources: policy.Usage(p, contents)}, err
}
