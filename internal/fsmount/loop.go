package fsmount

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// Loop is an attached loop device. The kernel frees it when the last user closes it: a mount is a user, so Close
// after mounting keeps the device for as long as the mount lives, and a crash in between leaves nothing.
type Loop struct {
	Path string // for example /dev/loop3
	dev  *os.File
}

// Close gives up the caller's use of the device.
func (l *Loop) Close() error { return l.dev.Close() }

// loopMajor is the device number of all loop devices (Documentation/admin-guide/devices.txt).
const loopMajor = 7

// loopAttempts bounds the races for a free device that are lost before giving up.
const loopAttempts = 64

// AttachLoop makes a block device of a regular file, with direct I/O to the file where its filesystem can do
// it (so nothing is cached twice). Safe for concurrent use, also with other programs.
func AttachLoop(file string, readOnly bool) (*Loop, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(file, mode|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open image for a loop device: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errs.Invalid("attach %s to a loop device: not a regular file", file)
	}
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, errs.Unsupported("loop devices are not available: %v", err)
	}
	defer ctl.Close()
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := openLoop(n, mode)
		if err != nil {
			return nil, err
		}
		err = configureLoop(dev, f, readOnly)
		if err == nil {
			return &Loop{Path: dev.Name(), dev: dev}, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", file, dev.Name(), err)
		}
	}
	return nil, errs.Unavailable("attach %s to a loop device: others took every free one %d times", file, loopAttempts)
}

// openLoop opens /dev/loopN, making the node where no devtmpfs does.
func openLoop(n, mode int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	deadline := time.Now().Add(2 * time.Second)
	for {
		dev, err := os.OpenFile(path, mode|unix.O_CLOEXEC, 0)
		if err == nil || !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			if err != nil {
				return nil, fmt.Errorf("open loop device: %w", err)
			}
			return dev, nil
		}
		err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n))))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make loop device node: %w", err)
		}
	}
}

func configureLoop(dev, file *os.File, readOnly bool) error {
	cfg := &unix.LoopConfig{Fd: uint32(file.Fd())}
	cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	if readOnly {
		cfg.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	name := []byte(file.Name())
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], name)
	err := unix.IoctlLoopConfigure(int(dev.Fd()), cfg)
	if errors.Is(err, unix.EINVAL) { // the file's filesystem cannot do direct I/O
		cfg.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO
		err = unix.IoctlLoopConfigure(int(dev.Fd()), cfg)
	}
	return err
}
