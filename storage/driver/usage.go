package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
)

// FilesystemResources returns space and inodes of the filesystem that path is on, as df shows them.
func FilesystemResources(path string) (api.ResourcesStoragePool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return api.ResourcesStoragePool{}, fmt.Errorf("ask for the space of %s: %w", path, err)
	}
	var r api.ResourcesStoragePool
	r.Space.Total = st.Blocks * uint64(st.Bsize)
	r.Space.Used = (st.Blocks - st.Bfree) * uint64(st.Bsize)
	r.Inodes.Total = st.Files
	r.Inodes.Used = st.Files - st.Ffree
	return r, nil
}

// Free returns the bytes that may still be written below path.
func Free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("ask for the space of %s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// DiskUsage adds up the blocks of everything below dir, in bytes, hard links once, other filesystems not at all.
// What is deeper than some hundred levels is not counted: a guest must not make it expensive.
func DiskUsage(ctx context.Context, dir *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, err
	}
	u := usage{dev: st.Dev, seen: map[uint64]bool{}}
	err := u.walk(ctx, dir, 256)
	return u.bytes, err
}

type usage struct {
	dev   uint64
	seen  map[uint64]bool // inodes with more than one link
	bytes int64
}

func (u *usage) walk(ctx context.Context, d *os.File, depth int) error {
	for {
		names, err := d.Readdirnames(512)
		if err != nil && err != io.EOF {
			return err
		}
		if len(names) == 0 {
			return nil
		}
		for _, n := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := u.add(ctx, d, n, depth); err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
		}
	}
}

func (u *usage) add(ctx context.Context, d *os.File, name string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // a running instance removes what it likes
	}
	if err != nil || st.Dev != u.dev {
		return err
	}
	if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; !isDir && st.Nlink > 1 {
		if u.seen[st.Ino] {
			return nil
		}
		u.seen[st.Ino] = true
	} else if isDir && depth > 0 {
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		sub := os.NewFile(uintptr(fd), name)
		defer sub.Close()
		if err := u.walk(ctx, sub, depth-1); err != nil {
			return err
		}
	}
	u.bytes += st.Blocks * 512
	return nil
}
