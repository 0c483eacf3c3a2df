// Package aferofs shows a volume of the shared file system as an [afero.Fs], the interface that many Go programs take for their files.
//
// What afero's own tests ask of a file system holds here too. The handles of one adapter on a file see what the others have
// written at once; everybody else, as package fs says, when one of them is synced or closed.
package aferofs

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"sync"
	"time"

	"github.com/spf13/afero"

	"github.com/shoal-project/shoal/world/fs"
)

// Fs implements afero.Fs and afero.Symlinker. Safe for concurrent use.
type Fs struct {
	ctx context.Context
	f   *fs.FS

	mu      sync.Mutex
	writing map[fs.Ino]*openInode // those with a handle that can write
}

var (
	_ afero.Fs        = (*Fs)(nil)
	_ afero.Symlinker = (*Fs)(nil)
)

// New returns an adapter. ctx bounds all its operations and handles, since afero has no contexts.
func New(ctx context.Context, f *fs.FS) *Fs {
	return &Fs{ctx: ctx, f: f, writing: map[fs.Ino]*openInode{}}
}

// Name implements afero.Fs.
func (a *Fs) Name() string { return "shoalfs" }

// Create implements afero.Fs.
func (a *Fs) Create(name string) (afero.File, error) {
	return a.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// Open implements afero.Fs.
func (a *Fs) Open(name string) (afero.File, error) { return a.open(name, os.O_RDONLY, 0) }

// OpenFile implements afero.Fs.
func (a *Fs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return a.open(name, flag, perm)
}

// Mkdir implements afero.Fs.
func (a *Fs) Mkdir(name string, perm os.FileMode) error { return a.f.Mkdir(a.ctx, name, perm) }

// MkdirAll implements afero.Fs.
func (a *Fs) MkdirAll(name string, perm os.FileMode) error { return a.f.MkdirAll(a.ctx, name, perm) }

// Remove implements afero.Fs.
func (a *Fs) Remove(name string) error { return a.f.Remove(a.ctx, name) }

// RemoveAll implements afero.Fs.
func (a *Fs) RemoveAll(name string) error { return a.f.RemoveAll(a.ctx, name) }

// Rename implements afero.Fs.
func (a *Fs) Rename(from, to string) error { return a.f.Rename(a.ctx, from, to) }

// Stat implements afero.Fs.
func (a *Fs) Stat(name string) (os.FileInfo, error) { return asInfo(a.f.Stat(a.ctx, name)) }

func asInfo(i *fs.Info, err error) (os.FileInfo, error) {
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Chmod implements afero.Fs.
func (a *Fs) Chmod(name string, mode os.FileMode) error { return a.f.Chmod(a.ctx, name, mode) }

// Chown implements afero.Fs.
func (a *Fs) Chown(name string, uid, gid int) error { return a.f.Chown(a.ctx, name, uid, gid, true) }

// Chtimes implements afero.Fs. There is no time of access.
func (a *Fs) Chtimes(name string, _, mtime time.Time) error { return a.f.Chtimes(a.ctx, name, mtime) }

// LstatIfPossible implements afero.Lstater; it is.
func (a *Fs) LstatIfPossible(name string) (os.FileInfo, bool, error) {
	i, err := asInfo(a.f.Lstat(a.ctx, name))
	return i, true, err
}

// SymlinkIfPossible implements afero.Linker. Errors are os.LinkError, as of package os.
func (a *Fs) SymlinkIfPossible(target, name string) error {
	err := a.f.Symlink(a.ctx, target, name)
	var pe *iofs.PathError
	if errors.As(err, &pe) {
		return &os.LinkError{Op: "symlink", Old: target, New: name, Err: pe.Err}
	}
	return err
}

// ReadlinkIfPossible implements afero.LinkReader.
func (a *Fs) ReadlinkIfPossible(name string) (string, error) { return a.f.Readlink(a.ctx, name) }
