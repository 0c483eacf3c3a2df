package rest

import (
	"net/http"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/errs"
)

// The prefixes under which instances are served; the old ones show one type only.
var instancePrefixes = map[string]string{
	"/1.0/instances":        "",
	"/1.0/containers":       api.TypeContainer,
	"/1.0/virtual-machines": api.TypeVirtualMachine,
}

func instanceEndpoints() []endpoint {
	var all []endpoint
	for prefix, kind := range instancePrefixes {
		one := prefix + "/{name}"
		all = append(all,
			endpoint{path: prefix, methods: methods{"GET": instancesGet(prefix, kind), "POST": instancesPost(kind), "PUT": instancesPut}},
			endpoint{path: one, methods: methods{"GET": instanceGet, "PUT": instancePut, "PATCH": instancePatch,
				"POST": instancePost, "DELETE": instanceDelete}},
			endpoint{path: one + "/state", methods: methods{"GET": instanceStateGet, "PUT": instanceStatePut}},
			endpoint{path: one + "/exec", methods: methods{"POST": instanceExec}},
			endpoint{path: one + "/console", methods: methods{"GET": consoleGet, "POST": consolePost, "DELETE": consoleDelete}},
			endpoint{path: one + "/files", methods: methods{"GET": fileGet, "HEAD": fileHead, "POST": filePost, "DELETE": fileDelete}},
			endpoint{path: one + "/sftp", methods: methods{"GET": sftpGet}},
			endpoint{path: one + "/logs", methods: methods{"GET": logsGet}},
			endpoint{path: one + "/logs/{file}", methods: methods{"GET": logGet, "DELETE": logDelete}},
			endpoint{path: one + "/metadata", methods: methods{"GET": instanceMetadataGet}},
			endpoint{path: one + "/backups", methods: methods{"GET": nothingYet}},
		)
		all = append(all, snapshotEndpoints(one)...)
	}
	return all
}

// nothingYet lists the objects of a kind that this build cannot make: there are none.
func nothingYet(r *request) response { return reply([]string{}) }

func instanceURL(prefix, name string, project string) string {
	p, _ := api.ParseProjectName(project)
	return withProject(prefix+"/"+name, p)
}

// projectsOf are the projects that a list is about, as far as the caller sees them.
func (r *request) projectsOf() ([]api.ProjectName, error) {
	if !r.allProjects {
		return []api.ProjectName{r.project}, nil
	}
	list, err := r.svc.Projects.List()
	if err != nil {
		return nil, err
	}
	var names []api.ProjectName
	for _, p := range list {
		n, err := api.ParseProjectName(p.Name)
		if err != nil {
			return nil, err
		}
		if r.who.Sees(n) {
			names = append(names, n)
		}
	}
	return names, nil
}

func instancesGet(prefix, kind string) handler {
	return func(r *request) response {
		match, err := parseFilter(r.query.Get("filter"))
		if err != nil {
			return fail(err)
		}
		projects, err := r.projectsOf()
		if err != nil {
			return fail(err)
		}
		if r.recursion == 2 {
			var full []api.InstanceFull
			for _, p := range projects {
				full = append(full, r.svc.Instances.ListFull(r.Context(), p)...)
			}
			full = slices.DeleteFunc(full, func(i api.InstanceFull) bool { return kind != "" && i.Type != kind })
			return filtered(r, full, match, nil)
		}
		var list []api.Instance
		for _, p := range projects {
			list = append(list, r.svc.Instances.List(p)...)
		}
		list = slices.DeleteFunc(list, func(i api.Instance) bool { return kind != "" && i.Type != kind })
		return filtered(r, list, match, func(i api.Instance) string { return instanceURL(prefix, i.Name, i.Project) })
	}
}

func instancesPost(kind string) handler {
	return func(r *request) response {
		if r.Header.Get("Content-Type") == "application/octet-stream" {
			return fail(errs.Unsupported("import of instance backups is not supported yet"))
		}
		var post api.InstancesPost
		if err := r.decode(&post); err != nil {
			return fail(err)
		}
		if kind != "" && post.Type == "" {
			post.Type = kind
		}
		if err := r.maySee(post.Source.Project); err != nil {
			return fail(err)
		}
		return r.start(r.svc.Instances.Create(r.Context(), r.project, post))
	}
}

// maySee hides other projects that a body names from who may not see them.
func (r *request) maySee(name string) error {
	if name == "" {
		return nil
	}
	p, err := api.ParseProjectName(name)
	if err != nil {
		return err
	}
	if !r.who.Sees(p) {
		return errs.NotFound("Project not found")
	}
	return nil
}

func instancesPut(r *request) response {
	var put api.InstancesPut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	if put.State == nil {
		return fail(errs.Invalid("Invalid request: state is missing"))
	}
	return r.start(r.svc.Instances.SetStateAll(r.Context(), r.project, *put.State))
}

func instanceGet(r *request) response {
	if r.recursion > 0 {
		full, tag, err := r.svc.Instances.GetFull(r.Context(), r.project, r.PathValue("name"))
		if err != nil {
			return fail(err)
		}
		return reply(full, tag...)
	}
	inst, tag, err := r.svc.Instances.Get(r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return reply(inst, tag...)
}

// matchInstance is If-Match as the instance service asks for it: under its lock.
func (r *request) matchInstance(tag instance.ETag) error { return r.ifMatch(tag...) }

func instancePut(r *request) response {
	var put api.InstancePut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.Update(r.Context(), r.project, r.PathValue("name"), put, r.matchInstance))
}

func instancePatch(r *request) response {
	cur, _, err := r.svc.Instances.Get(r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	// What the body does not name stays; the service merges config and devices.
	put := cur.InstancePut
	put.Config, put.Devices = nil, nil
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return done(r.svc.Instances.Patch(r.Context(), r.project, cur.Name, put, r.matchInstance))
}

func instancePost(r *request) response {
	var post api.InstancePost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if post.Migration {
		return fail(errs.Unsupported("migration of instances is not supported yet"))
	}
	return r.start(r.svc.Instances.Rename(r.Context(), r.project, r.PathValue("name"), post))
}

func instanceDelete(r *request) response {
	return r.start(r.svc.Instances.Delete(r.Context(), r.project, r.PathValue("name")))
}

func instanceStateGet(r *request) response {
	st, err := r.svc.Instances.State(r.Context(), r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return reply(st)
}

func instanceStatePut(r *request) response {
	var put api.InstanceStatePut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.SetState(r.Context(), r.project, r.PathValue("name"), put))
}

func instanceExec(r *request) response {
	var post api.InstanceExecPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.Exec(r.Context(), r.project, r.PathValue("name"), post))
}

func consolePost(r *request) response {
	var post api.InstanceConsolePost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.Console(r.Context(), r.project, r.PathValue("name"), post))
}

func consoleGet(r *request) response {
	log, err := r.svc.Instances.ConsoleLog(r.Context(), r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "inline;filename=console.log")
		_, _ = w.Write(log)
	})
}

func consoleDelete(r *request) response {
	return done(r.svc.Instances.ClearConsoleLog(r.Context(), r.project, r.PathValue("name")))
}

func instanceMetadataGet(r *request) response {
	m, err := r.svc.Instances.Metadata(r.Context(), r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return reply(m, m)
}
