package rest

import "slices"

type methods = map[string]handler

// endpoints is the whole API.
func (s *Server) endpoints() []endpoint {
	return slices.Concat(
		s.serverEndpoints(),
		s.databaseEndpoints(),
		operationEndpoints(),
		projectEndpoints(),
		needs(func(s *Services) bool { return s.Trust != nil }, certificateEndpoints()),
		needs(func(s *Services) bool { return s.Instances != nil }, instanceEndpoints()),
		needs(func(s *Services) bool { return s.Profiles != nil }, profileEndpoints()),
		needs(func(s *Services) bool { return s.Images != nil }, imageEndpoints()),
		needs(func(s *Services) bool { return s.Networks != nil }, networkEndpoints()),
		needs(func(s *Services) bool { return s.Storage != nil }, storageEndpoints()),
		needs(func(s *Services) bool { return s.World != nil }, worldEndpoints()),
		needs(func(s *Services) bool { return s.WorldFS != nil }, worldFSEndpoints()),
		needs(func(s *Services) bool { return s.Scheduler != nil }, scheduleEndpoints()),
		miscEndpoints(),
	)
}

// needs marks endpoints of a service that a daemon may not have; they answer 501 then.
func needs(has func(*Services) bool, list []endpoint) []endpoint {
	for i := range list {
		list[i].has = has
	}
	return list
}
