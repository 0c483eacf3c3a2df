package rest

import (
	"path/filepath"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/internal/errs"
)

// databaseEndpoints check the database. They work before the daemon is ready: it may be the database that it waits for.
func (s *Server) databaseEndpoints() []endpoint {
	return []endpoint{{path: "/internal/database", early: true, methods: methods{"GET": s.databaseGet, "POST": s.databasePost}}}
}

func (s *Server) databaseGet(r *request) response { return s.databaseReport(r, "") }

// databasePost checks a cluster that the daemon does not use.
func (s *Server) databasePost(r *request) response {
	var post api.DatabaseDebugPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if !filepath.IsAbs(post.Config) {
		return fail(errs.Invalid("Invalid config %q: it has to be the absolute path of a file on the server", post.Config))
	}
	return s.databaseReport(r, post.Config)
}

// databaseReport is for those who are at the machine: it names and reads files of it.
func (s *Server) databaseReport(r *request, config string) response {
	if who, ok := caller.From(r.Context()); !ok || who.Protocol != caller.Unix {
		return fail(errs.Forbidden("the database is checked through the unix socket only"))
	}
	if s.d.Database == nil {
		return fail(errs.Unsupported("not implemented"))
	}
	report, err := s.d.Database(r.Context(), config)
	if err != nil {
		return fail(err)
	}
	return reply(report)
}
