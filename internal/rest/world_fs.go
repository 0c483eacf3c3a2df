package rest

import (
	"context"
	"fmt"
	iofs "io/fs"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/fs"
)

// WorldMounts mounts volumes of the shared file system on this machine.
type WorldMounts interface {
	Mount(ctx context.Context, volume, path string) error
	Unmount(path string) error
	Mounted() []api.WorldMount
}

// defaultWorldVolume is made by the first write to it.
const defaultWorldVolume = "default"

// worldFSEndpoints serve the shared file system.
func worldFSEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/world/fs", methods: methods{"GET": worldFSGet}},
		{path: "/1.0/world/fs/gc", methods: methods{"POST": worldFSCollect}},
		{path: "/1.0/world/fs/mounts", methods: methods{"GET": worldMountsGet, "POST": worldMountsPost, "DELETE": worldMountsDelete}},
		{path: "/1.0/world/fs/volumes", methods: methods{"GET": worldVolumesGet, "POST": worldVolumesPost}},
		{path: "/1.0/world/fs/volumes/{name}", methods: methods{"DELETE": worldVolumeDelete}},
		{path: "/1.0/world/fs/volumes/{name}/files", methods: methods{
			"GET": worldFileGet, "PUT": worldFilePut, "POST": worldFilePost, "PATCH": worldFilePatch, "DELETE": worldFileDelete}},
	}
}

func worldFSGet(r *request) response {
	u, err := r.svc.WorldFS.Usage(r.Context())
	if err != nil {
		return fail(err)
	}
	out := api.WorldFS{Volumes: []api.WorldVolume{}, Blobs: u.Blobs, Bytes: u.Bytes}
	for _, name := range slices.Sorted(maps.Keys(u.Volumes)) {
		v := u.Volumes[name]
		out.Volumes = append(out.Volumes, api.WorldVolume{Name: name, Files: v.Files, Dirs: v.Dirs, Links: v.Links, Bytes: v.Bytes, Inline: v.Inline})
	}
	return reply(out)
}

func worldFSCollect(r *request) response {
	c, err := r.svc.WorldFS.GC(r.Context())
	if err != nil {
		return fail(err)
	}
	return reply(api.WorldCollected(c))
}

func (r *request) worldMounts() (WorldMounts, error) {
	if r.svc.WorldMounts == nil {
		return nil, errs.Unsupported("this daemon cannot mount the shared file system")
	}
	return r.svc.WorldMounts, nil
}

func worldMountsGet(r *request) response {
	if r.svc.WorldMounts == nil {
		return reply([]api.WorldMount{})
	}
	return reply(r.svc.WorldMounts.Mounted())
}

func worldMountsPost(r *request) response {
	var post api.WorldMount
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	m, err := r.worldMounts()
	if err == nil {
		err = m.Mount(r.Context(), post.Volume, post.Path)
	}
	return done(err)
}

func worldMountsDelete(r *request) response {
	m, err := r.worldMounts()
	if err == nil {
		err = m.Unmount(r.query.Get("path"))
	}
	return done(err)
}

func worldVolumesGet(r *request) response {
	names, err := r.svc.WorldFS.Volumes(r.Context())
	if err != nil {
		return fail(err)
	}
	return reply(some(names))
}

func worldVolumesPost(r *request) response {
	var post api.WorldVolumesPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if _, err := r.svc.WorldFS.Create(r.Context(), post.Name, fs.VolumeOptions{Chunk: post.Chunk}); err != nil {
		return fail(err)
	}
	return created("/1.0/world/fs/volumes/" + post.Name)
}

func worldVolumeDelete(r *request) response {
	return done(r.svc.WorldFS.Delete(r.Context(), r.PathValue("name")))
}

// worldFile opens the volume of a request and reads its path.
func (r *request) worldFile(write bool) (*fs.FS, string, error) {
	p := r.query.Get("path")
	if p == "" {
		return nil, "", errs.Invalid("missing path argument")
	}
	var f *fs.FS
	var err error
	if name := r.PathValue("name"); write && name == defaultWorldVolume {
		f, err = r.svc.WorldFS.OpenOrCreate(r.Context(), name, fs.VolumeOptions{})
	} else {
		f, err = r.svc.WorldFS.Open(r.Context(), name)
	}
	return f, p, err
}

// worldFileType is the word for a type.
func worldFileType(m iofs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.Type() == iofs.ModeSymlink:
		return "symlink"
	}
	return "file"
}

// octal writes permission bits as chmod(1) has them.
func octal(m iofs.FileMode) string {
	n := uint32(m.Perm())
	for i, b := range []iofs.FileMode{iofs.ModeSticky, iofs.ModeSetgid, iofs.ModeSetuid} {
		if m&b != 0 {
			n |= 0o1000 << i
		}
	}
	return fmt.Sprintf("%04o", n)
}

// parseOctal is the inverse of octal.
func parseOctal(s string, otherwise iofs.FileMode) (iofs.FileMode, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, errs.Invalid("Invalid mode %q: an octal number from 0 to 7777", s)
	}
	m := iofs.FileMode(n & 0o777)
	for i, b := range []iofs.FileMode{iofs.ModeSticky, iofs.ModeSetgid, iofs.ModeSetuid} {
		if n&(0o1000<<i) != 0 {
			m |= b
		}
	}
	return m, nil
}

