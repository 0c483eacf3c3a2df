package fs

import (
	"context"
	iofs "io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// FS is one volume. Safe for concurrent use. Paths begin at the root, with or without a slash.
type FS struct {
	st   *Store
	name string
	vol  volume
}

// Name returns the volume's name.
func (f *FS) Name() string { return f.name }

func (f *FS) view() *view { return &view{st: f.st, vol: f.vol} }

// add plans a new inode at a place that is missing.
func (v *view) add(ctx context.Context, at place, ino Ino, n inode) (kvstore.Txn, error) {
	parent := at.ino()
	if !at.isDir() {
		return kvstore.Txn{}, syscall.ENOTDIR
	}
	if len(at.steps) >= MaxDepth {
		return kvstore.Txn{}, syscall.ENAMETOOLONG
	}
	alive, err := v.alive(ctx, parent)
	if err != nil {
		return kvstore.Txn{}, err
	}
	key, in := v.entryKey(parent, at.missing), v.inodeKey(ino)
	return kvstore.Txn{
		If: []kvstore.Compare{alive, kvstore.Missing(key), kvstore.Missing(in)},
		Then: []kvstore.Op{
			kvstore.Put(in, encode(n)),
			kvstore.Put(key, encode(entry{V: schema, Ino: ino.String(), Type: n.Mode.Type()})),
			v.changed(parent),
		},
	}, nil
}

// alive compares that a directory exists still; others may change what is in it.
func (v *view) alive(ctx context.Context, dir Ino) (kvstore.Compare, error) {
	_, kv, err := v.inode(ctx, dir)
	return kvstore.Compare{Key: v.inodeKey(dir), Target: kvstore.TargetCreate, Equal: kv.CreateRevision}, err
}

// changed notes that a directory's entries have changed.
func (v *view) changed(dir Ino) kvstore.Op {
	return kvstore.Put(v.changedKey(dir), encodeTime(v.st.now().UnixNano()))
}

func (f *FS) newInode(mode iofs.FileMode) inode {
	return inode{V: schema, Mode: mode, Mtime: f.st.now().UnixNano(), Tag: newID()}
}

// make makes something at a path where nothing is, not even a link.
func (f *FS) make(ctx context.Context, op, p string, n inode) error {
	ino := newIno()
	_, err := f.change(ctx, op, p, func(v *view) (kvstore.Txn, error) {
		at, err := v.walk(ctx, p, false)
		switch {
		case err != nil:
			return kvstore.Txn{}, err
		case at.missing == "" && at.ino() == ino:
			return kvstore.Txn{}, nil
		case at.missing == "":
			return kvstore.Txn{}, syscall.EEXIST
		}
		return v.add(ctx, at, ino, n)
	})
	return err
}

// Mkdir makes a directory.
func (f *FS) Mkdir(ctx context.Context, p string, perm iofs.FileMode) error {
	return f.make(ctx, "mkdir", p, f.newInode(iofs.ModeDir|perm&modeBits))
}

// MkdirAll makes a directory and those above it that are missing; one that is there is left as it is.
func (f *FS) MkdirAll(ctx context.Context, p string, perm iofs.FileMode) error {
	i, err := f.Stat(ctx, p)
	switch {
	case err == nil && i.IsDir():
		return nil
	case err == nil:
		return pathError("mkdir", p, syscall.ENOTDIR)
	case !errs.Is(Classify(err), errs.NotFoundClass) && !errs.Is(Classify(err), errs.InvalidInput):
		return err
	}
	if up := path.Dir(path.Clean("/" + p)); up != "/" {
		if err := f.MkdirAll(ctx, up, perm); err != nil {
			return err
		}
	}
	if err := f.Mkdir(ctx, p, perm); err != nil {
		if i, e := f.Lstat(ctx, p); e == nil && i.IsDir() {
			return nil
		}
		return err
	}
	return nil
}

// Symlink makes a symbolic link to target, which need not exist.
func (f *FS) Symlink(ctx context.Context, target, p string) error {
	if target == "" {
		return pathError("symlink", p, syscall.ENOENT)
	}
	if len(target) >= MaxPath {
		return pathError("symlink", p, syscall.ENAMETOOLONG)
	}
	n := f.newInode(iofs.ModeSymlink | 0o777)
	n.Target = target
	return f.make(ctx, "symlink", p, n)
}

// Create is OpenFile as os.Create does it.
func (f *FS) Create(ctx context.Context, p string) (*File, error) {
	return f.OpenFile(ctx, p, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// Open opens for reading.
func (f *FS) Open(ctx context.Context, p string) (*File, error) {
	return f.OpenFile(ctx, p, os.O_RDONLY, 0)
}

// OpenFile opens as os.OpenFile does, with flags of package os. A file that O_CREATE makes is there, empty, at once.
func (f *FS) OpenFile(ctx context.Context, p string, flag int, perm iofs.FileMode) (*File, error) {
	var h *File
	ino := newIno()
	rev, err := f.change(ctx, "open", p, func(v *view) (kvstore.Txn, error) {
		at, err := v.walk(ctx, p, flag&(os.O_CREATE|os.O_EXCL) != os.O_CREATE|os.O_EXCL)
		if err != nil {
			return kvstore.Txn{}, err
		}
		h = &File{f: f, ctx: ctx, name: p, flag: flag, v: v, ino: at.ino()}
		if at.missing == "" {
			if flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL && at.ino() != ino {
				return kvstore.Txn{}, syscall.EEXIST
			}
			return kvstore.Txn{}, h.load(at)
		}
		if flag&os.O_CREATE == 0 {
			return kvstore.Txn{}, syscall.ENOENT
		}
		h.n, h.ino = f.newInode(perm&modeBits), ino
		h.up = f.st.newUpload()
		if h.c, err = newContent(ctx, v, h.n, h.up); err != nil {
			return kvstore.Txn{}, err
		}
		return v.add(ctx, at, ino, h.n)
	})
	if err != nil {
		return nil, err
	}
	if rev != 0 {
		h.rev, h.v.rev = rev, rev
	}
	return h, nil
}

// load fills a handle of what exists.
func (h *File) load(at place) error {
	writes := h.flag&(os.O_WRONLY|os.O_RDWR|os.O_TRUNC) != 0
	n, kv, err := h.v.inode(h.ctx, at.ino())
	if err != nil {
		return err
	}
	h.n, h.rev = n, kv.ModRevision
	switch n.Mode.Type() {
	case iofs.ModeDir:
		if writes || h.flag&os.O_CREATE != 0 {
			return syscall.EISDIR
		}
		return nil
	case iofs.ModeSymlink:
		return syscall.ELOOP
	}
	if h.up = h.f.st.newUpload(); h.flag&os.O_TRUNC != 0 {
		n = inode{V: schema, Mode: n.Mode}
		h.touch(true)
	}
	h.c, err = newContent(h.ctx, h.v, n, h.up)
	return err
}

// Stat describes what a path leads to.
func (f *FS) Stat(ctx context.Context, p string) (*Info, error) {
	i, err := f.view().stat(ctx, p, true)
	return i, pathError("stat", p, err)
}

// Lstat is Stat without following a link at the end.
func (f *FS) Lstat(ctx context.Context, p string) (*Info, error) {
	i, err := f.view().stat(ctx, p, false)
	return i, pathError("lstat", p, err)
}

// Readlink returns where a symbolic link leads.
func (f *FS) Readlink(ctx context.Context, p string) (string, error) {
	i, err := f.view().stat(ctx, p, false)
	if err == nil && i.Mode().Type() != iofs.ModeSymlink {
		err = syscall.EINVAL
	}
	if err != nil {
		return "", pathError("readlink", p, err)
	}
	return i.Target(), nil
}

// ReadDir returns a directory's entries in the order of their names, all of one revision.
func (f *FS) ReadDir(ctx context.Context, p string) ([]*DirEntry, error) {
	es, err := f.view().readDir(ctx, p)
	return es, pathError("readdir", p, err)
}

// set changes an inode with how.
func (f *FS) set(ctx context.Context, op, p string, follow bool, how func(n *inode)) error {
	_, err := f.change(ctx, op, p, func(v *view) (kvstore.Txn, error) {
		at, err := v.find(ctx, p, follow)
		if err != nil {
			return kvstore.Txn{}, err
		}
		n, kv, err := v.inode(ctx, at.ino())
		if err != nil {
			return kvstore.Txn{}, err
		}
		was := n.Mtime
		how(&n)
		t := kvstore.Txn{If: []kvstore.Compare{kvstore.Unchanged(kv.Key, kv.ModRevision)}, Then: []kvstore.Op{kvstore.Put(kv.Key, encode(n))}}
		if n.Mode.IsDir() && n.Mtime != was {
			t.Then = append(t.Then, kvstore.Put(v.changedKey(at.ino()), encodeTime(n.Mtime)))
		}
		return t, nil
	})
	return err
}

// Chmod sets the permission bits.
func (f *FS) Chmod(ctx context.Context, p string, mode iofs.FileMode) error {
	return f.set(ctx, "chmod", p, true, func(n *inode) { n.Mode = n.Mode.Type() | mode&modeBits })
}

// Chown sets the owner; -1 leaves a number as it is. With follow a link at the end is followed.
func (f *FS) Chown(ctx context.Context, p string, uid, gid int, follow bool) error {
	if uid < -1 || gid < -1 || int64(uid) > 1<<32-2 || int64(gid) > 1<<32-2 {
		return pathError("chown", p, syscall.EINVAL)
	}
	return f.set(ctx, "chown", p, follow, func(n *inode) {
		if uid >= 0 {
			n.UID = uint32(uid)
		}
		if gid >= 0 {
			n.GID = uint32(gid)
		}
	})
}

// Chtimes sets the time of the last change. There is no time of the last access.
func (f *FS) Chtimes(ctx context.Context, p string, mtime time.Time) error {
	return f.set(ctx, "chtimes", p, true, func(n *inode) { n.Mtime = mtime.UnixNano() })
}

// Truncate sets a file's size.
func (f *FS) Truncate(ctx context.Context, p string, size int64) error {
	h, err := f.OpenFile(ctx, p, os.O_WRONLY, 0)
	if err != nil {
		return pathError("truncate", p, err)
	}
	if err := h.Truncate(size); err != nil {
		h.Abandon()
		return err
	}
	return h.Close()
}
