package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/shoal-project/shoal/api"
)

// StoragePools returns all storage pools, broken ones too.
func (c *Client) StoragePools(ctx context.Context) ([]api.StoragePool, error) {
	return list[api.StoragePool](ctx, c, "/1.0/storage-pools", nil)
}

// StoragePool returns one pool and its ETag, which may be empty.
func (c *Client) StoragePool(ctx context.Context, name string) (*api.StoragePool, string, error) {
	v, etag, err := get[api.StoragePool](ctx, c, pathTo("storage-pools", name), nil)
	return &v, etag, err
}

// StoragePoolResources returns the space of a pool.
func (c *Client) StoragePoolResources(ctx context.Context, name string) (*api.ResourcesStoragePool, error) {
	v, _, err := get[api.ResourcesStoragePool](ctx, c, pathTo("storage-pools", name, "resources"), nil)
	return &v, err
}

// CreateStoragePool creates a pool.
func (c *Client) CreateStoragePool(ctx context.Context, p api.StoragePoolsPost) error {
	return c.send(ctx, http.MethodPost, "/1.0/storage-pools", p, "")
}

// UpdateStoragePool replaces a pool's configuration, if etag (when not empty) is still current.
func (c *Client) UpdateStoragePool(ctx context.Context, name string, put api.StoragePoolPut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("storage-pools", name), put, etag)
}

// DeleteStoragePool deletes a pool that nothing uses.
func (c *Client) DeleteStoragePool(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("storage-pools", name), nil, "")
}

// StorageVolumes returns the volumes of a pool.
func (c *Client) StorageVolumes(ctx context.Context, pool string, allProjects bool) ([]api.StorageVolume, error) {
	q := url.Values{}
	if allProjects {
		q.Set("all-projects", "true")
	}
	return list[api.StorageVolume](ctx, c, pathTo("storage-pools", pool, "volumes"), q)
}

// StorageVolume returns one volume of a type: container, virtual-machine, image or custom.
func (c *Client) StorageVolume(ctx context.Context, pool, kind, name string) (*api.StorageVolume, string, error) {
	v, etag, err := get[api.StorageVolume](ctx, c, pathTo("storage-pools", pool, "volumes", kind, name), nil)
	return &v, etag, err
}
