package rest

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/project"
)

func profileEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/profiles", methods: methods{"GET": profilesGet, "POST": profilesPost}},
		{path: "/1.0/profiles/{name}", methods: methods{"GET": profileGet, "PUT": profilePut, "PATCH": profilePatch,
			"POST": profilePost, "DELETE": profileDelete}},
	}
}

// effective is the project that holds the request's objects of a feature.
func (r *request) effective(feature string) (api.ProjectName, error) {
	return r.svc.Projects.Effective(r.project, feature)
}

func profilesGet(r *request) response {
	p, err := r.effective(project.Profiles)
	if err != nil {
		return reply([]string{}) // lists of an unknown project are empty
	}
	return listing(r, r.svc.Profiles.List(p), func(o api.Profile) string { return withProject("/1.0/profiles/"+o.Name, p) })
}

func profilesPost(r *request) response {
	var post api.ProfilesPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Profiles.Create(r.Context(), p, post); err != nil {
		return fail(err)
	}
	return created(withProject("/1.0/profiles/"+post.Name, p))
}

func profileGet(r *request) response {
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	o, err := r.svc.Profiles.Get(p, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return reply(o, o.ProfilePut)
}

func (r *request) matchProfile(cur api.ProfilePut) error { return r.ifMatch(cur) }

func profilePut(r *request) response {
	var put api.ProfilePut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	return done(r.svc.Profiles.Update(r.Context(), p, r.PathValue("name"), put, r.matchProfile))
}

func profilePatch(r *request) response {
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	cur, err := r.svc.Profiles.Get(p, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	put := api.ProfilePut{Description: cur.Description}
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return done(r.svc.Profiles.Patch(r.Context(), p, cur.Name, put, r.matchProfile))
}

func profilePost(r *request) response {
	var post api.ProfilePost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Profiles.Rename(r.Context(), p, r.PathValue("name"), post.Name); err != nil {
		return fail(err)
	}
	return created(withProject("/1.0/profiles/"+post.Name, p))
}

func profileDelete(r *request) response {
	p, err := r.effective(project.Profiles)
	if err != nil {
		return fail(err)
	}
	return done(r.svc.Profiles.Delete(r.Context(), p, r.PathValue("name")))
}
