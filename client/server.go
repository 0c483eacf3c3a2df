package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/shoal-project/shoal/api"
)

// Server describes the server, its host and its configuration.
func (c *Client) Server(ctx context.Context) (*api.Server, string, error) {
	v, etag, err := get[api.Server](ctx, c, "/1.0", nil)
	return &v, etag, err
}

// UpdateServer replaces the server's configuration, if etag (when not empty) is still current.
func (c *Client) UpdateServer(ctx context.Context, put api.ServerPut, etag string) error {
	return c.send(ctx, http.MethodPut, "/1.0", put, etag)
}

// Resources returns the hardware of the host as the server describes it.
func (c *Client) Resources(ctx context.Context) (json.RawMessage, error) {
	v, _, err := get[json.RawMessage](ctx, c, "/1.0/resources", nil)
	return v, err
}

// Ready returns nil when the daemon has started, an error of status 503 while it has not.
func (c *Client) Ready(ctx context.Context) error {
	return c.send(ctx, http.MethodGet, "/internal/ready", nil, "")
}

// Shutdown asks the daemon to stop. Instances go on, unless they are to be stopped too because the host goes down.
func (c *Client) Shutdown(ctx context.Context, instances bool) error {
	r := Request{Method: http.MethodPut, Path: "/internal/shutdown"}
	if instances {
		r.Query = url.Values{"instances": {"true"}}
	}
	_, _, err := c.call(ctx, r)
	return err
}

// DebugDatabase has the daemon check its database. It works before the daemon is ready.
func (c *Client) DebugDatabase(ctx context.Context) (*api.DatabaseReport, error) {
	v, _, err := get[api.DatabaseReport](ctx, c, "/internal/database", nil)
	return &v, err
}

// DebugDatabaseConfig has the daemon check the etcd cluster that a configuration file names, an absolute path on the server.
func (c *Client) DebugDatabaseConfig(ctx context.Context, path string) (*api.DatabaseReport, error) {
	env, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: "/internal/database", Body: api.DatabaseDebugPost{Config: path}})
	if err != nil {
		return nil, err
	}
	var v api.DatabaseReport
	if err := decode(env.Metadata, &v); err != nil {
		return nil, fmt.Errorf("reply to POST /internal/database: %w", err)
	}
	return &v, nil
}

// Warnings returns what an administrator should look at.
func (c *Client) Warnings(ctx context.Context) ([]api.Warning, error) {
	return list[api.Warning](ctx, c, "/1.0/warnings", nil)
}

// Warning returns one warning.
func (c *Client) Warning(ctx context.Context, uuid string) (*api.Warning, string, error) {
	v, etag, err := get[api.Warning](ctx, c, pathTo("warnings", uuid), nil)
	return &v, etag, err
}

// SetWarningStatus makes a warning new, acknowledged or resolved.
func (c *Client) SetWarningStatus(ctx context.Context, uuid, status string) error {
	return c.send(ctx, http.MethodPut, pathTo("warnings", uuid), map[string]string{"status": status}, "")
}

// DeleteWarning removes a warning; it comes back when its cause does.
func (c *Client) DeleteWarning(ctx context.Context, uuid string) error {
	return c.send(ctx, http.MethodDelete, pathTo("warnings", uuid), nil, "")
}

// Projects returns all projects.
func (c *Client) Projects(ctx context.Context) ([]api.Project, error) {
	return list[api.Project](ctx, c, "/1.0/projects", nil)
}

// ProjectByName returns one project and its ETag.
func (c *Client) ProjectByName(ctx context.Context, name string) (*api.Project, string, error) {
	v, etag, err := get[api.Project](ctx, c, pathTo("projects", name), nil)
	return &v, etag, err
}

// CreateProject creates a project.
func (c *Client) CreateProject(ctx context.Context, name string, put api.ProjectPut) error {
	return c.send(ctx, http.MethodPost, "/1.0/projects", struct {
		api.ProjectPut
		Name string `json:"name"`
	}{put, name}, "")
}

// UpdateProject replaces a project's configuration.
func (c *Client) UpdateProject(ctx context.Context, name string, put api.ProjectPut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("projects", name), put, etag)
}

// ProjectState returns how much of its limits a project uses.
func (c *Client) ProjectState(ctx context.Context, name string) (*api.ProjectState, error) {
	v, _, err := get[api.ProjectState](ctx, c, pathTo("projects", name)+"/state", nil)
	return &v, err
}

// RenameProject starts the operation that gives an empty project another name.
func (c *Client) RenameProject(ctx context.Context, name, to string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("projects", name), Body: api.ProjectPost{Name: to}})
}

// DeleteProject deletes an empty project.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("projects", name), nil, "")
}

// Profiles returns the profiles of the project.
func (c *Client) Profiles(ctx context.Context) ([]api.Profile, error) {
	return list[api.Profile](ctx, c, "/1.0/profiles", nil)
}

// Profile returns one profile and its ETag.
func (c *Client) Profile(ctx context.Context, name string) (*api.Profile, string, error) {
	v, etag, err := get[api.Profile](ctx, c, pathTo("profiles", name), nil)
	return &v, etag, err
}

// CreateProfile creates a profile.
func (c *Client) CreateProfile(ctx context.Context, p api.ProfilesPost) error {
	return c.send(ctx, http.MethodPost, "/1.0/profiles", p, "")
}

// UpdateProfile replaces a profile, if etag (when not empty) is still current.
func (c *Client) UpdateProfile(ctx context.Context, name string, put api.ProfilePut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("profiles", name), put, etag)
}

// RenameProfile renames a profile.
func (c *Client) RenameProfile(ctx context.Context, name, to string) error {
	return c.send(ctx, http.MethodPost, pathTo("profiles", name), api.ProfilePost{Name: to}, "")
}

// DeleteProfile deletes a profile that nothing uses.
func (c *Client) DeleteProfile(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("profiles", name), nil, "")
}

// query1 is a query with one key, nothing when the value is empty.
func query1(k, v string) url.Values {
	if v == "" {
		return nil
	}
	return url.Values{k: {v}}
}
