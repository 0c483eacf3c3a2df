package fsroot

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"golang.org/x/sys/unix"
)

// unpacker makes entries below one directory that nobody else knows yet.
type unpacker struct {
	ctx    context.Context
	root   int // descriptor of the tree's directory
	opts   UnpackOptions
	limits Limits
	res    UnpackResult
	buf    []byte

	// The directory of the entry before: archives come directory by directory. It stays valid because a directory
	// that exists is never replaced or renamed while unpacking.
	parent     int
	parentName string

	dirs map[string]metadata // of directories, given when nothing is written into them any more
}

func newUnpacker(ctx context.Context, root int, opts UnpackOptions) *unpacker {
	return &unpacker{
		ctx: ctx, root: root, opts: opts, limits: opts.Limits.orDefault(), buf: make([]byte, 128<<10),
		parent: -1, dirs: map[string]metadata{},
	}
}

func (u *unpacker) close() {
	if u.parent >= 0 {
		unix.Close(u.parent)
		u.parent = -1
	}
}

// count takes n entries off the limit.
func (u *unpacker) count() error {
	u.res.Entries++
	if u.res.Entries > u.limits.Entries {
		return errs.TooLarge("the archive has more than %d entries", u.limits.Entries)
	}
	return nil
}

func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return u.count() // comments of git and others; counted, so that they cannot go on for ever
	}
	parts, err := cleanName(hdr.Name, u.limits.Depth)
	if err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	if hdr.Size < 0 || hdr.Size > u.limits.Bytes-u.res.Bytes {
		return errs.TooLarge("the archive has more than %d bytes of content", u.limits.Bytes)
	}
	if len(parts) < u.opts.StripComponents || (u.opts.Select != nil && !u.opts.Select(strings.Join(parts, "/"))) {
		n, err := io.Copy(io.Discard, content) // counts too: a sparse entry can be long and cost the sender nothing
		u.res.Bytes += n
		if err != nil {
			return archiveError(err)
		}
		return nil
	}
	parts = parts[u.opts.StripComponents:]
	if len(parts) == 0 {
		return u.rootEntry(hdr)
	}
	dir, err := u.openParent(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	base := parts[len(parts)-1]
	if hdr.Typeflag == tar.TypeDir {
		return u.makeDirectory(dir, base, strings.Join(parts, "/"), hdr)
	}
	if err := replace(dir, base); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(dir, base, hdr, content)
	case tar.TypeSymlink:
		return u.makeSymlink(dir, base, hdr)
	case tar.TypeLink:
		return u.makeHardlink(dir, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.makeNode(dir, base, hdr)
	}
	return errs.Invalid("entries of type %q are not allowed", hdr.Typeflag)
}

// rootEntry is "./" in most archives: the metadata of the tree itself.
func (u *unpacker) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		if u.opts.StripComponents > 0 {
			return nil
		}
		return errs.Invalid("the tree itself must be a directory")
	}
	return u.noteDirectory(u.root, "", hdr)
}

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

func openDir(dir int, path string) (int, error) {
	return openat2(dir, path, unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath,
	})
}

// openParent returns a descriptor of a directory of the tree, made where it is missing. It belongs to u.
func (u *unpacker) openParent(parts []string) (int, error) {
	if len(parts) == 0 {
		return u.root, nil
	}
	path := strings.Join(parts, "/")
	if u.parent >= 0 && u.parentName == path {
		return u.parent, nil
	}
	fd, err := openDir(u.root, path)
	if err == unix.ENOENT {
		fd, err = u.makeParents(parts)
	}
	switch {
	case err == unix.ENOTDIR || err == unix.ELOOP:
		return -1, errs.Invalid("%q is, or leads through, something that is no directory", path)
	case err != nil:
		return -1, pathError("open", path, err)
	}
	u.close()
	u.parent, u.parentName = fd, path
	return fd, nil
}

func (u *unpacker) makeParents(parts []string) (int, error) {
	for i := range parts {
		path := strings.Join(parts[:i+1], "/")
		fd, err := openDir(u.root, path)
		if err == nil {
			unix.Close(fd)
			continue
		}
		if err != unix.ENOENT {
			return -1, err
		}
		if err := u.count(); err != nil {
			return -1, err
		}
		dir := u.root
		if i > 0 {
			if dir, err = openDir(u.root, strings.Join(parts[:i], "/")); err != nil {
				return -1, err
			}
		}
		err = unix.Mkdirat(dir, parts[i], 0o755)
		if i > 0 {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
	}
	return openDir(u.root, strings.Join(parts, "/"))
}

// replace removes a file of the same name; a directory is refused.
func replace(dir int, base string) error {
	switch err := unix.Unlinkat(dir, base, 0); err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM:
		return errs.Invalid("an earlier entry of this name is a directory")
	default:
		return pathError("replace", base, err)
	}
}

