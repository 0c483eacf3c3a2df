package client

import (
	"context"
	"net/http"

	"github.com/shoal-project/shoal/api"
)

// Networks returns the managed networks and the interfaces of the host.
func (c *Client) Networks(ctx context.Context) ([]api.Network, error) {
	return list[api.Network](ctx, c, "/1.0/networks", nil)
}

// Network returns one network and its ETag.
func (c *Client) Network(ctx context.Context, name string) (*api.Network, string, error) {
	v, etag, err := get[api.Network](ctx, c, pathTo("networks", name), nil)
	return &v, etag, err
}

// NetworkState returns addresses and counters of a network's interface.
func (c *Client) NetworkState(ctx context.Context, name string) (*api.NetworkState, error) {
	v, _, err := get[api.NetworkState](ctx, c, pathTo("networks", name, "state"), nil)
	return &v, err
}

// NetworkLeases returns the addresses given out on a managed network.
func (c *Client) NetworkLeases(ctx context.Context, name string) ([]api.NetworkLease, error) {
	v, _, err := get[[]api.NetworkLease](ctx, c, pathTo("networks", name, "leases"), nil)
	return v, err
}

// CreateNetwork creates a managed network.
func (c *Client) CreateNetwork(ctx context.Context, n api.NetworksPost) error {
	return c.send(ctx, http.MethodPost, "/1.0/networks", n, "")
}

// UpdateNetwork replaces a network's configuration, if etag (when not empty) is still current.
func (c *Client) UpdateNetwork(ctx context.Context, name string, put api.NetworkPut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("networks", name), put, etag)
}

// RenameNetwork renames a network that nothing uses.
func (c *Client) RenameNetwork(ctx context.Context, name, to string) error {
	return c.send(ctx, http.MethodPost, pathTo("networks", name), map[string]string{"name": to}, "")
}

// DeleteNetwork deletes a managed network that nothing uses.
func (c *Client) DeleteNetwork(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("networks", name), nil, "")
}
