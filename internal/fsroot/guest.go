package fsroot

import (
	"fmt"
	"io"
	"os"

	"github.com/shoal-project/shoal/internal/errs"
	"golang.org/x/sys/unix"
)

// OpenGuest opens a file or directory of a guest's tree for reading. The path is resolved as the guest would resolve it:
// absolute, links and ".." stay below rootfs. Mount points are not crossed and magic links (/proc/self/fd/…) not
// followed. Only regular files and directories are opened, anything else is errs.InvalidInput; a device or FIFO is
// recognised without being opened.
//
// It is meant for trees that nothing runs in: with a running guest use its agent.
func OpenGuest(rootfs, path string) (*os.File, error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, Classify(&os.PathError{Op: "open", Path: rootfs, Err: err})
	}
	defer unix.Close(root)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := openat2(root, path, how)
	if err != nil {
		return nil, Classify(&os.PathError{Op: "open in guest", Path: path, Err: err})
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return nil, errs.Invalid("%s in the guest is neither a regular file nor a directory", path)
	}
	// An O_PATH descriptor cannot be read; opening it anew through /proc gets the very same inode.
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, Classify(&os.PathError{Op: "open in guest", Path: path, Err: err})
	}
	return os.NewFile(uintptr(again), path), nil
}

// ReadGuest reads a regular file of a guest's tree of at most max bytes; see [OpenGuest].
func ReadGuest(rootfs, path string, max int64) ([]byte, error) {
	f, err := OpenGuest(rootfs, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, path, max)
}

func readRegular(f *os.File, name string, max int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errs.Invalid("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > max {
		return nil, errs.TooLarge("%s has more than %d bytes", name, max)
	}
	return b, nil
}

// openat2 retries what a rename elsewhere on the host can interrupt.
func openat2(dir int, path string, how unix.OpenHow) (int, error) {
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, path, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && try < 100 {
			continue
		}
		return fd, err
	}
}
