package rest

import (
	"context"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/errs"
)

// NetworkService keeps networks; network.Service satisfies it.
type NetworkService interface {
	List(ctx context.Context, project api.ProjectName) ([]api.Network, error)
	Get(ctx context.Context, project api.ProjectName, name string) (api.Network, error)
	Create(ctx context.Context, project api.ProjectName, post api.NetworksPost) error
	Modify(ctx context.Context, project api.ProjectName, name api.NetworkName, change func(api.NetworkPut) (api.NetworkPut, error)) error
	Delete(ctx context.Context, project api.ProjectName, name api.NetworkName) error
	State(ctx context.Context, project api.ProjectName, name string) (api.NetworkState, error)
	Leases(ctx context.Context, project api.ProjectName, name api.NetworkName) ([]api.NetworkLease, error)
}

func networkEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/networks", methods: methods{"GET": networksGet, "POST": networksPost}},
		{path: "/1.0/networks/{name}", methods: methods{"GET": networkGet, "PUT": networkPut, "PATCH": networkPatch, "DELETE": networkDelete}},
		{path: "/1.0/networks/{name}/state", methods: methods{"GET": networkStateGet}},
		{path: "/1.0/networks/{name}/leases", methods: methods{"GET": networkLeasesGet}},
	}
}

func networkURL(name string, p api.ProjectName) string { return withProject("/1.0/networks/"+name, p) }

func networksGet(r *request) response {
	p, err := r.effective(project.Networks)
	if err != nil {
		return reply([]string{})
	}
	list, err := r.svc.Networks.List(r.Context(), p)
	if err != nil {
		return fail(err)
	}
	may, err := r.networkFilter()
	if err != nil {
		return fail(err)
	}
	list = slices.DeleteFunc(list, func(n api.Network) bool { return !may(n.Name) })
	return listing(r, list, func(n api.Network) string { return networkURL(n.Name, p) })
}

func networksPost(r *request) response {
	var post api.NetworksPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Networks)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Networks.Create(r.Context(), p, post); err != nil {
		return fail(err)
	}
	r.lifecycle("network-created", networkURL(post.Name, p), nil)
	return created(networkURL(post.Name, p))
}

// networkOf reads the network that the path names, with the project that holds it.
func networkOf(r *request) (api.ProjectName, api.Network, error) {
	p, err := r.effective(project.Networks)
	if err != nil {
		return p, api.Network{}, err
	}
	may, err := r.networkFilter()
	if err != nil {
		return p, api.Network{}, err
	}
	if !may(r.PathValue("name")) {
		return p, api.Network{}, errs.NotFound("Network not found") // as one that is not there
	}
	n, err := r.svc.Networks.Get(r.Context(), p, r.PathValue("name"))
	return p, n, err
}

// networkFilter says which networks the request's project may see.
func (r *request) networkFilter() (func(name string) bool, error) {
	p, err := r.svc.Projects.Policy(r.project)
	return func(name string) bool { return policy.NetworkAllowed(p, name) }, err
}

func networkGet(r *request) response {
	_, n, err := networkOf(r)
	if err != nil {
		return fail(err)
	}
	return reply(n, n.Name, n.Managed, n.Type, n.NetworkPut)
}

func networkPut(r *request) response   { return networkChange(r, false) }
func networkPatch(r *request) response { return networkChange(r, true) }

func networkChange(r *request, merge bool) response {
	p, n, err := networkOf(r)
	if err != nil {
		return fail(err)
	}
	name, err := api.ParseNetworkName(n.Name)
	if err != nil {
		return fail(err)
	}
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	err = r.svc.Networks.Modify(r.Context(), p, name, func(cur api.NetworkPut) (api.NetworkPut, error) {
		return changed(r, raw, merge, cur, n.Name, n.Managed, n.Type, cur)
	})
	if err != nil {
		return fail(err)
	}
	r.lifecycle("network-updated", networkURL(n.Name, p), nil)
	return empty()
}

func networkDelete(r *request) response {
	p, n, err := networkOf(r)
	if err != nil {
		return fail(err)
	}
	name, err := api.ParseNetworkName(n.Name)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Networks.Delete(r.Context(), p, name); err != nil {
		return fail(err)
	}
	r.lifecycle("network-deleted", networkURL(n.Name, p), nil)
	return empty()
}

func networkStateGet(r *request) response {
	p, _, err := networkOf(r)
	if err != nil {
		return fail(err)
	}
	st, err := r.svc.Networks.State(r.Context(), p, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return reply(st)
}

func networkLeasesGet(r *request) response {
	p, n, err := networkOf(r)
	if err != nil {
		return fail(err)
	}
	name, err := api.ParseNetworkName(n.Name)
	if err != nil {
		return fail(err)
	}
	leases, err := r.svc.Networks.Leases(r.Context(), p, name)
	if err != nil {
		return fail(err)
	}
	if leases == nil {
		leases = []api.NetworkLease{}
	}
	return reply(leases)
}
