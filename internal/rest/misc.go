package rest

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// miscEndpoints are those that have little to say in a daemon that is not part of a cluster yet.
func miscEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/warnings", methods: methods{"GET": warningsGet}},
		{path: "/1.0/warnings/{uuid}", methods: methods{"GET": warningGet}},
		{path: "/1.0/resources", methods: methods{"GET": resourcesGet}},
		{path: "/1.0/cluster", methods: methods{"GET": clusterGet}},
		{path: "/1.0/cluster/members", methods: methods{"GET": notClustered}},
		{path: "/1.0/cluster/groups", methods: methods{"GET": notClustered}},
	}
}

func warningURL(w api.Warning) string { return "/1.0/warnings/" + w.UUID }

func warningsGet(r *request) response { return listing(r, r.svc.Warnings(), warningURL) }

func warningGet(r *request) response {
	for _, w := range r.svc.Warnings() {
		if w.UUID == r.PathValue("uuid") {
			return reply(w)
		}
	}
	return fail(errs.NotFound("Warning not found"))
}

func resourcesGet(r *request) response {
	res, err := r.svc.Resources()
	if err != nil {
		return fail(err)
	}
	return reply(res)
}

func clusterGet(*request) response {
	c := api.Cluster{MemberConfig: []api.ClusterMemberConfigKey{}}
	return reply(c, c)
}

func notClustered(*request) response { return fail(errs.Invalid("Server is not clustered")) }
