package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/shoal-project/shoal/api"
)

func worldFiles(volume string) string { return worldPath("fs", "volumes", volume, "files") }

// WorldFS says what the shared file system holds.
func (c *Client) WorldFS(ctx context.Context) (*api.WorldFS, error) {
	v, _, err := get[api.WorldFS](ctx, c, worldPath("fs"), nil)
	return &v, err
}

// CollectWorldFS deletes what nothing leads to.
func (c *Client) CollectWorldFS(ctx context.Context) (*api.WorldCollected, error) {
	env, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldPath("fs", "gc")})
	if err != nil {
		return nil, err
	}
	var v api.WorldCollected
	return &v, decode(env.Metadata, &v)
}

// CreateWorldVolume makes a volume.
func (c *Client) CreateWorldVolume(ctx context.Context, post api.WorldVolumesPost) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldPath("fs", "volumes"), Body: post})
	return err
}

// DeleteWorldVolume removes a volume and all that is in it.
func (c *Client) DeleteWorldVolume(ctx context.Context, name string) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: worldPath("fs", "volumes", name)})
	return err
}

// WorldMounts are the volumes that the daemon has mounted on its machine.
func (c *Client) WorldMounts(ctx context.Context) ([]api.WorldMount, error) {
	v, _, err := get[[]api.WorldMount](ctx, c, worldPath("fs", "mounts"), nil)
	return v, err
}

// MountWorldVolume has the daemon mount a volume, read-only, at an absolute path of its machine.
func (c *Client) MountWorldVolume(ctx context.Context, m api.WorldMount) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldPath("fs", "mounts"), Body: m})
	return err
}

// UnmountWorldVolume ends a mount.
func (c *Client) UnmountWorldVolume(ctx context.Context, path string) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: worldPath("fs", "mounts"), Query: url.Values{"path": {path}}})
	return err
}

// WorldFile describes what is at a path, a link itself.
func (c *Client) WorldFile(ctx context.Context, volume, path string) (*api.WorldFile, error) {
	v, _, err := get[api.WorldFile](ctx, c, worldFiles(volume), url.Values{"path": {path}, "stat": {"true"}})
	return &v, err
}

// WorldTree describes what is at a path and below, in the order of names.
func (c *Client) WorldTree(ctx context.Context, volume, path string) ([]api.WorldFile, error) {
	v, _, err := get[[]api.WorldFile](ctx, c, worldFiles(volume), url.Values{"path": {path}, "tree": {"true"}})
	return v, err
}

// WorldContent is what is at a path: a directory's entries, or a file's content, which the caller closes.
type WorldContent struct {
	Dir     []api.WorldFile // not nil of a directory
	Content io.ReadCloser
	Size    int64
	ETag    string
}

// ReadWorldFile opens what is at a path, through links. rang is a Range header's value, such as "bytes=0-99"; empty reads all. The content is that of
// one moment; if it breaks off, reading it ends with an error.
func (c *Client) ReadWorldFile(ctx context.Context, volume, path, rang string) (*WorldContent, error) {
	h := http.Header{}
	if rang != "" {
		h.Set("Range", rang)
	}
	resp, err := c.Do(ctx, Request{Path: worldFiles(volume), Query: fileQuery(path), Header: h})
	if err != nil {
		return nil, err
	}
	if header(resp.Header, "type") == FileTypeFile && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent) {
		return &WorldContent{Content: resp.Body, Size: resp.ContentLength, ETag: resp.Header.Get("ETag")}, nil
	}
	defer drain(resp.Body)
	env, err := c.envelope(resp)
	if err != nil {
		return nil, err
	}
	d := &WorldContent{Dir: []api.WorldFile{}}
	return d, decode(env.Metadata, &d.Dir)
}

// WorldWrite says what WriteWorldFile may write over.
type WorldWrite struct {
	Mode string // of a new file, octal; empty means 0644
	ETag string // unless empty: what is there must have it
	New  bool   // nothing may be there
}

// WriteWorldFile replaces a file with content, or makes it: others see all of it or nothing.
func (c *Client) WriteWorldFile(ctx context.Context, volume, path string, content io.Reader, w WorldWrite) (*api.WorldFile, error) {
	q := fileQuery(path)
	if w.Mode != "" {
		q.Set("mode", w.Mode)
	}
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if w.New {
		h.Set("If-None-Match", "*")
	}
	env, _, err := c.call(ctx, Request{Method: http.MethodPut, Path: worldFiles(volume), Query: q, Header: h, ETag: w.ETag, Body: struct{ io.Reader }{content}})
	if err != nil {
		return nil, err
	}
	var f api.WorldFile
	return &f, decode(env.Metadata, &f)
}

// PostWorldFile makes a directory or link, or renames.
func (c *Client) PostWorldFile(ctx context.Context, volume, path string, post api.WorldFilePost) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldFiles(volume), Query: fileQuery(path), Body: post})
	return err
}

// PatchWorldFile changes mode, owner, time or size.
func (c *Client) PatchWorldFile(ctx context.Context, volume, path string, patch api.WorldFilePatch) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPatch, Path: worldFiles(volume), Query: fileQuery(path), Body: patch})
	return err
}

// DeleteWorldFile removes a file, link or empty directory, or with recursive all that is there.
func (c *Client) DeleteWorldFile(ctx context.Context, volume, path string, recursive bool) error {
	q := fileQuery(path)
	if recursive {
		q.Set("recursive", "true")
	}
	_, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: worldFiles(volume), Query: q})
	return err
}
