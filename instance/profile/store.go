package profile

import (
	"context"
	"maps"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// Store is the table of profiles. It checks nothing; [Service] does. Safe for concurrent use.
type Store struct {
	db    *state.DB
	table *state.Table[api.ProfilePut]
}

// NewStore declares the table; call it once for a database.
func NewStore(db *state.DB) *Store {
	return &Store{db: db, table: state.NewTable[api.ProfilePut](db, "profiles", 1)}
}

func key(project api.ProjectName, name string) string { return state.Key(project.String(), name) }

// Get returns the profile; NotFound "Profile not found" when there is none. The default profile of a project always
// exists: as long as nobody has written to it, it is empty. The result is the caller's own.
func (s *Store) Get(project api.ProjectName, name string) (api.ProfilePut, error) {
	item, err := s.item(project, name)
	return item.Value, err
}

// Peek is Get without a copy: do not change what the result leads to.
func (s *Store) Peek(project api.ProjectName, name string) (api.ProfilePut, error) {
	if item, ok := s.table.Peek(key(project, name)); ok {
		return item.Value, nil
	}
	return s.Get(project, name)
}

func (s *Store) item(project api.ProjectName, name string) (state.Item[api.ProfilePut], error) {
	item, err := s.table.Get(key(project, name))
	switch {
	case errs.IsNotFound(err) && name == api.DefaultProfile.String():
		item = state.Item[api.ProfilePut]{Key: key(project, name)}
		item.Value.Description = "Default profile"
	case errs.IsNotFound(err):
		return item, errs.NotFound("Profile not found")
	case err != nil:
		return item, err
	}
	item.Value = clone(item.Value) // and never nil maps
	return item, nil
}

// Names returns the names of all profiles of the project, sorted by byte, the default profile among them.
func (s *Store) Names(project api.ProjectName) []string {
	var names []string
	seen := false
	for _, it := range s.table.List(state.Key(project.String()) + "/") {
		name := state.SplitKey(it.Key)[1]
		seen = seen || name == api.DefaultProfile.String()
		names = append(names, name)
	}
	if !seen {
		names = append([]string{api.DefaultProfile.String()}, names...)
	}
	return names
}

// write stores p under name provided that nobody changed it since item was read; Rev 0 means that it must not exist.
func (s *Store) write(ctx context.Context, item state.Item[api.ProfilePut], more ...state.Op) error {
	var op state.Op
	if item.Rev == 0 {
		op = s.table.CreateOp(item.Key, item.Value)
	} else {
		op = s.table.UpdateOp(item)
	}
	_, err := s.db.Txn(ctx, append(more, op)...)
	return err
}

// Leftovers returns what takes a project's default profile away, or to the project to when that is not zero. A project that has no other
// profile may go with it.
func (s *Store) Leftovers(project, to api.ProjectName) ([]state.Op, error) {
	item, err := s.table.Get(key(project, api.DefaultProfile.String()))
	if errs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ops := []state.Op{s.table.DeleteOp(item)}
	if !to.IsZero() {
		ops = append(ops, s.table.PutOp(key(to, api.DefaultProfile.String()), item.Value))
	}
	return ops, nil
}

func clone(p api.ProfilePut) api.ProfilePut {
	out := api.ProfilePut{Description: p.Description, Config: maps.Clone(p.Config), Devices: api.Devices{}}
	if out.Config == nil {
		out.Config = api.Config{}
	}
	for name, dev := range p.Devices {
		out.Devices[name] = maps.Clone(dev)
	}
	return out
}
