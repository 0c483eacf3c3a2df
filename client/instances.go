package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/shoal-project/shoal/api"
)

// InstancesOptions narrow a list of instances.
type InstancesOptions struct {
	AllProjects bool
	Filter      string // in the API's filter language, for example "status eq Running"
}

func (o InstancesOptions) query(recursion string) url.Values {
	q := url.Values{"recursion": {recursion}}
	if o.AllProjects {
		q.Set("all-projects", "true")
	}
	if o.Filter != "" {
		q.Set("filter", o.Filter)
	}
	return q
}

// Instances returns instances without their runtime state.
func (c *Client) Instances(ctx context.Context, o InstancesOptions) ([]api.Instance, error) {
	return list[api.Instance](ctx, c, "/1.0/instances", o.query("1"))
}

// InstancesFull returns instances with state, snapshots and backups.
func (c *Client) InstancesFull(ctx context.Context, o InstancesOptions) ([]api.InstanceFull, error) {
	return list[api.InstanceFull](ctx, c, "/1.0/instances", o.query("2"))
}

// Instance returns one instance and its ETag.
func (c *Client) Instance(ctx context.Context, name string) (*api.Instance, string, error) {
	v, etag, err := get[api.Instance](ctx, c, pathTo("instances", name), nil)
	return &v, etag, err
}

// InstanceFull returns one instance with state, snapshots and backups.
func (c *Client) InstanceFull(ctx context.Context, name string) (*api.InstanceFull, string, error) {
	v, etag, err := get[api.InstanceFull](ctx, c, pathTo("instances", name), query1("recursion", "1"))
	return &v, etag, err
}

// InstanceState returns the runtime state of an instance.
func (c *Client) InstanceState(ctx context.Context, name string) (*api.InstanceState, error) {
	v, _, err := get[api.InstanceState](ctx, c, pathTo("instances", name, "state"), nil)
	return &v, err
}

// InstanceSnapshot returns one snapshot of an instance.
func (c *Client) InstanceSnapshot(ctx context.Context, name, snapshot string) (*api.InstanceSnapshot, string, error) {
	v, etag, err := get[api.InstanceSnapshot](ctx, c, pathTo("instances", name, "snapshots", snapshot), nil)
	return &v, etag, err
}

// CreateInstance creates an instance, without starting it unless req says so.
func (c *Client) CreateInstance(ctx context.Context, req api.InstancesPost) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: "/1.0/instances", Body: req})
}

// UpdateInstance replaces an instance's configuration, if etag (when not empty) is still current.
func (c *Client) UpdateInstance(ctx context.Context, name string, put api.InstancePut, etag string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPut, Path: pathTo("instances", name), Body: put, ETag: etag})
}

// UpdateInstanceState starts, stops, restarts, freezes or unfreezes an instance.
func (c *Client) UpdateInstanceState(ctx context.Context, name string, put api.InstanceStatePut) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPut, Path: pathTo("instances", name, "state"), Body: put})
}

// RenameInstance renames a stopped instance.
func (c *Client) RenameInstance(ctx context.Context, name, to string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", name), Body: api.InstancePost{Name: to}})
}

// DeleteInstance deletes a stopped instance.
func (c *Client) DeleteInstance(ctx context.Context, name string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodDelete, Path: pathTo("instances", name)})
}

// CreateInstanceSnapshot makes a snapshot.
func (c *Client) CreateInstanceSnapshot(ctx context.Context, name string, req api.InstanceSnapshotsPost) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", name, "snapshots"), Body: req})
}

// RestoreInstance puts an instance back to one of its snapshots.
func (c *Client) RestoreInstance(ctx context.Context, name, snapshot string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPut, Path: pathTo("instances", name), Body: api.InstancePut{Restore: snapshot}})
}

// RenameInstanceSnapshot renames a snapshot.
func (c *Client) RenameInstanceSnapshot(ctx context.Context, name, snapshot, to string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", name, "snapshots", snapshot), Body: api.InstanceSnapshotPost{Name: to}})
}

// DeleteInstanceSnapshot deletes a snapshot.
func (c *Client) DeleteInstanceSnapshot(ctx context.Context, name, snapshot string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodDelete, Path: pathTo("instances", name, "snapshots", snapshot)})
}

// ConsoleLog returns what the console of an instance has said so far. The caller closes it.
func (c *Client) ConsoleLog(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.download(ctx, pathTo("instances", name, "console"), query1("type", "log"))
}

// ClearConsoleLog empties the console's log.
func (c *Client) ClearConsoleLog(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("instances", name, "console"), nil, "")
}

// InstanceLog returns one of the instance's log files, for example "lxc.log". The caller closes it.
func (c *Client) InstanceLog(ctx context.Context, name, file string) (io.ReadCloser, error) {
	return c.download(ctx, pathTo("instances", name, "logs", file), nil)
}

// download gets something that is not JSON.
func (c *Client) download(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.Do(ctx, Request{Path: path, Query: q})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer drain(resp.Body)
		if _, err := c.envelope(resp); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("GET %s: unexpected status %s", path, resp.Status)
	}
	return resp.Body, nil
}
