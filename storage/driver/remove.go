package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep RemoveTree descends with one open directory per level. A guest can nest directories
// deeper than a process may have files open, so what is deeper is moved up first.
const maxDepth = 64

// RemoveTree removes name in dir with everything below it. It opens nothing but directories, follows no link, crosses
// no mount point (their directory is busy), needs constant memory and stops when ctx ends. dir must be a
// directory that only this process uses: subtrees that are too deep pass through it under random names.
func RemoveTree(ctx context.Context, dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	todo := []string{name}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		deep, err := removeDir(ctx, dir, dir, next, maxDepth)
		if err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		todo = append(todo[:len(todo)-1], deep...)
	}
	return nil
}

// removeDir removes a directory and returns the names under which what was too deep now lies in top.
func removeDir(ctx context.Context, top, parent *os.File, name string, depth int) ([]string, error) {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	var moved []string
	for {
		n, deep, err := removeBatch(ctx, top, d, depth)
		moved = append(moved, deep...)
		if err != nil {
			return moved, err
		}
		if n == 0 {
			break
		}
		// A directory that changes while it is read may skip entries: from the start until nothing is found.
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return moved, err
		}
	}
	err = unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return moved, err
}

// removeBatch removes some entries of d and says how many there were.
func removeBatch(ctx context.Context, top, d *os.File, depth int) (int, []string, error) {
	names, err := d.Readdirnames(512)
	if err != nil && err != io.EOF {
		return 0, nil, err
	}
	var moved []string
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return 0, moved, err
		}
		err := unix.Unlinkat(int(d.Fd()), n, 0)
		if errors.Is(err, unix.EISDIR) {
			if depth > 0 {
				var deep []string
				deep, err = removeDir(ctx, top, d, n, depth-1)
				moved = append(moved, deep...)
			} else {
				to := rand.Text()
				if err = unix.Renameat(int(d.Fd()), n, int(top.Fd()), to); err == nil {
					moved = append(moved, to)
				}
			}
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, moved, fmt.Errorf("%s: %w", n, err)
		}
	}
	return len(names), moved, nil
}