func (u *unpacker) makeDirectory(dir int, base, path string, hdr *tar.Header) error {
	err := unix.Mkdirat(dir, base, 0o700)
	if err != nil && err != unix.EEXIST {
		return pathError("mkdir", base, err)
	}
	fd, err := openDir(dir, base)
	if err != nil {
		return errs.Invalid("an earlier entry of this name is no directory")
	}
	defer unix.Close(fd)
	return u.noteDirectory(fd, path, hdr)
}

// noteDirectory sets the attributes, which may be large, at once and notes the rest for later.
func (u *unpacker) noteDirectory(fd int, path string, hdr *tar.Header) error {
	m, err := u.metadata(hdr)
	if err != nil {
		return err
	}
	u.dirs[path] = m
	return u.xattrs(target{fd: fd, base: path}, hdr)
}

func (u *unpacker) makeFile(dir int, base string, hdr *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return pathError("create", base, err)
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	n, err := u.copy(f, content)
	u.res.Bytes += n
	if err != nil {
		return err
	}
	if n != hdr.Size {
		return errs.Invalid("content has %d bytes, the header promises %d", n, hdr.Size)
	}
	if err := u.finish(target{dir: dir, base: base, fd: fd}, hdr); err != nil {
		return err
	}
	return f.Close()
}

// copy copies content and leaves holes where blocks are zero, so that a sparse file stays one.
func (u *unpacker) copy(f *os.File, content io.Reader) (int64, error) {
	var n int64
	hole := false
	for {
		if err := u.ctx.Err(); err != nil {
			return n, context.Cause(u.ctx)
		}
		got, err := io.ReadFull(content, u.buf)
		if chunk := u.buf[:got]; got == len(u.buf) && allZero(chunk) {
			hole = true
		} else if got > 0 {
			if _, err := f.WriteAt(chunk, n); err != nil {
				return n, err
			}
			hole = false
		}
		n += int64(got)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return n, archiveError(err)
		}
	}
	if hole {
		return n, f.Truncate(n)
	}
	return n, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (u *unpacker) makeSymlink(dir int, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > 4095 || strings.ContainsRune(hdr.Linkname, 0) {
		return errs.Invalid("bad link target %q", printable(hdr.Linkname))
	}
	if err := unix.Symlinkat(hdr.Linkname, dir, base); err != nil {
		return pathError("symlink", base, err)
	}
	return u.finish(target{dir: dir, base: base, fd: -1, link: true}, hdr)
}

func (u *unpacker) makeHardlink(dir int, base string, hdr *tar.Header) error {
	parts, err := cleanName(hdr.Linkname, u.limits.Depth)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", printable(hdr.Linkname), err)
	}
	if len(parts) <= u.opts.StripComponents {
		return errs.Invalid("hard link to %q, which is not unpacked", printable(hdr.Linkname))
	}
	parts = parts[u.opts.StripComponents:]
	from := u.root
	if len(parts) > 1 {
		// openParent would close the descriptor that dir is.
		if from, err = openDir(u.root, strings.Join(parts[:len(parts)-1], "/")); err != nil {
			return errs.Invalid("hard link to %q: no such earlier entry", printable(hdr.Linkname))
		}
		defer unix.Close(from)
	}
	switch err := unix.Linkat(from, parts[len(parts)-1], dir, base, 0); err {
	case nil:
		return nil
	case unix.ENOENT, unix.EPERM:
		return errs.Invalid("hard link to %q: no such earlier entry, or a directory", printable(hdr.Linkname))
	default:
		return pathError("link", base, err)
	}
}

func (u *unpacker) makeNode(dir int, base string, hdr *tar.Header) error {
	mode := uint32(unix.S_IFIFO)
	switch hdr.Typeflag {
	case tar.TypeChar:
		mode = unix.S_IFCHR
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	}
	if mode == unix.S_IFIFO && !u.opts.System {
		return errs.Invalid("FIFOs are not allowed")
	}
	if mode != unix.S_IFIFO && !u.opts.Devices {
		return errs.Invalid("devices are not allowed")
	}
	if mode == unix.S_IFCHR && hdr.Devmajor == 0 && hdr.Devminor == 0 {
		return errs.Invalid("the character device 0:0 means a deleted file to overlay and is not allowed")
	}
	if hdr.Devmajor < 0 || hdr.Devmajor > 0xfff || hdr.Devminor < 0 || hdr.Devminor > 0xfffff {
		return errs.Invalid("bad device number %d:%d", hdr.Devmajor, hdr.Devminor)
	}
	dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	if err := unix.Mknodat(dir, base, mode|0o600, int(dev)); err != nil {
		return pathError("mknod", base, err)
	}
	return u.finish(target{dir: dir, base: base, fd: -1}, hdr)
}

// bound keeps a time of an archive inside what file systems can hold.
func bound(t time.Time) time.Time {
	if t.Unix() < 0 {
		return time.Unix(0, 0)
	}
	if t.Unix() > 1<<34-1 {
		return time.Unix(1<<34-1, 0)
	}
	return t
}
