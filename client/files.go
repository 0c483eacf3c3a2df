package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Kinds of files.
const (
	FileTypeFile      = "file"
	FileTypeDirectory = "directory"
	FileTypeSymlink   = "symlink"
)

// File is a file, directory or symbolic link of an instance.
type File struct {
	Type string // file, directory or symlink
	UID  int64  // as the guest sees them
	GID  int64
	Mode uint32 // permission bits
	// Content is a file's bytes or a link's target; nil for directories and after [Client.StatFile]. The caller
	// closes it.
	Content io.ReadCloser
	Entries []string // names in a directory, without "." and ".."
}

// FileWrite describes a file to write.
type FileWrite struct {
	Type    string    // file when empty
	UID     int64     // -1 leaves the owner to the server, which keeps it or takes root
	GID     int64     // likewise
	Mode    int       // permission bits, -1 leaves them to the server
	Append  bool      // add to the end of an existing file
	Content io.Reader // bytes, or the target of a symlink; nil for directories
}

func fileQuery(path string) url.Values { return url.Values{"path": {path}} }

// header reads a header under both names that servers use.
func header(h http.Header, name string) string {
	if v := h.Get("X-Shoal-" + name); v != "" {
		return v
	}
	if v := h.Get("X-LXD-" + name); v != "" {
		return v
	}
	return h.Get("X-Incus-" + name)
}

func fileFromHeader(h http.Header) (*File, error) {
	f := &File{Type: header(h, "type")}
	switch f.Type {
	case FileTypeFile, FileTypeDirectory, FileTypeSymlink:
	default:
		return nil, fmt.Errorf("the server sent a file of unknown type %q", f.Type)
	}
	f.UID, _ = strconv.ParseInt(header(h, "uid"), 10, 64)
	f.GID, _ = strconv.ParseInt(header(h, "gid"), 10, 64)
	mode, err := strconv.ParseUint(header(h, "mode"), 8, 32)
	if err != nil {
		mode = 0o644
		if f.Type == FileTypeDirectory {
			mode = 0o755
		}
	}
	f.Mode = uint32(mode) & 0o7777
	return f, nil
}

// File opens a file of an instance, running or stopped.
func (c *Client) File(ctx context.Context, instance, path string) (*File, error) {
	api := pathTo("instances", instance, "files")
	resp, err := c.Do(ctx, Request{Path: api, Query: fileQuery(path)})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer drain(resp.Body)
		if _, err := c.envelope(resp); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("GET %s: unexpected status %s", api, resp.Status)
	}
	f, err := fileFromHeader(resp.Header)
	if err != nil {
		drain(resp.Body)
		return nil, err
	}
	if f.Type != FileTypeDirectory {
		f.Content = resp.Body
		return f, nil
	}
	defer drain(resp.Body)
	env, err := c.envelope(resp)
	if err != nil {
		return nil, err
	}
	if err := decode(env.Metadata, &f.Entries); err != nil {
		return nil, fmt.Errorf("directory %q: %w", path, err)
	}
	return f, nil
}

// StatFile returns what [Client.File] does, without the content.
func (c *Client) StatFile(ctx context.Context, instance, path string) (*File, error) {
	resp, err := c.Do(ctx, Request{Method: http.MethodHead, Path: pathTo("instances", instance, "files"), Query: fileQuery(path)})
	if err != nil {
		return nil, err
	}
	drain(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return nil, &Error{Status: resp.StatusCode, Message: strings.TrimSpace(path + ": " + http.StatusText(resp.StatusCode))}
	}
	return fileFromHeader(resp.Header)
}

// WriteFile writes a file, directory or link. A directory that exists is not an error.
func (c *Client) WriteFile(ctx context.Context, instance, path string, w FileWrite) error {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	set := func(k, v string) { h.Set("X-LXD-"+k, v) }
	if w.Type == "" {
		w.Type = FileTypeFile
	}
	set("type", w.Type)
	if w.UID >= 0 {
		set("uid", strconv.FormatInt(w.UID, 10))
	}
	if w.GID >= 0 {
		set("gid", strconv.FormatInt(w.GID, 10))
	}
	if w.Mode >= 0 {
		set("mode", fmt.Sprintf("%04o", w.Mode))
	}
	if w.Type == FileTypeFile {
		set("write", map[bool]string{false: "overwrite", true: "append"}[w.Append])
	}
	var body any
	if w.Content != nil {
		// Hidden behind a plain Reader so that net/http neither closes the caller's file nor trusts its size.
		body = struct{ io.Reader }{w.Content}
	}
	_, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", instance, "files"), Query: fileQuery(path), Header: h, Body: body})
	return err
}

// DeleteFile deletes a file, link or empty directory.
func (c *Client) DeleteFile(ctx context.Context, instance, path string) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: pathTo("instances", instance, "files"), Query: fileQuery(path)})
	return err
}
