package fsroot

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
	"golang.org/x/sys/unix"
)

// target is what gets metadata: an open file or directory, or, when fd is -1, an entry of the directory dir that must not be
// opened (a link, device or FIFO).
type target struct {
	dir  int
	base string
	fd   int
	link bool
}

// metadata is what an entry's header says about owner, mode and time. Those of directories are kept until the end, so
// it is small.
type metadata struct {
	uid, gid uint32
	mode     uint32
	nanos    int64 // time of change since 1970
}

func (u *unpacker) metadata(hdr *tar.Header) (metadata, error) {
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= math.MaxUint32 || int64(hdr.Gid) >= math.MaxUint32 {
		return metadata{}, errs.Invalid("bad owner %d:%d", hdr.Uid, hdr.Gid)
	}
	m := metadata{uid: uint32(hdr.Uid), gid: uint32(hdr.Gid), mode: uint32(hdr.Mode) & 0o7777, nanos: bound(hdr.ModTime).UnixNano()}
	if !u.opts.System {
		m.mode &= 0o755
		if hdr.Typeflag == tar.TypeDir {
			m.mode |= 0o700 // the daemon must be able to remove it
		}
	}
	return m, nil
}

// finish gives a file, link or node all its metadata. Attributes come behind the owner: changing that clears capabilities.
func (u *unpacker) finish(t target, hdr *tar.Header) error {
	m, err := u.metadata(hdr)
	if err != nil {
		return err
	}
	if err := u.own(t, m); err != nil {
		return err
	}
	if err := u.xattrs(t, hdr); err != nil {
		return err
	}
	return setTime(t, m)
}

func setTime(t target, m metadata) error {
	stamp := unix.NsecToTimespec(m.nanos)
	times := []unix.Timespec{stamp, stamp}
	var err error
	if t.fd >= 0 {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, procPath(t), times, 0)
	} else {
		err = unix.UtimesNanoAt(t.dir, t.base, times, unix.AT_SYMLINK_NOFOLLOW)
	}
	return pathError("set time", t.base, err)
}

// own gives owner and mode, in this order: changing the owner clears setuid bits.
func (u *unpacker) own(t target, m metadata) (err error) {
	if u.opts.System {
		if t.fd >= 0 {
			err = unix.Fchown(t.fd, int(m.uid), int(m.gid))
		} else {
			err = unix.Fchownat(t.dir, t.base, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return pathError("chown", t.base, err)
		}
	}
	switch {
	case t.link:
		return nil
	case t.fd >= 0:
		return pathError("chmod", t.base, unix.Fchmod(t.fd, m.mode))
	}
	// The entry was made by this process in a directory that nobody else can reach, and it is no link.
	return pathError("chmod", t.base, unix.Fchmodat(t.dir, t.base, m.mode, 0))
}

// finishDirectories gives directories their owner, mode and time when nothing is written into them any more, which
// would change the time, or be forbidden by the mode to a daemon that is not root.
func (u *unpacker) finishDirectories() error {
	names := slices.Sorted(maps.Keys(u.dirs))
	slices.Reverse(names) // "a/b" sorts behind "a": deepest first
	for _, path := range names {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		open := path
		if open == "" {
			open = "."
		}
		fd, err := openDir(u.root, open)
		if err != nil {
			return pathError("open", path, err)
		}
		t, m := target{fd: fd, base: path}, u.dirs[path]
		if err = u.own(t, m); err == nil {
			err = setTime(t, m)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("entry %q: %w", printable(path), err)
		}
	}
	return nil
}

const xattrRecord = "SCHILY.xattr."

// keepXattr says which attributes an image may bring. Those of overlay (trusted.overlay.*, user.overlay.*) would make the
// kernel hide or redirect files, those of security modules belong to the host.
func keepXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && len(name) <= 255
}

func (u *unpacker) xattrs(t target, hdr *tar.Header) error {
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		value := hdr.PAXRecords[record]
		if !u.opts.System || !keepXattr(name) {
			u.res.SkippedXattrs++
			continue
		}
		err := setXattr(t, name, []byte(value))
		switch {
		case err == nil:
		case strings.HasPrefix(name, "user.") && (errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)):
			u.res.SkippedXattrs++ // tmpfs of older kernels has none, and links and devices have none anywhere
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.E2BIG):
			return errs.Invalid("bad attribute %s: %v", name, err)
		case errors.Is(err, unix.ENOTSUP):
			return errs.Unsupported("the file system has no attribute %s", name)
		default:
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

func setXattr(t target, name string, value []byte) error {
	if t.fd >= 0 {
		return unix.Fsetxattr(t.fd, name, value, 0)
	}
	return unix.Lsetxattr(procPath(t), name, value, 0)
}

// procPath names a target by its descriptor, for calls that take paths only.
func procPath(t target) string {
	if t.fd >= 0 {
		return fmt.Sprintf("/proc/self/fd/%d", t.fd)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", t.dir, t.base)
}