func worldFileOf(p string, i *fs.Info) api.WorldFile {
	uid, gid := i.Owner()
	return api.WorldFile{Path: path.Clean("/" + p), Type: worldFileType(i.Mode()), Mode: octal(i.Mode()), UID: uid, GID: gid, Size: i.Size(),
		Modified: i.ModTime().UTC(), Target: i.Target(), ETag: i.ETag()}
}

// worldFileGet sends a file's bytes, with ranges, or a directory's entries. With ?stat=true it describes instead, links themselves, and with ?tree=true it
// describes all that is below.
func worldFileGet(r *request) response {
	f, p, err := r.worldFile(false)
	if err != nil {
		return fail(err)
	}
	if r.query.Get("stat") == "true" {
		i, err := f.Lstat(r.Context(), p)
		if err != nil {
			return fail(fs.Classify(err))
		}
		return reply(worldFileOf(p, i))
	}
	if r.query.Get("tree") == "true" {
		return worldTree(r, f, p)
	}
	h, err := f.Open(r.Context(), p)
	if err != nil {
		return fail(fs.Classify(err))
	}
	s, err := h.Stat()
	if err != nil {
		h.Abandon()
		return fail(fs.Classify(err))
	}
	info := s.Sys().(*fs.Info)
	if s.IsDir() {
		defer h.Abandon()
		return worldDir(h, p)
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		defer h.Abandon()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+info.ETag()+`"`)
		w.Header().Set("X-Shoal-type", "file")
		w.Header().Set("X-Shoal-mode", octal(info.Mode()))
		http.ServeContent(w, hr, "", info.ModTime(), h)
	})
}

func worldDir(h *fs.File, p string) response {
	es, err := h.Readdir(-1)
	if err != nil {
		return fail(fs.Classify(err))
	}
	out := make([]api.WorldFile, 0, len(es))
	for _, e := range es {
		out = append(out, worldFileOf(path.Join("/", p, e.Name()), e.Sys().(*fs.Info)))
	}
	return reply(out)
}

func worldTree(r *request, f *fs.FS, p string) response {
	out := []api.WorldFile{}
	err := f.Walk(r.Context(), p, func(p string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, worldFileOf(p, i.Sys().(*fs.Info)))
		return nil
	})
	if err != nil {
		return fail(fs.Classify(err))
	}
	return reply(out)
}

// worldFilePut replaces a file with the body, all of it or nothing. If-Match and If-None-Match: * say what may be replaced; ?mode= is of a new file.
func worldFilePut(r *request) response {
	mode, err := parseOctal(r.query.Get("mode"), 0o644)
	if err != nil {
		return fail(err)
	}
	o := fs.ReplaceOptions{Perm: mode, Match: strings.Trim(r.Header.Get("If-Match"), `"`), New: r.Header.Get("If-None-Match") == "*"}
	f, p, err := r.worldFile(true)
	if err != nil {
		return fail(err)
	}
	i, err := f.Replace(r.Context(), p, r.Body, o)
	if err != nil {
		return fail(fs.Classify(err))
	}
	return reply(worldFileOf(p, i))
}

func worldFilePost(r *request) response {
	var post api.WorldFilePost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	mode, err := parseOctal(post.Mode, 0o755)
	if err != nil {
		return fail(err)
	}
	f, p, err := r.worldFile(post.Action != "rename")
	if err != nil {
		return fail(err)
	}
	switch {
	case post.Action == "mkdir" && post.Parents:
		err = f.MkdirAll(r.Context(), p, mode)
	case post.Action == "mkdir":
		err = f.Mkdir(r.Context(), p, mode)
	case post.Action == "symlink":
		err = f.Symlink(r.Context(), post.Target, p)
	case post.Action == "rename":
		err = f.Rename(r.Context(), p, post.Target)
	default:
		err = errs.Invalid("Invalid action %q: allowed are mkdir, symlink and rename", post.Action)
	}
	return done(fs.Classify(err))
}

func worldFilePatch(r *request) response {
	var patch api.WorldFilePatch
	if err := r.decode(&patch); err != nil {
		return fail(err)
	}
	f, p, err := r.worldFile(false)
	if err != nil {
		return fail(err)
	}
	id := func(n *int64) int {
		if n == nil {
			return -1
		}
		if *n < 0 {
			return -2 // refused
		}
		return int(*n)
	}
	if patch.Size != nil {
		err = f.Truncate(r.Context(), p, *patch.Size)
	}
	if err == nil && (patch.UID != nil || patch.GID != nil) {
		err = f.Chown(r.Context(), p, id(patch.UID), id(patch.GID), true)
	}
	if err == nil && patch.Mode != nil {
		var m iofs.FileMode
		if m, err = parseOctal(*patch.Mode, 0); err == nil {
			err = f.Chmod(r.Context(), p, m)
		}
	}
	if err == nil && patch.Modified != nil {
		err = f.Chtimes(r.Context(), p, *patch.Modified)
	}
	return done(fs.Classify(err))
}

// worldFileDelete removes a file, link or empty directory, with ?recursive=true whatever is there.
func worldFileDelete(r *request) response {
	f, p, err := r.worldFile(false)
	if err != nil {
		return fail(err)
	}
	if r.query.Get("recursive") == "true" {
		return done(fs.Classify(f.RemoveAll(r.Context(), p)))
	}
	return done(fs.Classify(f.Remove(r.Context(), p)))
}
