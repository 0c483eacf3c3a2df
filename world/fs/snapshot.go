package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Snapshot is a volume as it was at one revision. It implements the interfaces of io/fs, whose paths have no slash in front. Safe for
// concurrent use.
type Snapshot struct {
	f   *FS
	ctx context.Context
	rev int64
}

var (
	_ iofs.ReadDirFS  = (*Snapshot)(nil)
	_ iofs.ReadFileFS = (*Snapshot)(nil)
	_ iofs.StatFS     = (*Snapshot)(nil)
	_ iofs.ReadLinkFS = (*Snapshot)(nil)
)

// Snapshot returns the volume as it is now. ctx bounds everything that is read from it, since io/fs has no contexts.
func (f *FS) Snapshot(ctx context.Context) (*Snapshot, error) {
	v := f.view()
	if _, _, err := v.inode(ctx, rootIno); err != nil {
		return nil, pathError("snapshot", f.name, err)
	}
	return &Snapshot{f, ctx, v.rev}, nil
}

// Revision is the one that is read.
func (s *Snapshot) Revision() int64 { return s.rev }

func (s *Snapshot) view() *view { return &view{st: s.f.st, vol: s.f.vol, rev: s.rev} }

// path checks a path of io/fs.
func (s *Snapshot) path(op, name string) error {
	if !iofs.ValidPath(name) {
		return pathError(op, name, iofs.ErrInvalid)
	}
	return nil
}

// Open implements io/fs.FS; files are *File.
func (s *Snapshot) Open(name string) (iofs.File, error) {
	h, err := s.open(name)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (s *Snapshot) open(name string) (*File, error) {
	if err := s.path("open", name); err != nil {
		return nil, err
	}
	h := &File{f: s.f, ctx: s.ctx, name: name, flag: os.O_RDONLY, v: s.view()}
	at, err := h.v.find(s.ctx, name, true)
	if err == nil {
		h.ino = at.ino()
		err = h.load(at)
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return h, nil
}

// ReadFile implements io/fs.ReadFileFS.
func (s *Snapshot) ReadFile(name string) ([]byte, error) {
	h, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer h.Abandon()
	return readAll(h)
}

func readAll(h *File) ([]byte, error) {
	if h.n.Mode.IsDir() {
		return nil, h.fail("read", syscall.EISDIR)
	}
	b := make([]byte, h.n.Size)
	_, err := io.ReadFull(h, b)
	return b, err
}

// ReadFile reads a whole file, of one revision, into memory.
func (f *FS) ReadFile(ctx context.Context, p string) ([]byte, error) {
	h, err := f.Open(ctx, p)
	if err != nil {
		return nil, err
	}
	defer h.Abandon()
	return readAll(h)
}

// ReadDir implements io/fs.ReadDirFS.
func (s *Snapshot) ReadDir(name string) ([]iofs.DirEntry, error) {
	if err := s.path("readdir", name); err != nil {
		return nil, err
	}
	es, err := s.view().readDir(s.ctx, name)
	return dirEntries(es), pathError("readdir", name, err)
}

// Stat implements io/fs.StatFS.
func (s *Snapshot) Stat(name string) (iofs.FileInfo, error) { return s.stat("stat", name, true) }

// Lstat implements io/fs.ReadLinkFS.
func (s *Snapshot) Lstat(name string) (iofs.FileInfo, error) { return s.stat("lstat", name, false) }

func (s *Snapshot) stat(op, name string, follow bool) (iofs.FileInfo, error) {
	if err := s.path(op, name); err != nil {
		return nil, err
	}
	i, err := s.view().stat(s.ctx, name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	if name == "." {
		i.name = "."
	}
	return i, nil
}

// ReadLink implements io/fs.ReadLinkFS.
func (s *Snapshot) ReadLink(name string) (string, error) {
	if err := s.path("readlink", name); err != nil {
		return "", err
	}
	i, err := s.view().stat(s.ctx, name, false)
	if err == nil && i.Mode().Type() != iofs.ModeSymlink {
		err = syscall.EINVAL
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return i.Target(), nil
}

// Walk calls fn for a path and all below it, at one revision, in the order of names, as [io/fs.WalkDir] does; paths have no slash
// in front, the root is ".". No link is followed.
func (f *FS) Walk(ctx context.Context, root string, fn iofs.WalkDirFunc) error {
	s, err := f.Snapshot(ctx)
	if err != nil {
		return err
	}
	if root = strings.TrimPrefix(path.Clean("/"+root), "/"); root == "" {
		root = "."
	}
	if i, err := s.Lstat(root); err == nil && i.Mode().Type() == iofs.ModeSymlink {
		if err = fn(root, iofs.FileInfoToDirEntry(i), nil); errors.Is(err, iofs.SkipAll) || errors.Is(err, iofs.SkipDir) {
			err = nil
		}
		return err
	}
	return iofs.WalkDir(s, root, fn)
}
