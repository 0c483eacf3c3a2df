package fsmount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// Option is one mount option; an empty Value is a flag.
type Option struct{ Key, Value string }

// Mount mounts a filesystem at target, which must be an existing directory. attrs are MOUNT_ATTR_ flags. Options go
// to the kernel one by one, so no value can smuggle in another.
func Mount(fstype string, opts []Option, attrs int, target string) error {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return errs.Unsupported("this kernel has no %s filesystem", fstype)
		}
		return fmt.Errorf("open filesystem %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range opts {
		if o.Value == "" {
			err = unix.FsconfigSetFlag(fs, o.Key)
		} else {
			err = unix.FsconfigSetString(fs, o.Key, o.Value)
		}
		if err != nil {
			return fmt.Errorf("mount %s: option %s=%s: %w%s", fstype, o.Key, o.Value, err, fsLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("mount %s: %w%s", fstype, err, fsLog(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return fmt.Errorf("mount %s: %w%s", fstype, err, fsLog(fs))
	}
	defer unix.Close(mnt)
	private := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(mnt, "", unix.AT_EMPTY_PATH, private); err != nil {
		return fmt.Errorf("mount %s: make private: %w", fstype, err)
	}
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach %s at %s: %w", fstype, target, err)
	}
	return nil
}

// MountImage mounts a read-only filesystem image at target without device nodes: straight from the file where the
// kernel can (erofs since 6.12), else through a loop device.
func MountImage(fstype, file, target string) error {
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV
	var direct error
	if fstype == "erofs" {
		if direct = Mount(fstype, []Option{{"source", file}, {"ro", ""}}, attrs, target); direct == nil {
			return nil
		}
	}
	loop, err := AttachLoop(file, true)
	if err != nil {
		return errors.Join(err, direct)
	}
	defer loop.Close()
	return Mount(fstype, []Option{{"source", loop.Path}, {"ro", ""}}, attrs, target)
}

// fsLog returns what the kernel had to say about a mount that failed.
func fsLog(fs int) string {
	var out []string
	b := make([]byte, 1024)
	for len(out) < 16 {
		n, err := unix.Read(fs, b)
		if err != nil || n <= 0 {
			break
		}
		out = append(out, strings.TrimSpace(string(b[:n])))
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// IsMounted reports whether path is the root of a mount. A path that does not exist is not.
func IsMounted(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, errs.Unsupported("this kernel is too old: it does not tell mount points (needs Linux 5.8)")
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Unmount takes away every mount at path; nil when there is none. A mount that is still in use disappears from the
// tree at once and from the kernel with its last user.
func Unmount(path string) error {
	for range 64 {
		mounted, err := IsMounted(path)
		if err != nil || !mounted {
			return err
		}
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return errs.Busy("unmount %s: somebody mounts there again and again", path)
}
