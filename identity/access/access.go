package access

import (
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// Kind says how far somebody is trusted.
type Kind int

// The kinds, from the least trusted on.
const (
	Untrusted  Kind = iota // no certificate, or one that the trust store does not know
	Metrics                // a certificate of type metrics
	Restricted             // a client certificate that is limited to projects
	Full                   // a client certificate without limits
	Local                  // the unix socket: full, and the daemon's own endpoints
)

// String names the kind for log lines.
func (k Kind) String() string {
	return [...]string{"untrusted", "metrics", "restricted", "full", "local"}[k]
}

// Caller is whom a request comes from. The zero value is nobody that is known.
type Caller struct {
	Kind        Kind
	Fingerprint string   // of a certificate in the trust store
	Projects    []string // of a restricted caller
}

// Sees reports whether the caller may know of what is in a project.
func (c Caller) Sees(p api.ProjectName) bool {
	switch c.Kind {
	case Full, Local:
		return true
	case Restricted:
		return slices.Contains(c.Projects, p.String())
	}
	return false
}

// Class says for whom a request is.
type Class int

// The classes. The zero value is what nobody declared.
const (
	Undeclared Class = iota // as Admin
	Admin                   // full trust
	Host                    // the unix socket only
	Anyone                  // no trust needed; the handler shows each caller what it may see
	Secret                  // whoever brings a secret, which the handler compares; without one as InProject
	Scrape                  // metrics: full trust or a metrics certificate
	Trusted                 // full trust, or restricted to whatever project: what all projects share, read only
	InProject               // full trust, or restricted to a project that the request is about
	Self                    // full trust, or the caller's own certificate
)

// Request is what the decision needs to know of a request.
type Request struct {
	Class  Class
	Change bool // anything but a read
	// Project is what the request is about. Holder is the project in which the object really is, when Project shares those of
	// another one; zero: the same.
	Project, Holder api.ProjectName
	// AllProjects: a list over all projects was asked for. Filtered: its handler shows only those that Caller.Sees.
	AllProjects, Filtered bool
	HasSecret             bool
	// Fingerprint is the certificate that the request is about; a prefix will do.
	Fingerprint string
}

// denied is LXD's text.
func denied() error { return errs.Forbidden("not authorized") }

// Decide returns nil when the caller may do what it asks for, else an error of class Denied.
func Decide(c Caller, r Request) error {
	if allowed(c, r) {
		return nil
	}
	return denied()
}

func allowed(c Caller, r Request) bool {
	switch {
	case r.Class == Anyone:
		return true
	case r.Class == Host:
		return c.Kind == Local
	case c.Kind >= Full:
		return true
	case r.Class == Secret && r.HasSecret:
		return true
	case r.Class == Scrape:
		return c.Kind == Metrics
	case c.Kind != Restricted:
		return false
	}
	switch r.Class {
	case Trusted:
		return !r.Change
	case Self:
		return r.Fingerprint != "" && len(r.Fingerprint) <= len(c.Fingerprint) && c.Fingerprint[:len(r.Fingerprint)] == r.Fingerprint
	case InProject, Secret:
		if r.AllProjects {
			return r.Filtered && !r.Change
		}
		// What a project borrows from another one it may use, not change.
		borrowed := !r.Holder.IsZero() && r.Holder != r.Project
		return c.Sees(r.Project) && (!r.Change || !borrowed || c.Sees(r.Holder))
	}
	return false
}

// CheckProjects refuses a request of a restricted caller that names a project it does not see, whichever way it names it. Empty
// names are skipped: they mean the project that the request is about.
func CheckProjects(c Caller, names ...string) error {
	if c.Kind >= Full {
		return nil
	}
	for _, n := range names {
		if n != "" && !slices.Contains(c.Projects, n) {
			return denied()
		}
	}
	return nil
}
