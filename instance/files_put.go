package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/internal/errs"
)

// Put writes a file, makes a directory (nil when it exists) or a symlink.
func (f *Files) Put(ctx context.Context, p string, put FilePut) error {
	p, err := clean(p)
	if err != nil {
		return err
	}
	if put.Mode != nil && *put.Mode > 0o7777 || outOfRange(put.UID) || outOfRange(put.GID) {
		return errs.Invalid("mode must be 0–07777, uid and gid 0–4294967294")
	}
	f.allowed.Store(maxListing)
	switch put.Type {
	case "", "file":
		err = f.putFile(ctx, p, put)
	case "directory":
		err = f.putDir(ctx, p, put)
	case "symlink":
		err = f.putLink(ctx, p, put)
	default:
		return errs.Invalid("Bad file type: %.20q; file, directory and symlink are known", put.Type)
	}
	if err == nil {
		f.s.event(ctx, f.ref, "instance-file-pushed", map[string]any{"path": p})
	}
	return err
}

func outOfRange(id *int64) bool { return id != nil && (*id < 0 || *id >= 1<<32-1) }

func (f *Files) putFile(ctx context.Context, p string, put FilePut) error {
	var st os.FileInfo
	err := f.guard(ctx, func() (err error) { st, err = f.client.Stat(p); return err })
	if err != nil && !errs.IsNotFound(err) {
		return err
	}
	isNew := err != nil
	if !isNew && st.IsDir() {
		return errs.Invalid("%q is a directory", p)
	}
	if !isNew && !st.Mode().IsRegular() {
		return errs.Invalid("%q is not a regular file", p)
	}
	flags := os.O_WRONLY | os.O_CREATE
	if put.Append {
		flags |= os.O_APPEND
	} else {
		flags |= os.O_TRUNC
	}
	var file *sftp.File
	if err := f.guard(ctx, func() (err error) { file, err = f.client.OpenFile(p, flags); return err }); err != nil {
		return err
	}
	if put.Append && !isNew {
		// The server may ignore O_APPEND; writes say where they go.
		if _, err := file.Seek(st.Size(), io.SeekStart); err != nil {
			file.Close()
			return err
		}
	}
	unhook := context.AfterFunc(ctx, func() { f.conn.Close() })
	f.allowed.Store(1 << 50) // only acknowledgements come back
	if put.Content != nil {
		_, err = io.Copy(file, put.Content)
	} else {
		err = nil
	}
	err = errors.Join(err, file.Close())
	unhook()
	f.allowed.Store(maxListing)
	if err != nil {
		return fmt.Errorf("write %q: %w", p, classify(err))
	}
	return f.owner(ctx, p, put, isNew, 0o644)
}

// owner sets mode and owner: what was asked for, and the defaults of something new.
func (f *Files) owner(ctx context.Context, p string, put FilePut, isNew bool, mode uint32) error {
	return f.guard(ctx, func() error {
		if isNew || put.UID != nil || put.GID != nil {
			st, err := f.client.Stat(p)
			if err != nil {
				return err
			}
			cur, _ := infoOf(st)
			uid, gid := cur.UID, cur.GID
			if isNew {
				uid, gid = 0, 0
			}
			if put.UID != nil {
				uid = *put.UID
			}
			if put.GID != nil {
				gid = *put.GID
			}
			if uid != cur.UID || gid != cur.GID {
				if err := f.client.Chown(p, int(uid), int(gid)); err != nil {
					return err
				}
			}
		}
		if put.Mode != nil {
			mode = *put.Mode
		}
		if isNew || put.Mode != nil {
			return f.client.Chmod(p, goMode(mode)) // last: chown clears setuid
		}
		return nil
	})
}

func (f *Files) putDir(ctx context.Context, p string, put FilePut) error {
	var st os.FileInfo
	err := f.guard(ctx, func() (err error) { st, err = f.client.Stat(p); return err })
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return errs.Exists("%q exists and is not a directory", p)
	case !errs.IsNotFound(err):
		return err
	}
	if err := f.guard(ctx, func() error { return f.client.Mkdir(p) }); err != nil {
		return err
	}
	return f.owner(ctx, p, put, true, 0o755)
}

func (f *Files) putLink(ctx context.Context, p string, put FilePut) error {
	var target []byte
	var err error
	if put.Content != nil {
		target, err = io.ReadAll(io.LimitReader(put.Content, maxTarget+1))
	}
	if err != nil {
		return err
	}
	if len(target) == 0 || len(target) > maxTarget || strings.ContainsRune(string(target), 0) {
		return errs.Invalid("the target of a link must have 1–%d bytes without NUL", maxTarget)
	}
	return f.guard(ctx, func() error { return f.client.Symlink(string(target), p) })
}

// Delete removes a file, a link or an empty directory.
func (f *Files) Delete(ctx context.Context, p string) error {
	info, err := f.Stat(ctx, p)
	if err != nil && !errs.Is(err, errs.InvalidInput) {
		return err
	}
	p, err = clean(p)
	if err != nil {
		return err
	}
	err = f.guard(ctx, func() error {
		if info.Type != "directory" {
			return f.client.Remove(p)
		}
		list, err := f.client.ReadDirContext(ctx, p)
		if err == nil && len(list) > 0 {
			return errs.Invalid("directory not empty")
		}
		return f.client.RemoveDirectory(p)
	})
	if err == nil {
		f.s.event(ctx, f.ref, "instance-file-deleted", map[string]any{"path": p})
	}
	return err
}
