package rest

import (
	"context"
	"net/url"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/project"
)

// StorageService keeps pools and volumes; storage.Service satisfies it.
type StorageService interface {
	ListPools(ctx context.Context) []api.StoragePool
	GetPool(ctx context.Context, name api.PoolName) (*api.StoragePool, error)
	CreatePool(ctx context.Context, post api.StoragePoolsPost) error
	ModifyPool(ctx context.Context, name api.PoolName, change func(api.StoragePoolPut) (api.StoragePoolPut, error)) error
	DeletePool(ctx context.Context, name api.PoolName) error
	Resources(ctx context.Context, name api.PoolName) (*api.ResourcesStoragePool, error)
	ListVolumes(pool api.PoolName, project api.ProjectName) ([]api.StorageVolume, error)
	GetVolume(pool api.PoolName, kind string, project api.ProjectName, name string) (*api.StorageVolume, error)
}

func storageEndpoints() []endpoint {
	const one = "/1.0/storage-pools/{name}"
	return []endpoint{
		{path: "/1.0/storage-pools", methods: methods{"GET": poolsGet, "POST": poolsPost}},
		{path: one, methods: methods{"GET": poolGet, "PUT": poolPut, "PATCH": poolPatch, "DELETE": poolDelete}},
		{path: one + "/resources", methods: methods{"GET": poolResourcesGet}},
		{path: one + "/volumes", methods: methods{"GET": volumesGet}},
		{path: one + "/volumes/{type}", methods: methods{"GET": volumesGet}},
		{path: one + "/volumes/{type}/{volume}", methods: methods{"GET": volumeGet}},
	}
}

func poolURL(name string) string { return "/1.0/storage-pools/" + name }

func poolsGet(r *request) response {
	return listing(r, r.svc.Storage.ListPools(r.Context()), func(p api.StoragePool) string { return poolURL(p.Name) })
}

func poolsPost(r *request) response {
	var post api.StoragePoolsPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if err := r.svc.Storage.CreatePool(r.Context(), post); err != nil {
		return fail(err)
	}
	r.lifecycle("storage-pool-created", poolURL(post.Name), nil)
	return created(poolURL(post.Name))
}

// poolOf reads the pool that the path names.
func poolOf(r *request) (api.PoolName, *api.StoragePool, error) {
	name, err := api.ParsePoolName(r.PathValue("name"))
	if err != nil {
		return name, nil, err
	}
	p, err := r.svc.Storage.GetPool(r.Context(), name)
	return name, p, err
}

func poolGet(r *request) response {
	_, p, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	return reply(p, p.Name, p.Driver, p.StoragePoolPut)
}

func poolPut(r *request) response   { return poolChange(r, false) }
func poolPatch(r *request) response { return poolChange(r, true) }

func poolChange(r *request, merge bool) response {
	name, p, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	err = r.svc.Storage.ModifyPool(r.Context(), name, func(cur api.StoragePoolPut) (api.StoragePoolPut, error) {
		return changed(r, raw, merge, cur, p.Name, p.Driver, cur)
	})
	if err != nil {
		return fail(err)
	}
	r.lifecycle("storage-pool-updated", poolURL(p.Name), nil)
	return empty()
}

func poolDelete(r *request) response {
	name, p, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Storage.DeletePool(r.Context(), name); err != nil {
		return fail(err)
	}
	r.lifecycle("storage-pool-deleted", poolURL(p.Name), nil)
	return empty()
}

func poolResourcesGet(r *request) response {
	name, _, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	res, err := r.svc.Storage.Resources(r.Context(), name)
	if err != nil {
		return fail(err)
	}
	return reply(res)
}

// volumesGet lists the volumes of a pool, of one type where the path names it.
func volumesGet(r *request) response {
	match, err := parseFilter(r.query.Get("filter"))
	if err != nil {
		return fail(err)
	}
	pool, _, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	volumes, err := r.svc.Storage.ListVolumes(pool, r.project)
	if err != nil {
		return fail(err)
	}
	kept := []api.StorageVolume{}
	for _, v := range volumes {
		if kind := r.PathValue("type"); kind == "" || v.Type == kind {
			kept = append(kept, v)
		}
	}
	return filtered(r, kept, match, func(v api.StorageVolume) string {
		p, _ := api.ParseProjectName(v.Project)
		return withProject(poolURL(pool.String())+"/volumes/"+v.Type+"/"+url.PathEscape(v.Name), p)
	})
}

func volumeGet(r *request) response {
	pool, _, err := poolOf(r)
	if err != nil {
		return fail(err)
	}
	p := r.project
	if kind := r.PathValue("type"); kind == "custom" {
		if p, err = r.effective(project.Volumes); err != nil {
			return fail(err)
		}
	}
	v, err := r.svc.Storage.GetVolume(pool, r.PathValue("type"), p, r.PathValue("volume"))
	if err != nil {
		return fail(err)
	}
	return reply(v, v.Name, v.Type, v.Config, v.Description)
}
