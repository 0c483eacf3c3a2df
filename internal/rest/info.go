package rest

import (
	"context"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/access"
	"github.com/shoal-project/shoal/internal/errs"
)

// ServerService knows the server's configuration and what it runs on.
type ServerService interface {
	// Config returns the keys that were set.
	Config() map[string]string
	// Replace sets the whole configuration, Merge the given keys only.
	Replace(ctx context.Context, config map[string]any) error
	Merge(ctx context.Context, config map[string]any) error
	// Environment describes the host, the daemon and what was probed.
	Environment() api.ServerEnvironment
}

func (s *Server) serverEndpoints() []endpoint {
	return []endpoint{
		{path: "/{$}", early: true, methods: methods{"GET": func(*request) response { return reply([]string{"/1.0"}) }}},
		{path: "/1.0", methods: methods{"GET": serverGet, "PUT": serverPut, "PATCH": serverPatch}},
		{path: "/1.0/events", methods: methods{"GET": s.eventsGet}},
		{path: "/internal/ready", methods: methods{"GET": func(*request) response { return empty() }}},
		{path: "/internal/shutdown", early: true, methods: methods{"PUT": s.shutdownPut}},
	}
}

// serverPublic is what somebody who is not trusted sees of the server.
type serverPublic struct {
	APIExtensions []string `json:"api_extensions"`
	APIStatus     string   `json:"api_status"`
	APIVersion    string   `json:"api_version"`
	Auth          string   `json:"auth"`
	Public        bool     `json:"public"`
	AuthMethods   []string `json:"auth_methods"`
}

func serverConfig(r *request) map[string]any {
	out := map[string]any{}
	for k, v := range r.svc.Server.Config() {
		out[k] = v
	}
	return out
}

func serverGet(r *request) response {
	if r.who.Kind < access.Restricted {
		return reply(serverPublic{APIExtensions: api.Extensions(), APIStatus: "stable", APIVersion: "1.0", Auth: "untrusted", AuthMethods: []string{"tls"}})
	}
	env := r.svc.Server.Environment()
	env.Project = r.project.String()
	config := map[string]any{}
	if r.who.Kind >= access.Full {
		config = serverConfig(r)
	}
	return reply(api.Server{
		ServerPut:     api.ServerPut{Config: config},
		APIExtensions: api.Extensions(),
		APIStatus:     "stable",
		APIVersion:    "1.0",
		Auth:          "trusted",
		AuthMethods:   []string{"tls"},
		Environment:   env,
	}, config)
}

func serverPut(r *request) response   { return serverChange(r, r.svc.Server.Replace) }
func serverPatch(r *request) response { return serverChange(r, r.svc.Server.Merge) }

func serverChange(r *request, apply func(context.Context, map[string]any) error) response {
	if err := r.ifMatch(serverConfig(r)); err != nil {
		return fail(err)
	}
	var put api.ServerPut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	if err := apply(r.Context(), put.Config); err != nil {
		return fail(err)
	}
	r.lifecycle("config-updated", "/1.0", nil)
	return empty()
}

// lifecycle publishes what a service without events of its own did.
func (r *request) lifecycle(action, source string, details map[string]any) {
	r.srv.d.Events.Lifecycle(r.Context(), r.project, action, source, details)
}

// shutdownPut starts the end of the daemon; instances are not touched unless ?instances=true. The client then follows its connection until it
// closes.
func (s *Server) shutdownPut(r *request) response {
	force := r.query.Get("force") == "1" || r.query.Get("force") == "true"
	timeout := time.Duration(-1)
	if v := r.query.Get("timeout"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return fail(errs.Invalid("Invalid timeout %q: seconds", v))
		}
		timeout = time.Duration(n) * time.Second
	}
	instances := r.query.Get("instances") == "1" || r.query.Get("instances") == "true"
	if s.asked.CompareAndSwap(false, true) {
		s.d.Shutdown(ShutdownRequest{Force: force, Instances: instances, Timeout: timeout})
	}
	return empty()
}
