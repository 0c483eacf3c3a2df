package rest

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/watch"
)

func deployURL(id uint64) string { return fmt.Sprintf("/1.0/world/deploys/%d", id) }

func signatureOf(s *world.Signature) *api.WorldSignature {
	if s == nil {
		return nil
	}
	return &api.WorldSignature{Key: s.Key, Sig: base64.StdEncoding.EncodeToString(s.Sig)}
}

func deployOf(d world.Deploy) api.WorldDeploy {
	return api.WorldDeploy{ID: d.ID, Hash: d.Hash, Digest: d.Digest, Parent: d.Parent, Payload: d.Payload, Size: d.Size, Machine: d.Machine,
		Created: d.Created, RollbackOf: d.RollbackOf, Note: d.Note, Author: signatureOf(d.Content), Signature: signatureOf(d.Record)}
}

func worldDeploysGet(r *request) response {
	return r.live(r.svc.World.WatchDeploy, func(ctx context.Context) (any, error) {
		all, err := r.svc.World.Deploys(ctx)
		out := make([]api.WorldDeploy, 0, len(all))
		for _, d := range all {
			out = append(out, deployOf(d))
		}
		return out, err
	})
}

func worldDeploysPost(r *request) response {
	var post api.WorldDeploysPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	payload, err := undata(post.WorldData)
	if err != nil {
		return fail(err)
	}
	w := r.svc.World
	var d world.Deploy
	if post.RollbackOf != 0 {
		if payload != "" || post.Hash != "" || post.PrevHash != "" || post.ID != 0 || post.Author != nil {
			return fail(errs.Invalid("a rollback takes everything but the note from the deploy that it goes back to"))
		}
		d, err = w.Rollback(r.Context(), post.RollbackOf, post.Note)
	} else {
		dr := world.Draft{Payload: payload, ID: post.ID, Hash: post.Hash, PrevHash: post.PrevHash, Note: post.Note}
		if post.Author != nil {
			sig, err := base64.StdEncoding.DecodeString(post.Author.Sig)
			if err != nil {
				return fail(errs.Invalid("Invalid signature: %w", err))
			}
			dr.Content = &world.Signature{Key: post.Author.Key, Sig: sig}
		}
		d, err = w.Publish(r.Context(), dr)
	}
	if err != nil {
		return fail(err)
	}
	r.lifecycle("world-deploy-added", deployURL(d.ID), nil)
	return reply(deployOf(d))
}

// worldDeploysDelete prunes all but the newest ?keep=.
func worldDeploysDelete(r *request) response {
	keep, err := strconv.Atoi(r.query.Get("keep"))
	if err != nil || keep < 1 {
		return fail(errs.Invalid("Invalid keep %q: how many deploys shall stay, at least 1", r.query.Get("keep")))
	}
	n, err := r.svc.World.PruneDeploys(r.Context(), keep)
	if err != nil {
		return fail(err)
	}
	return reply(api.WorldPruned{Deleted: n})
}

// deployID reads the number in the path; "latest" is the newest.
func (r *request) deployID() (uint64, error) {
	s := r.PathValue("id")
	if s == "latest" {
		id, err := r.svc.World.GetMaxDeployID(r.Context())
		if err == nil && id == 0 {
			err = errs.NotFound("there is no deploy yet")
		}
		return id, err
	}
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil || id == 0 {
		return 0, errs.Invalid("Invalid deploy %q: must be a number from 1 on, or latest", s)
	}
	return id, nil
}

func worldDeployGet(r *request) response {
	id, err := r.deployID()
	if err != nil {
		return fail(err)
	}
	d, _, err := r.svc.World.Deploy(r.Context(), id)
	if err != nil {
		return fail(err)
	}
	return reply(deployOf(d))
}

func worldDeployPayload(r *request) response {
	id, err := r.deployID()
	if err != nil {
		return fail(err)
	}
	payload, err := r.svc.World.GetDeploy(r.Context(), id)
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(payload)))
		if hr.Method != http.MethodHead {
			_, _ = w.Write([]byte(payload)) // a client that has gone is not an error
		}
	})
}

func worldDeployStatusGet(r *request) response {
	id, err := r.deployID()
	if err != nil {
		return fail(err)
	}
	return r.live(func(ctx context.Context) (*watch.Watch, error) { return r.svc.World.WatchDeployStatus(ctx, id) },
		func(ctx context.Context) (any, error) {
			all, err := r.svc.World.DeployStatus(ctx, id)
			out := make([]api.WorldDeployStatus, 0, len(all))
			for _, s := range all {
				out = append(out, api.WorldDeployStatus{Machine: s.Machine, State: string(s.State), Reason: s.Reason, Since: s.Since})
			}
			return out, err
		})
}

func worldDeployStatusPut(r *request) response {
	id, err := r.deployID()
	if err != nil {
		return fail(err)
	}
	var put api.WorldDeployStatus
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	return changedReply(r.svc.World.SetDeployStatus(r.Context(), id, world.DeployState(put.State), put.Reason))
}
