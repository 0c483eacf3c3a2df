package rest

import (
	"net/url"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
)

// redact takes out of a reply what a restricted caller may not see of objects that all projects share: the configuration of pools,
// and the names of what uses something in other projects.
func redact(who access.Caller, resp response) response {
	s, ok := resp.(*syncResponse)
	if !ok || who.Kind >= access.Full {
		return resp
	}
	out := *s
	switch v := s.metadata.(type) {
	case api.StoragePool:
		out.metadata = redactPool(who, v)
	case []api.StoragePool:
		out.metadata = mapped(v, func(p api.StoragePool) api.StoragePool { return redactPool(who, p) })
	case api.Network:
		out.metadata = redactNetwork(who, v)
	case []api.Network:
		out.metadata = mapped(v, func(n api.Network) api.Network { return redactNetwork(who, n) })
	case api.Profile:
		out.metadata = redactProfile(who, v)
	case []api.Profile:
		out.metadata = mapped(v, func(p api.Profile) api.Profile { return redactProfile(who, p) })
	case api.Project:
		out.metadata = redactProject(who, v)
	case []api.Project:
		out.metadata = mapped(v, func(p api.Project) api.Project { return redactProject(who, p) })
	default:
		return resp
	}
	return &out
}

func mapped[T any](list []T, f func(T) T) []T {
	out := make([]T, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

func redactPool(who access.Caller, p api.StoragePool) api.StoragePool {
	p.Config, p.UsedBy = api.Config{}, visible(who, p.UsedBy)
	return p
}

func redactNetwork(who access.Caller, n api.Network) api.Network {
	n.UsedBy = visible(who, n.UsedBy)
	return n
}

func redactProfile(who access.Caller, p api.Profile) api.Profile {
	p.UsedBy = visible(who, p.UsedBy)
	return p
}

func redactProject(who access.Caller, p api.Project) api.Project {
	p.UsedBy = visible(who, p.UsedBy)
	return p
}

// visible keeps the URLs of objects in projects that the caller sees.
func visible(who access.Caller, urls []string) []string {
	return slices.DeleteFunc(append([]string{}, urls...), func(s string) bool {
		u, err := url.Parse(s)
		if err != nil {
			return true
		}
		p, err := api.ParseProjectName(u.Query().Get("project"))
		return err != nil || !who.Sees(p)
	})
}
