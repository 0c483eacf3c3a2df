package btrfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/storage/driver"
)

// growMounted tells the loop device and the filesystem of a mounted pool that the image file has grown; a pool that is
// not mounted finds out when it is opened.
func growMounted(s driver.Spec) error {
	mounted, err := fsmount.IsMounted(s.Path)
	if err != nil || !mounted {
		return err
	}
	dev, err := mountedDevice(s.Path)
	if err != nil {
		return err
	}
	loop, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("resize pool: %w", err)
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize pool: loop device %s: %w", dev, err)
	}
	dir, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := resizeMax(dir); err != nil {
		return fmt.Errorf("resize pool: %w", err)
	}
	return nil
}

// mountedDevice returns the device that is mounted at path. Btrfs has device numbers of its own, so the
// kernel's list of mounts is asked.
func mountedDevice(path string) (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dev := ""
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if ok && len(f) > 4 && len(g) > 1 && unescape(f[4]) == path {
			dev = g[1] // the last one is on top
		}
	}
	if dev == "" {
		return "", fmt.Errorf("%s is not in the list of mounts", path)
	}
	return dev, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
