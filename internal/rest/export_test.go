package rest

import (
	"maps"
	"slices"

	"github.com/shoal-project/shoal/identity/access"
)

// Route is a path of the API as the tests of the gate see it.
type Route struct {
	Path    string
	Methods []string
	Spans   bool
	ByPath  bool // the project is named by the path
}

// Routes returns the whole routing table.
func (s *Server) Routes() []Route {
	var out []Route
	for _, e := range s.endpoints() {
		r := rules()[e.path]
		out = append(out, Route{e.path, slices.Sorted(maps.Keys(e.methods)), r.spans, r.project != nil})
	}
	return out
}

// ClassOf returns the class that the table of rules declares for a route.
func ClassOf(path, method string) access.Class { return rules()[path].class(method) }

// RulePaths returns the paths of the table of rules.
func RulePaths() []string { return slices.Sorted(maps.Keys(rules())) }

// BodyProjects is what a restricted caller's JSON goes through.
var BodyProjects = bodyProjects

// Limit bounds the connections of h.
func (h *HTTPS) Limit(total, strangers, perHost int) {
	h.conns.mu.Lock()
	defer h.conns.mu.Unlock()
	h.conns.limits = limits{total, strangers, perHost}
}

// Conns is how many connections h holds.
func (h *HTTPS) Conns() int {
	return len(h.conns.pick(func(*netConn) bool { return true }))
}
