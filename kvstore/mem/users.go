package mem

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoal-project/shoal/kvstore"
)

var _ kvstore.Users = (*Store)(nil)

// Roles names the roles that exist; for tests.
func (s *Store) Roles(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles = names
}

// EnforceUser implements kvstore.Users.
func (s *Store) EnforceUser(ctx context.Context, name string, roles []string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, r := range roles {
		if !slices.Contains(s.roles, r) {
			return fmt.Errorf("grant role %q to the database user %q: %w", r, name, kvstore.ErrNotFound)
		}
	}
	if s.users == nil {
		s.users = map[string][]string{}
	}
	s.users[name] = slices.Clone(roles)
	return nil
}

// EnforceNoUser implements kvstore.Users.
func (s *Store) EnforceNoUser(ctx context.Context, name string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.users, name)
	return nil
}

// User returns the roles of a user; for tests.
func (s *Store) User(name string) (roles []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	roles, ok = s.users[name]
	return slices.Clone(roles), ok
}
