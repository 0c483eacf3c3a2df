package rest

import (
	"net/http"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

func operationEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/operations", methods: methods{"GET": operationsGet}},
		{path: "/1.0/operations/{id}", methods: methods{"GET": operationGet, "DELETE": operationDelete}},
		{path: "/1.0/operations/{id}/wait", methods: methods{"GET": operationWait}},
		{path: "/1.0/operations/{id}/websocket", methods: methods{"GET": operationWebsocket}},
	}
}

// operationsGet groups by status: {"running": [url, …]}.
func operationsGet(r *request) response {
	project := r.project
	if r.allProjects {
		project = api.ProjectName{}
	}
	urls, objects := map[string][]string{}, map[string][]api.Operation{}
	for _, it := range r.svc.Operations.List(project) {
		status := strings.ToLower(it.Operation.Status)
		urls[status] = append(urls[status], withProject("/1.0/operations/"+it.Operation.ID, it.Project))
		objects[status] = append(objects[status], it.Operation)
	}
	if r.recursion == 0 {
		return reply(urls)
	}
	return reply(objects)
}

func operationGet(r *request) response {
	it, err := r.svc.Operations.Get(r.PathValue("id"))
	if err != nil {
		return fail(err)
	}
	return reply(it.Operation)
}

func operationDelete(r *request) response {
	it, err := r.svc.Operations.Get(r.PathValue("id"))
	if err != nil {
		return fail(err)
	}
	if err := r.svc.Operations.Cancel(it.Operation.ID); err != nil {
		return fail(err)
	}
	r.project = it.Project
	r.lifecycle("operation-cancelled", "/1.0/operations/"+it.Operation.ID, nil)
	return empty()
}

func operationWait(r *request) response {
	timeout, err := r.timeout()
	if err != nil {
		return fail(err)
	}
	it, err := r.svc.Operations.Wait(r.Context(), r.PathValue("id"), timeout)
	if err != nil {
		return fail(err)
	}
	return reply(it.Operation)
}

// operationWebsocket upgrades once the secret was accepted and stays until the socket is closed.
func operationWebsocket(r *request) response {
	secret := r.query.Get("secret")
	if secret == "" {
		return fail(errs.Invalid("missing secret"))
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		upgraded := false
		var sock *socket
		err := r.svc.Operations.Connect(r.PathValue("id"), secret, func(name string) (op.Socket, error) {
			upgraded = true
			conn, err := r.srv.upgrade(w, hr)
			if err != nil {
				return nil, err
			}
			sock = r.srv.newSocket(conn, name == "control")
			return sock, nil
		})
		if err != nil && !upgraded {
			fail(err).write(w, hr)
		}
		if sock != nil {
			<-sock.ctx.Done()
		}
	})
}
