package rest

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/identity/caller"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/errs"
)

// rule says for whom a path is. Every path of [Server.endpoints] has one in [rules].
type rule struct {
	read, write access.Class
	methods     map[string]access.Class // those that are not as read and write say
	feature     string                  // kind of object, for those that a project may share with the default one
	private     bool                    // what is shared is not shown either
	spans       bool                    // the handler filters ?all-projects=true by what the caller sees
	// project finds the project that the request is about; nil: the one of the query.
	project func(*request) (api.ProjectName, error)
}

// rules is who may do what, the only place that says so. A new path needs a line here: without one it is for full administrators only, and
// a test fails.
func rules() map[string]rule {
	const admin, trusted, inside = access.Admin, access.Trusted, access.InProject
	instance := rule{read: inside, write: inside}
	shared := func(feature string) rule { return rule{read: inside, write: inside, feature: feature} }
	all := map[string]rule{
		"/{$}":                 {read: access.Anyone},
		"/1.0":                 {read: access.Anyone, write: admin},
		"/1.0/events":          {read: inside, spans: true},
		"/internal/ready":      {read: access.Host},
		"/internal/database":   {read: access.Host, write: access.Host},
		"/internal/shutdown":   {write: access.Host},
		"/1.0/resources":       {read: admin},
		"/1.0/warnings":        {read: admin, write: admin},
		"/1.0/warnings/{uuid}": {read: admin, write: admin},

		"/1.0/certificates":               {read: trusted, write: access.Anyone},
		"/1.0/certificates/{fingerprint}": {read: access.Self, write: access.Self},

		"/1.0/cluster":         {read: trusted, write: admin},
		"/1.0/cluster/members": {read: trusted, write: admin},
		"/1.0/cluster/groups":  {read: trusted, write: admin},

		"/1.0/operations":                {read: inside, spans: true},
		"/1.0/operations/{id}":           {read: inside, write: inside, project: operationProject},
		"/1.0/operations/{id}/wait":      {read: inside, project: operationProject},
		"/1.0/operations/{id}/websocket": {read: access.Secret, project: operationProject},

		"/1.0/projects":              {read: trusted, write: admin},
		"/1.0/projects/{name}":       {read: inside, write: admin, project: pathProject},
		"/1.0/projects/{name}/state": {read: inside, project: pathProject},

		"/1.0/profiles":        shared(project.Profiles),
		"/1.0/profiles/{name}": shared(project.Profiles),

		"/1.0/images":                         shared(project.Images),
		"/1.0/images/{fingerprint}":           shared(project.Images),
		"/1.0/images/{fingerprint}/{rest...}": shared(project.Images),
		"/1.0/images/aliases":                 shared(project.Images),
		"/1.0/images/aliases/{name...}":       shared(project.Images),

		"/1.0/networks":               shared(project.Networks),
		"/1.0/networks/{name}":        shared(project.Networks),
		"/1.0/networks/{name}/state":  shared(project.Networks),
		"/1.0/networks/{name}/leases": {read: inside, feature: project.Networks, private: true},

		"/1.0/storage-pools":                                {read: trusted, write: admin},
		"/1.0/storage-pools/{name}":                         {read: trusted, write: admin},
		"/1.0/storage-pools/{name}/resources":               {read: trusted},
		"/1.0/storage-pools/{name}/volumes":                 {read: inside, feature: project.Volumes, private: true},
		"/1.0/storage-pools/{name}/volumes/{type}":          {read: inside, feature: project.Volumes, private: true},
		"/1.0/storage-pools/{name}/volumes/{type}/{volume}": {read: inside, feature: project.Volumes, private: true},
	}
	// The World is the administrators': deploys and facts of all machines.
	for _, e := range slices.Concat(worldEndpoints(), worldFSEndpoints(), scheduleEndpoints()) {
		all[e.path] = rule{read: admin, write: admin}
	}
	for prefix := range instancePrefixes {
		all[prefix] = rule{read: inside, write: inside, spans: true}
		for _, part := range []string{"", "/state", "/exec", "/console", "/files", "/sftp", "/logs", "/logs/{file}", "/metadata", "/snapshots", "/snapshots/{snapshot}", "/backups"} {
			all[prefix+"/{name}"+part] = instance
		}
	}
	return all
}

