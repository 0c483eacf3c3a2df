package rest

import (
	"context"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/op"
)

// ProjectService keeps projects; identity/project satisfies it.
type ProjectService interface {
	List() ([]api.Project, error)
	Get(api.ProjectName) (api.Project, error)
	Exists(api.ProjectName) error
	Effective(name api.ProjectName, feature string) (api.ProjectName, error)
	Create(ctx context.Context, name string, put api.ProjectPut) (api.ProjectName, error)
	Update(ctx context.Context, name api.ProjectName, change func(api.ProjectPut) (api.ProjectPut, error)) error
	Rename(ctx context.Context, name api.ProjectName, to string) error
	State(name api.ProjectName) (api.ProjectState, error)
	Policy(name api.ProjectName) (policy.Project, error)
	Delete(ctx context.Context, name api.ProjectName) error
}

func projectEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/projects", methods: methods{"GET": projectsGet, "POST": projectsPost}},
		{path: "/1.0/projects/{name}", methods: methods{
			"GET": projectGet, "PUT": projectPut, "PATCH": projectPatch, "POST": projectPost, "DELETE": projectDelete}},
		{path: "/1.0/projects/{name}/state", methods: methods{"GET": projectStateGet}},
	}
}

func projectURL(name string) string { return "/1.0/projects/" + name }

func projectsGet(r *request) response {
	list, err := r.svc.Projects.List()
	if err != nil {
		return fail(err)
	}
	list = slices.DeleteFunc(list, func(p api.Project) bool {
		name, err := api.ParseProjectName(p.Name)
		return err != nil || !r.who.Sees(name)
	})
	return listing(r, list, func(p api.Project) string { return projectURL(p.Name) })
}

func projectsPost(r *request) response {
	var post api.ProjectsPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	name, err := r.svc.Projects.Create(r.Context(), post.Name, post.ProjectPut)
	if err != nil {
		return fail(err)
	}
	r.project = name
	r.lifecycle("project-created", projectURL(name.String()), nil)
	return created(projectURL(name.String()))
}

// projectOf reads the project that the path names.
func projectOf(r *request) (api.ProjectName, api.Project, error) {
	name, err := api.ParseProjectName(r.PathValue("name"))
	if err != nil {
		return name, api.Project{}, err
	}
	p, err := r.svc.Projects.Get(name)
	return name, p, err
}

func projectGet(r *request) response {
	_, p, err := projectOf(r)
	if err != nil {
		return fail(err)
	}
	return reply(p, p.ProjectPut)
}

func projectPut(r *request) response   { return projectChange(r, false) }
func projectPatch(r *request) response { return projectChange(r, true) }

func projectChange(r *request, merge bool) response {
	name, _, err := projectOf(r)
	if err != nil {
		return fail(err)
	}
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	err = r.svc.Projects.Update(r.Context(), name, func(cur api.ProjectPut) (api.ProjectPut, error) {
		return changed(r, raw, merge, cur, cur)
	})
	if err != nil {
		return fail(err)
	}
	r.project = name
	r.lifecycle("project-updated", projectURL(name.String()), nil)
	return empty()
}

// projectPost renames a project.
func projectPost(r *request) response {
	name, _, err := projectOf(r)
	if err != nil {
		return fail(err)
	}
	var post api.ProjectPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	return r.start(op.Spec{
		Project: name, Description: "Renaming project", Resources: map[string][]string{"projects": {projectURL(name.String())}},
		Run: func(ctx context.Context, _ op.Handle) error {
			if err := r.svc.Projects.Rename(ctx, name, post.Name); err != nil {
				return err
			}
			to, err := api.ParseProjectName(post.Name)
			if err == nil {
				r.srv.d.Events.Lifecycle(ctx, to, "project-renamed", projectURL(post.Name), map[string]any{"old_name": name.String()})
			}
			return err
		},
	}, nil)
}

func projectStateGet(r *request) response {
	name, _, err := projectOf(r)
	if err != nil {
		return fail(err)
	}
	st, err := r.svc.Projects.State(name)
	if err != nil {
		return fail(err)
	}
	return reply(st)
}

func projectDelete(r *request) response {
	name, _, err := projectOf(r)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Projects.Delete(r.Context(), name); err != nil {
		return fail(err)
	}
	r.project = name
	r.lifecycle("project-deleted", projectURL(name.String()), nil)
	return empty()
}
