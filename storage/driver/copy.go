package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCopyDepth bounds how deep CopyTree descends with two open directories per level. What a guest can nest deeper
// cannot be copied, and the error says so.
const maxCopyDepth = 240

// CopyTree copies what is in the directory from into the empty directory to: content, holes, owners, modes, times, extended
// attributes (those of overlayfs too), device nodes and hard links. Data is shared where the filesystem can (reflink). It
// follows no link, crosses no mount point, opens nothing but regular files and directories, and stops when ctx ends.
// progress may be nil; it gets the bytes copied so far.
func CopyTree(ctx context.Context, from, to *os.File, progress func(int64)) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return fmt.Errorf("copy tree: %w", err)
	}
	c := &copier{ctx: ctx, dev: st.Dev, links: map[inode]string{}, top: to, progress: progress}
	if err := c.directory(from, to, "", 0); err != nil {
		return NoSpace(fmt.Errorf("copy tree: %w", err))
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	ctx      context.Context
	dev      uint64
	top      *os.File
	links    map[inode]string // a file with several names → where its first copy is, below top
	copied   int64
	progress func(int64)
	noClone  bool // the filesystems share no data
}

// directory copies the entries and then what the directory itself has, as writing entries changes its times.
func (c *copier) directory(from, to *os.File, path string, depth int) error {
	if depth > maxCopyDepth {
		return fmt.Errorf("%s: directories are nested more than %d deep", path, maxCopyDepth)
	}
	for {
		names, err := from.Readdirnames(256)
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return context.Cause(c.ctx)
			}
			if err := c.entry(from, to, name, path, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.attributes(from, to)
}

func (c *copier) entry(from, to *os.File, name, path string, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // the guest runs and has just removed it
	}
	if err != nil {
		return err
	}
	rel := strings.TrimPrefix(path+"/"+name, "/")
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return c.subdirectory(from, to, name, rel, st, depth)
	}
	if st.Nlink > 1 {
		if first, ok := c.links[inode{st.Dev, st.Ino}]; ok {
			return c.link(first, to, name)
		}
		c.links[inode{st.Dev, st.Ino}] = rel
	}
	switch kind {
	case unix.S_IFREG:
		return c.file(from, to, name)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(from.Fd()), name, buf)
		if err == nil {
			err = unix.Symlinkat(string(buf[:n]), int(to.Fd()), name)
		}
		if err != nil {
			return err
		}
	default: // devices (a whiteout of overlayfs is one), pipes, sockets: nodes only, never opened
		if err := unix.Mknodat(int(to.Fd()), name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	return c.node(from, to, name)
}

func (c *copier) subdirectory(from, to *os.File, name, rel string, st unix.Stat_t, depth int) error {
	src, err := openIn(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	dst, err := openIn(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dst.Close()
	// A mount point, or a subvolume that the guest made: its content belongs to another filesystem tree. A subvolume is
	// copied as the directory that it looks like.
	if st.Dev != c.dev && st.Ino != 256 {
		return c.attributes(src, dst)
	}
	dev := c.dev
	c.dev = st.Dev
	defer func() { c.dev = dev }()
	return c.directory(src, dst, rel, depth+1)
}

func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// link makes another name of a file that was copied before. The path leads through directories that this copy made.
func (c *copier) link(first string, to *os.File, name string) error {
	return unix.Linkat(int(c.top.Fd()), first, int(to.Fd()), name, 0)
}

func (c *copier) file(from, to *os.File, name string) error {
	src, err := openIn(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer src.Close()
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	defer dst.Close()
	if err := c.content(src, dst); err != nil {
		return err
	}
	return c.attributes(src, dst)
}

func (c *copier) content(src, dst *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if st.Size > 0 && !c.noClone {
		err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		if err == nil {
			c.done(st.Size)
			return nil
		}
		c.noClone = errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTTY)
	}
	for at := int64(0); at < st.Size; {
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if at, err = c.extent(src, dst, data, min(hole, st.Size)); err != nil {
			return err
		}
	}
	return dst.Truncate(st.Size)
}

// extent copies [at, end) and returns where it stopped: the end, or before it when the file became shorter.
func (c *copier) extent(src, dst *os.File, at, end int64) (int64, error) {
	in, out := at, at
	for in < end {
		if err := c.ctx.Err(); err != nil {
			return in, context.Cause(c.ctx)
		}
		n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(end-in, 8<<20)), 0)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			m, err := io.Copy(io.NewOffsetWriter(dst, in), io.NewSectionReader(src, in, min(end-in, 8<<20)))
			n, in, out = int(m), in+m, out+m
			if err != nil {
				return in, err
			}
		} else if err != nil {
			return in, err
		}
		if n == 0 {
			return end, nil
		}
		c.done(int64(n))
	}
	return in, nil
}

func (c *copier) done(n int64) {
	c.copied += n
	if c.progress != nil {
		c.progress(c.copied)
	}
}

// attributes copies owner, extended attributes, mode and times between open files.
func (c *copier) attributes(from, to *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(procFD(from), procFD(to)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procFD(to), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// node copies the same for what is never opened.
func (c *copier) node(from, to *os.File, name string) error {
	src, err := openIn(from, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openIn(to, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer dst.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchownat(int(dst.Fd()), "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if err := copyXattrs(procFD(src), procFD(dst)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // the mode of a link means nothing
		if err := unix.Chmod(procFD(dst), st.Mode&0o7777); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(int(to.Fd()), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// procFD names an open file so that a call on the path reaches the file itself, a link too.
func procFD(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func copyXattrs(from, to string) error {
	list, err := xattrBytes(func(b []byte) (int, error) { return unix.Listxattr(from, b) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if name == "" || name == "btrfs.compression" {
			continue
		}
		value, err := xattrBytes(func(b []byte) (int, error) { return unix.Getxattr(from, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err == nil {
			err = unix.Setxattr(to, name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("attribute %q: %w", name, err)
		}
	}
	return nil
}

// xattrBytes reads an attribute or the list of them, whose size may change between asking for it and reading.
func xattrBytes(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