func (r rule) class(method string) access.Class {
	if c, ok := r.methods[method]; ok {
		return c
	}
	if reads(method) {
		return r.read
	}
	return r.write
}

func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// pathProject is the project that the path names. A name that cannot be is hidden as one that is not there.
func pathProject(r *request) (api.ProjectName, error) {
	return api.ParseProjectName(r.PathValue("name"))
}

// operationProject is the project of the operation that the path names. One that is hidden looks as one that is not there.
func operationProject(r *request) (api.ProjectName, error) {
	it, err := r.svc.Operations.Get(r.PathValue("id"))
	if err == nil && !r.who.Sees(it.Project) {
		err = errs.NotFound("Operation not found")
	}
	return it.Project, err
}

// identify finds out whom a request comes from and what that is worth now.
func (s *Server) identify(r *http.Request, svc *Services) (access.Caller, *http.Request) {
	if who, ok := caller.From(r.Context()); ok && who.Protocol == caller.Unix {
		return access.Caller{Kind: access.Local}, r
	}
	if r.TLS == nil {
		return access.Caller{}, r
	}
	c := caller.Caller{Protocol: caller.TLS, Address: r.RemoteAddr}
	var who access.Caller
	if svc != nil && svc.Trust != nil {
		who = svc.Trust.Caller(peer(r))
	}
	if c.Username = who.Fingerprint; c.Username == "" {
		c.Username = "untrusted"
	}
	return who, r.WithContext(caller.With(r.Context(), c))
}

// peer is the certificate that the client has shown it holds the key of; nil when it has shown none.
func peer(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// permit is the gate that every request goes through.
func (r *request) permit(path rule) error {
	q := access.Request{
		Class: path.class(r.Method), Change: !reads(r.Method), Project: r.project, AllProjects: r.allProjects, Filtered: path.spans,
		HasSecret: r.query.Get("secret") != "", Fingerprint: strings.ToLower(r.PathValue("fingerprint")),
	}
	if r.who.Kind >= access.Full {
		return access.Decide(r.who, q) // the rest is about what others may see
	}
	if path.project != nil && r.who.Kind == access.Restricted {
		p, err := path.project(r)
		if err != nil {
			return err
		}
		q.Project = p
	}
	if path.feature != "" && r.who.Kind == access.Restricted && r.svc.Projects != nil {
		// An unknown project is shared by nobody: the caller does not see it either.
		if holder, err := r.svc.Projects.Effective(q.Project, path.feature); err == nil {
			q.Holder = holder
		}
		q.Change = q.Change || path.private
	}
	return access.Decide(r.who, q)
}

// bodyProjects refuses a JSON document that names a project which the caller does not see, wherever in it: as the place of a copy's
// source, as the target of a move. It reads tokens, so that a key that is there twice does not hide one of its values.
func bodyProjects(who access.Caller, doc io.Reader) error {
	dec := json.NewDecoder(doc)
	var objects []bool // of each open bracket, whether it is an object
	key, isKey := "", true
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil //nolint:nilerr // the end, or not JSON, which whoever decodes it says better
		}
		switch t := tok.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				objects = append(objects, t == '{')
			default:
				objects = objects[:len(objects)-1]
			}
			key, isKey = "", true
			continue
		case string:
			if len(objects) > 0 && objects[len(objects)-1] && isKey {
				key, isKey = t, false
				continue
			}
			if strings.EqualFold(key, "project") {
				if err := access.CheckProjects(who, t); err != nil {
					return err
				}
			}
		}
		key, isKey = "", true
	}
}
