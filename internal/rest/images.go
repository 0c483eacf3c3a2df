package rest

import (
	"context"
	"net/url"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

func imageEndpoints() []endpoint {
	const one = "/1.0/images/{fingerprint}"
	return []endpoint{
		{path: "/1.0/images", methods: methods{"GET": imagesGet, "POST": imagesPost}},
		{path: one, methods: methods{"GET": imageGet, "PUT": imagePut, "PATCH": imagePatch, "DELETE": imageDelete}},
		// The mux cannot tell images/{fp}/export from images/aliases/{name...}, so what follows a fingerprint is one pattern.
		{path: one + "/{rest...}", methods: methods{"GET": imageRest}},
		{path: "/1.0/images/aliases", methods: methods{"GET": aliasesGet, "POST": aliasesPost}},
		{path: "/1.0/images/aliases/{name...}", methods: methods{
			"GET": aliasGet, "PUT": aliasPut, "PATCH": aliasPatch, "POST": aliasPost, "DELETE": aliasDelete}},
	}
}

func imageURL(fp string, p api.ProjectName) string { return withProject("/1.0/images/"+fp, p) }

func imagesGet(r *request) response {
	match, err := parseFilter(r.query.Get("filter"))
	if err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Images)
	if err != nil {
		return reply([]string{})
	}
	return filtered(r, r.svc.Images.List(p), match, func(i api.Image) string { return imageURL(i.Fingerprint, p) })
}

// imageOf reads the image that the path names.
func imageOf(r *request) (api.ProjectName, *api.Image, error) {
	p, err := r.effective(project.Images)
	if err != nil {
		return p, nil, err
	}
	img, err := r.svc.Images.Get(p, r.PathValue("fingerprint"))
	return p, img, err
}

func imageGet(r *request) response {
	_, img, err := imageOf(r)
	if err != nil {
		return fail(err)
	}
	return reply(img, img.ImagePut)
}

func imagePut(r *request) response   { return imageChange(r, false) }
func imagePatch(r *request) response { return imageChange(r, true) }

func imageChange(r *request, merge bool) response {
	p, img, err := imageOf(r)
	if err != nil {
		return fail(err)
	}
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	err = r.svc.Images.Modify(r.Context(), p, img.Fingerprint, func(cur api.ImagePut) (api.ImagePut, error) {
		return changed(r, raw, merge, cur, cur)
	})
	if err != nil {
		return fail(err)
	}
	r.lifecycle("image-updated", imageURL(img.Fingerprint, p), nil)
	return empty()
}

func imageDelete(r *request) response {
	p, img, err := imageOf(r)
	if err != nil {
		return fail(err)
	}
	u := imageURL(img.Fingerprint, p)
	return r.start(op.Spec{
		Project: r.project, Description: "Deleting image", Resources: map[string][]string{"images": {u}},
		Run: func(ctx context.Context, _ op.Handle) error {
			if err := r.svc.Images.Delete(ctx, p, img.Fingerprint); err != nil {
				return err
			}
			r.srv.d.Events.Lifecycle(ctx, r.project, "image-deleted", u, nil)
			return nil
		},
	}, nil)
}

func imageRest(r *request) response {
	if r.PathValue("rest") == "export" {
		return imageExport(r)
	}
	return fail(errs.NotFound("not found"))
}

func aliasURL(name string, p api.ProjectName) string {
	return withProject("/1.0/images/aliases/"+url.PathEscape(name), p)
}

func aliasesGet(r *request) response {
	p, err := r.effective(project.Images)
	if err != nil {
		return reply([]string{})
	}
	return listing(r, r.svc.Images.ListAliases(p), func(a api.ImageAliasesEntry) string { return aliasURL(a.Name, p) })
}

func aliasesPost(r *request) response {
	var post api.ImageAliasesPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	p, err := r.effective(project.Images)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Images.CreateAlias(r.Context(), p, post); err != nil {
		return fail(err)
	}
	r.lifecycle("image-alias-created", aliasURL(post.Name, p), nil)
	return created(aliasURL(post.Name, p))
}

// aliasOf reads the alias that the path names.
func aliasOf(r *request) (api.ProjectName, api.AliasName, *api.ImageAliasesEntry, error) {
	p, err := r.effective(project.Images)
	if err != nil {
		return p, api.AliasName{}, nil, err
	}
	name, err := api.ParseAliasName(r.PathValue("name"))
	if err != nil {
		return p, name, nil, err
	}
	a, err := r.svc.Images.GetAlias(p, name)
	return p, name, a, err
}

func aliasGet(r *request) response {
	_, _, a, err := aliasOf(r)
	if err != nil {
		return fail(err)
	}
	return reply(a, a)
}

func aliasPut(r *request) response   { return aliasChange(r, false) }
func aliasPatch(r *request) response { return aliasChange(r, true) }

func aliasChange(r *request, merge bool) response {
	p, name, a, err := aliasOf(r)
	if err != nil {
		return fail(err)
	}
	var raw rawJSON
	if err := r.decode(&raw); err != nil {
		return fail(err)
	}
	err = r.svc.Images.ModifyAlias(r.Context(), p, name, func(cur api.ImageAliasesEntry) (api.ImageAliasesEntryPut, error) {
		return changed(r, raw, merge, cur.ImageAliasesEntryPut, cur)
	})
	if err != nil {
		return fail(err)
	}
	r.lifecycle("image-alias-updated", aliasURL(a.Name, p), nil)
	return empty()
}

func aliasPost(r *request) response {
	p, name, a, err := aliasOf(r)
	if err != nil {
		return fail(err)
	}
	var post api.ImageAliasesEntryPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if err := r.svc.Images.RenameAlias(r.Context(), p, name, post.Name); err != nil {
		return fail(err)
	}
	r.lifecycle("image-alias-renamed", aliasURL(post.Name, p), map[string]any{"old_name": a.Name})
	return created(aliasURL(post.Name, p))
}

func aliasDelete(r *request) response {
	p, name, a, err := aliasOf(r)
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Images.DeleteAlias(r.Context(), p, name); err != nil {
		return fail(err)
	}
	r.lifecycle("image-alias-deleted", aliasURL(a.Name, p), nil)
	return empty()
}
