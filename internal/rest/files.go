package rest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"

	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/errs"
)

// filePath reads ?path=; relative and absolute mean the same.
func (r *request) filePath() (string, error) {
	p := r.query.Get("path")
	if p == "" {
		return "", errs.Invalid("missing path argument")
	}
	return path.Clean("/" + p), nil
}

// openFiles opens a session; the caller closes it.
func (r *request) openFiles() (*instance.Files, string, error) {
	p, err := r.filePath()
	if err != nil {
		return nil, "", err
	}
	f, err := r.svc.Instances.Files(r.Context(), r.project, r.PathValue("name"))
	return f, p, err
}

func setFileHeaders(h http.Header, info instance.FileInfo) {
	setHeader(h, "uid", strconv.FormatInt(info.UID, 10))
	setHeader(h, "gid", strconv.FormatInt(info.GID, 10))
	setHeader(h, "mode", fmt.Sprintf("%04o", info.Mode))
	setHeader(h, "type", info.Type)
	if !info.ModTime.IsZero() {
		setHeader(h, "modified", info.ModTime.UTC().String())
		h.Set("Last-Modified", info.ModTime.UTC().Format(http.TimeFormat))
	}
}

func fileGet(r *request) response {
	files, p, err := r.openFiles()
	if err != nil {
		return fail(err)
	}
	info, body, err := files.Get(r.Context(), p)
	if err != nil {
		_ = files.Close()
		return fail(err)
	}
	if body == nil {
		_ = files.Close()
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		setFileHeaders(w.Header(), info)
		switch info.Type {
		case "directory":
			names := info.Entries
			if names == nil {
				names = []string{}
			}
			reply(names).write(w, hr)
			return
		case "symlink":
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.WriteString(w, info.Target)
		default:
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Disposition", "inline;filename="+url.PathEscape(path.Base(p)))
		}
		if body == nil {
			return
		}
		defer func() { _ = body.Close(); _ = files.Close() }()
		// No Content-Length: the guest may change the file while it is read.
		if _, err := io.Copy(w, body); err != nil {
			// The header is out. Only a broken connection tells the client that the file is not complete.
			panic(http.ErrAbortHandler)
		}
	})
}

func fileHead(r *request) response {
	files, p, err := r.openFiles()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = files.Close() }()
	info, err := files.Stat(r.Context(), p)
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, _ *http.Request) {
		setFileHeaders(w.Header(), info)
		w.WriteHeader(http.StatusOK)
	})
}

// number reads an optional numeric header.
func (r *request) number(name string, base int, max int64) (*int64, error) {
	v := r.header(name)
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(v, base, 64)
	if err != nil || n < 0 || n > max {
		return nil, errs.Invalid("Invalid header X-LXD-%s %q: a number of base %d from 0 to %s", name, v, base, strconv.FormatInt(max, base))
	}
	return &n, nil
}

func filePost(r *request) response {
	put := instance.FilePut{Type: r.header("type"), Content: r.Body}
	var err error
	if put.UID, err = r.number("uid", 10, 1<<32-2); err != nil {
		return fail(err)
	}
	if put.GID, err = r.number("gid", 10, 1<<32-2); err != nil {
		return fail(err)
	}
	mode, err := r.number("mode", 8, 0o7777)
	if err != nil {
		return fail(err)
	}
	if mode != nil {
		m := uint32(*mode)
		put.Mode = &m
	}
	switch put.Type {
	case "":
		put.Type = "file"
	case "file", "directory", "symlink":
	default:
		return fail(errs.Invalid("Bad file type: %q; allowed are file, directory and symlink", put.Type))
	}
	switch w := r.header("write"); w {
	case "", "overwrite":
	case "append":
		put.Append = true
	default:
		return fail(errs.Invalid("Bad file write mode: %q; allowed are overwrite and append", w))
	}
	files, p, err := r.openFiles()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = files.Close() }()
	return done(files.Put(r.Context(), p, put))
}

func fileDelete(r *request) response {
	files, p, err := r.openFiles()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = files.Close() }()
	return done(files.Delete(r.Context(), p))
}
