package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
)

// Images returns the images of the project.
func (c *Client) Images(ctx context.Context, filter string) ([]api.Image, error) {
	q := url.Values{}
	if filter != "" {
		q.Set("filter", filter)
	}
	return list[api.Image](ctx, c, "/1.0/images", q)
}

// Image returns one image by its fingerprint or the unique beginning of it, and its ETag.
func (c *Client) Image(ctx context.Context, fingerprint string) (*api.Image, string, error) {
	v, etag, err := get[api.Image](ctx, c, pathTo("images", fingerprint), nil)
	return &v, etag, err
}

// ResolveImage returns the image that an alias, a fingerprint or the unique beginning of one stands for.
func (c *Client) ResolveImage(ctx context.Context, name string) (*api.Image, string, error) {
	a, _, err := c.ImageAlias(ctx, name)
	switch {
	case err == nil:
		name = a.Target
	case !IsNotFound(err) && StatusOf(err) != http.StatusBadRequest:
		return nil, "", err
	}
	return c.Image(ctx, name)
}

// UpdateImage replaces an image's properties, if etag (when not empty) is still current.
func (c *Client) UpdateImage(ctx context.Context, fingerprint string, put api.ImagePut, etag string) error {
	return c.send(ctx, http.MethodPut, pathTo("images", fingerprint), put, etag)
}

// DeleteImage deletes an image. Instances made from it go on.
func (c *Client) DeleteImage(ctx context.Context, fingerprint string) (*Operation, error) {
	return c.start(ctx, Request{Method: http.MethodDelete, Path: pathTo("images", fingerprint)})
}

// ImageAliases returns the aliases of the project.
func (c *Client) ImageAliases(ctx context.Context) ([]api.ImageAliasesEntry, error) {
	return list[api.ImageAliasesEntry](ctx, c, "/1.0/images/aliases", nil)
}

// ImageAlias returns one alias and its ETag.
func (c *Client) ImageAlias(ctx context.Context, name string) (*api.ImageAliasesEntry, string, error) {
	v, etag, err := get[api.ImageAliasesEntry](ctx, c, pathTo("images", "aliases", name), nil)
	return &v, etag, err
}

// CreateImageAlias creates an alias.
func (c *Client) CreateImageAlias(ctx context.Context, a api.ImageAliasesPost) error {
	return c.send(ctx, http.MethodPost, "/1.0/images/aliases", a, "")
}

// RenameImageAlias renames an alias.
func (c *Client) RenameImageAlias(ctx context.Context, name, to string) error {
	return c.send(ctx, http.MethodPost, pathTo("images", "aliases", name), api.ImageAliasesEntryPost{Name: to}, "")
}

// DeleteImageAlias deletes an alias.
func (c *Client) DeleteImageAlias(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, pathTo("images", "aliases", name), nil, "")
}

// ImageUpload is an image to send.
type ImageUpload struct {
	Metadata   string // path of the metadata archive, or of a unified image
	RootFS     string // path of the root filesystem of a split image, "" for a unified one
	VM         bool   // the root filesystem is a disk
	Public     bool
	Properties map[string]string
	// Progress, where set, is called from time to time with the bytes sent and their total.
	Progress func(sent, total int64)
}

