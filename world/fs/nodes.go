package fs

import (
	"context"
	"os"
	"syscall"
)

// Root is the inode of a volume's root directory.
const Root = rootIno

// Lookup describes what has a name in a directory, for those who find their way by inodes, as kernels do. Links are not followed.
func (f *FS) Lookup(ctx context.Context, dir Ino, name string) (*Info, error) {
	v := f.view()
	if len(name) > MaxName {
		return nil, pathError("lookup", name, syscall.ENAMETOOLONG)
	}
	if !nameOK(name) {
		return nil, pathError("lookup", name, syscall.ENOENT)
	}
	s, ok, err := v.entry(ctx, dir, name)
	if err == nil && !ok {
		err = syscall.ENOENT
	}
	if err != nil {
		return nil, pathError("lookup", name, err)
	}
	i, err := v.info(ctx, s.ino, name)
	return i, pathError("lookup", name, err)
}

// StatInode describes an inode.
func (f *FS) StatInode(ctx context.Context, ino Ino) (*Info, error) {
	i, err := f.view().info(ctx, ino, "")
	return i, pathError("stat", ino.String(), err)
}

// ReadDirInode returns a directory's entries, all of one revision.
func (f *FS) ReadDirInode(ctx context.Context, ino Ino) ([]*DirEntry, error) {
	es, err := f.view().entries(ctx, ino, "", 0)
	return es, pathError("readdir", ino.String(), err)
}

// OpenInode opens a file for reading; ctx bounds the handle.
func (f *FS) OpenInode(ctx context.Context, ino Ino) (*File, error) {
	h := &File{f: f, ctx: ctx, name: ino.String(), flag: os.O_RDONLY, v: f.view()}
	h.ino = ino
	if err := h.load(place{steps: []step{{entry: entry{ino: ino}}}}); err != nil {
		return nil, pathError("open", h.name, err)
	}
	return h, nil
}
