package rest

import (
	"strings"

	"github.com/shoal-project/shoal/api"
)

// snapshotEndpoints are those of the snapshots of the instance at path.
func snapshotEndpoints(path string) []endpoint {
	return []endpoint{
		{path: path + "/snapshots", methods: methods{"GET": snapshotsGet(path), "POST": snapshotsPost}},
		{path: path + "/snapshots/{snapshot}", methods: methods{"GET": snapshotGet, "PUT": snapshotPut, "PATCH": snapshotPatch,
			"POST": snapshotPost, "DELETE": snapshotDelete}},
	}
}

func snapshotsGet(path string) handler {
	return func(r *request) response {
		list, err := r.svc.Instances.Snapshots(r.project, r.PathValue("name"))
		if err != nil {
			return fail(err)
		}
		base := strings.Replace(path, "{name}", r.PathValue("name"), 1)
		return listing(r, list, func(s api.InstanceSnapshot) string { return withProject(base+"/snapshots/"+s.Name, r.project) })
	}
}

func snapshotsPost(r *request) response {
	var post api.InstanceSnapshotsPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.Snapshot(r.project, r.PathValue("name"), post))
}

func snapshotGet(r *request) response {
	s, tag, err := r.svc.Instances.GetSnapshot(r.project, r.PathValue("name"), r.PathValue("snapshot"))
	if err != nil {
		return fail(err)
	}
	return reply(s, tag...)
}

func snapshotPut(r *request) response {
	var put api.InstanceSnapshotPut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.UpdateSnapshot(r.project, r.PathValue("name"), r.PathValue("snapshot"), put, r.matchInstance))
}

func snapshotPatch(r *request) response {
	s, _, err := r.svc.Instances.GetSnapshot(r.project, r.PathValue("name"), r.PathValue("snapshot"))
	if err != nil {
		return fail(err)
	}
	put := api.InstanceSnapshotPut{ExpiresAt: s.ExpiresAt}
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.UpdateSnapshot(r.project, r.PathValue("name"), s.Name, put, r.matchInstance))
}

func snapshotPost(r *request) response {
	var post api.InstanceSnapshotPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	return r.start(r.svc.Instances.RenameSnapshot(r.project, r.PathValue("name"), r.PathValue("snapshot"), post))
}

func snapshotDelete(r *request) response {
	return r.start(r.svc.Instances.DeleteSnapshot(r.project, r.PathValue("name"), r.PathValue("snapshot")))
}
