// Package fusefs mounts volumes of the shared file system on this machine, read-only, through FUSE.
//
// A mount shows the volume as it is: what others change is seen within [attrTTL], and a file that is opened is read as it was then. The kernel checks
// permissions by the modes and owners that are stored. A mount lives as long as the process: after a crash of it every access fails with
// "transport endpoint is not connected" until [Mounts] of the next process clears it away.
package fusefs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/shoal-project/shoal/world/fs"
)

// attrTTL is how long the kernel relies on what it was told.
const attrTTL = time.Second

// node is an inode that the kernel knows.
type node struct {
	gofs.Inode
	ctx context.Context // of the mount: handles outlive the request that opens them
	f   *fs.FS
	ino fs.Ino
}

var (
	_ gofs.NodeLookuper   = (*node)(nil)
	_ gofs.NodeGetattrer  = (*node)(nil)
	_ gofs.NodeReaddirer  = (*node)(nil)
	_ gofs.NodeOpener     = (*node)(nil)
	_ gofs.NodeReader     = (*node)(nil)
	_ gofs.NodeReleaser   = (*node)(nil)
	_ gofs.NodeReadlinker = (*node)(nil)
)

// unixMode is a mode as the kernel has it.
func unixMode(m iofs.FileMode) uint32 {
	u := uint32(m.Perm())
	for _, b := range []struct {
		go_  iofs.FileMode
		unix uint32
	}{
		{iofs.ModeSetuid, syscall.S_ISUID}, {iofs.ModeSetgid, syscall.S_ISGID}, {iofs.ModeSticky, syscall.S_ISVTX},
		{iofs.ModeDir, syscall.S_IFDIR}, {iofs.ModeSymlink, syscall.S_IFLNK},
	} {
		if m&b.go_ != 0 {
			u |= b.unix
		}
	}
	if m.IsRegular() {
		u |= syscall.S_IFREG
	}
	return u
}

func attr(i *fs.Info, a *fuse.Attr) {
	a.Ino, a.Size, a.Mode, a.Nlink = uint64(i.Ino), uint64(max(i.Size(), 0)), unixMode(i.Mode()), 1
	a.Blocks, a.Blksize = (a.Size+511)/512, 128<<10
	t := i.ModTime()
	a.SetTimes(&t, &t, &t)
	a.Uid, a.Gid = i.Owner()
}

// Lookup implements NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	i, err := n.f.Lookup(ctx, n.ino, name)
	if err != nil {
		return nil, fs.Errno(err)
	}
	attr(i, &out.Attr)
	out.SetAttrTimeout(attrTTL)
	out.SetEntryTimeout(attrTTL)
	child := &node{ctx: n.ctx, f: n.f, ino: i.Ino}
	return n.NewInode(ctx, child, gofs.StableAttr{Mode: out.Attr.Mode & syscall.S_IFMT, Ino: uint64(i.Ino)}), 0
}

// Getattr implements NodeGetattrer.
func (n *node) Getattr(ctx context.Context, h gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if f, ok := h.(*fs.File); ok { // what is open is what it was
		if s, err := f.Stat(); err == nil {
			attr(s.Sys().(*fs.Info), &out.Attr)
			return 0
		}
	}
	i, err := n.f.StatInode(ctx, n.ino)
	if err != nil {
		return fs.Errno(err)
	}
	attr(i, &out.Attr)
	out.SetTimeout(attrTTL)
	return 0
}

// Readdir implements NodeReaddirer.
func (n *node) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	es, err := n.f.ReadDirInode(ctx, n.ino)
	if err != nil {
		return nil, fs.Errno(err)
	}
	list := make([]fuse.DirEntry, len(es))
	for i, e := range es {
		list[i] = fuse.DirEntry{Name: e.Name(), Ino: uint64(e.Ino()), Mode: unixMode(e.Type()) & syscall.S_IFMT}
	}
	return gofs.NewListDirStream(list), 0
}

// Readlink implements NodeReadlinker.
func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	i, err := n.f.StatInode(ctx, n.ino)
	if err != nil {
		return nil, fs.Errno(err)
	}
	return []byte(i.Target()), 0
}

// Open implements NodeOpener.
func (n *node) Open(_ context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&(syscall.O_WRONLY|syscall.O_RDWR|syscall.O_TRUNC) != 0 {
		return nil, 0, syscall.EROFS
	}
	h, err := n.f.OpenInode(n.ctx, n.ino)
	if err != nil {
		return nil, 0, fs.Errno(err)
	}
	// Past the page cache, which all handles on an inode would share: each reads what it opened.
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// Read implements NodeReader.
func (n *node) Read(_ context.Context, h gofs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f, ok := h.(*fs.File)
	if !ok {
		return nil, syscall.EBADF
	}
	k, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.Errno(err)
	}
	return fuse.ReadResultData(p[:k]), 0
}

// Release implements NodeReleaser.
func (n *node) Release(_ context.Context, h gofs.FileHandle) syscall.Errno {
	if f, ok := h.(*fs.File); ok {
		f.Abandon()
	}
	return 0
}
