package rest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
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
	for _, it := range r.operations(project) {
		status := strings.ToLower(it.Operation.Status)
		urls[status] = append(urls[status], withProject("/1.0/operations/"+it.Operation.ID, it.Project))
		objects[status] = append(objects[status], it.Operation)
	}
	if r.recursion == 0 {
		return reply(urls)
	}
	return reply(objects)
}

// operations are those of a project, of all projects when it is the zero name, that the caller may see. Tokens stand among them; who
// sees one can become what it stands for.
func (r *request) operations(project api.ProjectName) []op.Item {
	list := slices.DeleteFunc(r.svc.Operations.List(project), func(it op.Item) bool { return !r.who.Sees(it.Project) })
	if r.svc.Trust == nil || r.who.Kind < access.Full || (!project.IsZero() && project != api.DefaultProject) {
		return list
	}
	for _, o := range r.svc.Trust.Tokens() {
		list = append(list, op.Item{Project: api.DefaultProject, Operation: o})
	}
	return list
}

// operation finds the operation that the path names, also one that stands for a token.
func (r *request) operation() (it op.Item, token bool, err error) {
	id := r.PathValue("id")
	if it, err = r.svc.Operations.Get(id); err == nil || r.svc.Trust == nil || r.who.Kind < access.Full {
		return it, false, err
	}
	o, terr := r.svc.Trust.Token(id)
	if terr != nil {
		return it, false, err
	}
	return op.Item{Project: api.DefaultProject, Operation: o}, true, nil
}

func operationGet(r *request) response {
	it, _, err := r.operation()
	if err != nil {
		return fail(err)
	}
	return reply(it.Operation)
}

func operationDelete(r *request) response {
	it, token, err := r.operation()
	if err != nil {
		return fail(err)
	}
	if token {
		if err := r.svc.Trust.Revoke(r.Context(), it.Operation.ID); err != nil {
			return fail(err)
		}
		r.serverEvent("operation-cancelled", "/1.0/operations/"+it.Operation.ID)
		return empty()
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