// ImageFingerprint returns the fingerprint of an image: the SHA-256 of its files one after the other.
func ImageFingerprint(files ...string) (string, error) {
	h := sha256.New()
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		_ = f.Close()
		if err != nil {
			return "", fmt.Errorf("read %s: %w", name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// UploadImage sends an image. The files are read twice: once for the fingerprint, so that the server can tell a
// broken upload, once to send them. Nothing is held in memory.
func (c *Client) UploadImage(ctx context.Context, u ImageUpload) (*Operation, string, error) {
	files := []string{u.Metadata}
	if u.RootFS != "" {
		files = append(files, u.RootFS)
	}
	var total int64
	for _, name := range files {
		st, err := os.Stat(name)
		if err != nil {
			return nil, "", err
		}
		if !st.Mode().IsRegular() {
			return nil, "", fmt.Errorf("%s is not a regular file", name)
		}
		total += st.Size()
	}
	fp, err := ImageFingerprint(files...)
	if err != nil {
		return nil, "", err
	}
	h := http.Header{}
	h.Set("X-LXD-fingerprint", fp)
	h.Set("X-LXD-filename", filepath.Base(files[len(files)-1]))
	if u.Public {
		h.Set("X-LXD-public", "true")
	}
	if len(u.Properties) > 0 {
		q := url.Values{}
		for k, v := range u.Properties {
			q.Set(k, v)
		}
		h.Set("X-LXD-properties", q.Encode())
	}
	count := &counter{total: total, report: u.Progress}
	pr, pw := io.Pipe()
	mw := multipart.NewWriter(pw)
	go func() { _ = pw.CloseWithError(writeImage(pw, mw, u, count)) }()
	defer func() { _ = pr.Close() }() // ends the writer when the server did not want everything
	h.Set("Content-Type", "application/octet-stream")
	if u.RootFS != "" {
		h.Set("Content-Type", mw.FormDataContentType())
	}
	op, err := c.start(ctx, Request{Method: http.MethodPost, Path: "/1.0/images", Header: h, Body: struct{ io.Reader }{pr}})
	return op, fp, err
}

func writeImage(w io.Writer, mw *multipart.Writer, u ImageUpload, count *counter) error {
	if u.RootFS == "" {
		return copyFile(io.MultiWriter(w, count), u.Metadata)
	}
	root := "rootfs"
	if u.VM {
		root = "rootfs.img"
	}
	for _, part := range []struct{ name, file string }{{"metadata", u.Metadata}, {root, u.RootFS}} {
		pw, err := mw.CreateFormFile(part.name, filepath.Base(part.file))
		if err != nil {
			return err
		}
		if err := copyFile(io.MultiWriter(pw, count), part.file); err != nil {
			return err
		}
	}
	return mw.Close()
}

func copyFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

// counter reports how many bytes went through it.
type counter struct {
	n, total int64
	report   func(n, total int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if c.report != nil {
		c.report(c.n, c.total)
	}
	return len(p), nil
}

// ImagePart is one file of an exported image.
type ImagePart struct {
	Name     string // metadata or rootfs (rootfs.img of a virtual machine); "" for a unified image
	Filename string // a plain file name, as the server suggests
	Content  io.Reader
	Size     int64 // bytes, -1 when not known
}

// ExportImage downloads an image and calls f with each of its files in turn.
func (c *Client) ExportImage(ctx context.Context, fingerprint string, f func(ImagePart) error) error {
	resp, err := c.Do(ctx, Request{Path: pathTo("images", fingerprint, "export")})
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	if resp.StatusCode != http.StatusOK {
		_, err := c.envelope(resp)
		if err == nil {
			err = fmt.Errorf("export image: unexpected status %s", resp.Status)
		}
		return err
	}
	kind, params := mediaType(resp.Header)
	if !strings.HasPrefix(kind, "multipart/") {
		_, disp := mediaType(http.Header{"Content-Type": resp.Header["Content-Disposition"]})
		return f(ImagePart{Filename: plainName(disp["filename"], fingerprint), Content: resp.Body, Size: resp.ContentLength})
	}
	mr := multipart.NewReader(resp.Body, params["boundary"])
	for {
		part, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("export image: %w", err)
		}
		name := part.FormName()
		p := ImagePart{Name: name, Filename: plainName(part.FileName(), name), Content: part, Size: partSize(part.Header)}
		if err := f(p); err != nil {
			return err
		}
	}
}

func partSize(h textproto.MIMEHeader) int64 {
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		return n
	}
	return -1
}

// plainName makes a server's file name safe to create in a directory.
func plainName(name, fallback string) string {
	name = path.Base(path.Clean("/" + name))
	if name == "/" || name == "." || strings.ContainsAny(name, "\x00\\") {
		return path.Base(fallback)
	}
	return name
}
