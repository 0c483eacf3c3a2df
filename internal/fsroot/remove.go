package fsroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/internal/errs"
	"golang.org/x/sys/unix"
)

// removeDepth is how many descriptors a removal holds at most; what lies deeper is moved up first, because a guest may
// build trees of any depth.
const removeDepth = 64

// RemoveTree deletes name and everything below it; nil when there is nothing. It follows no links and crosses no
// mount: where something is mounted in the tree it stops with errs.Busy, so that a bind mount that was left behind never
// costs what is on its other side. Called again after a crash it goes on.
func (r *Root) RemoveTree(name string) error {
	if name == "." || name == "" {
		return errs.Invalid("refuse to remove the whole of %s", r.Name())
	}
	parent, err := r.Open(filepath.Dir(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, Classify(err))
	}
	defer parent.Close()
	rm := remover{}
	if err := rm.entry(int(parent.Fd()), filepath.Base(name), 0); err != nil {
		return fmt.Errorf("remove %s: %w", name, Classify(err))
	}
	return nil
}

type remover struct {
	top   int // the tree's own directory, once it is open
	moved int // how many deep directories were moved up so far
}

// entry deletes name in the directory dir. depth counts the directories between the tree's top and this.
func (rm *remover) entry(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case err == nil, err == unix.ENOENT:
		return nil
	case err != unix.EISDIR && err != unix.EPERM:
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	if depth > removeDepth {
		return rm.moveUp(dir, name)
	}
	return rm.directory(dir, name, depth)
}

func (rm *remover) directory(dir int, name string, depth int) error {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := openat2(dir, name, how)
	if err == unix.EXDEV {
		return errs.Busy("%s is a mount point", name)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if depth == 0 {
		rm.top = fd
	}
	// Entries that are removed while a directory is read may hide others: read again until it is empty.
	for {
		names, err := f.Readdirnames(1024)
		if len(names) == 0 {
			if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != unix.ENOTEMPTY {
				return pathError("rmdir", name, err)
			}
			if names, err = rereadNames(f); len(names) == 0 {
				return pathError("rmdir", name, errors.Join(unix.ENOTEMPTY, err))
			}
		}
		for _, n := range names {
			if err := rm.entry(fd, n, depth+1); err != nil {
				return err
			}
		}
	}
}

func rereadNames(f *os.File) ([]string, error) {
	if _, err := f.Seek(0, 0); err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(1024)
	return names, err
}

// moveUp puts a directory that lies too deep directly into the tree's top, where a later round finds it.
func (rm *remover) moveUp(dir int, name string) error {
	for ; ; rm.moved++ {
		to := fmt.Sprintf("%sdeep-%d", TempPrefix, rm.moved)
		err := unix.Renameat2(dir, name, rm.top, to, unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return pathError("move up", name, err)
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
