package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// mountAll builds the root and the shifted mounts below shimproto.MountPoint, in our own mount namespace.
func mountAll(cfg *shimproto.Config) error {
	// Slave: mounts that the host makes later below a bound path still arrive, ours never go out.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make / a slave mount: %w", err)
	}
	if err := os.MkdirAll(shimproto.MountPoint, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("shoal", shimproto.MountPoint, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711,size=64k"); err != nil {
		return fmt.Errorf("mount %s: %w", shimproto.MountPoint, err)
	}
	var userns *os.File
	if cfg.Size > 0 {
		var err error
		if userns, err = usernsFD(int(cfg.Base), int(cfg.Size)); err != nil {
			return fmt.Errorf("make a user namespace for ids %d-%d: %w", cfg.Base, cfg.Base+cfg.Size-1, err)
		}
		defer userns.Close()
	}
	if err := os.MkdirAll(shimproto.RootPath, 0o755); err != nil {
		return err
	}
	root, err := rootMount(cfg, userns)
	if err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if err := attach(root, shimproto.RootPath); err != nil {
		return err
	}
	for _, m := range cfg.Shift {
		if err := shifted(m, userns); err != nil {
			return fmt.Errorf("mount %s: %w", m.Source, err)
		}
	}
	return nil
}

func rootMount(cfg *shimproto.Config, userns *os.File) (int, error) {
	if cfg.Path != "" {
		return clone(cfg.Path, userns, true)
	}
	var fd int
	err := asOwner(int(cfg.Base), func() (err error) {
		fd, err = overlay(cfg.Lower, cfg.Data, userns)
		return err
	})
	return fd, err
}

// shifted attaches an id-mapped clone of a host path; files get a file to be mounted on, directories a directory.
func shifted(m shimproto.Shift, userns *os.File) error {
	fd, err := clone(m.Source, userns, true)
	if err != nil {
		return err
	}
	target := filepath.Join(shimproto.MountPoint, m.Name)
	var st unix.Stat_t
	if err := unix.Stat(m.Source, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(target, 0o755)
	} else {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	return attach(fd, target)
}

// usernsFD returns a descriptor of a user namespace that maps 0…size-1 to base…. A namespace is made by a child only; it is
// traced, so that it stops at its exec and none of our code ever runs in there.
func usernsFD(base, size int) (*os.File, error) {
	runtime.LockOSThread() // ptrace ties the child to a thread
	defer runtime.UnlockOSThread()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: size}}
	p, err := os.StartProcess("/proc/self/exe", []string{"shoal-userns"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}})
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}()
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
}

// clone returns a detached clone of the tree at path, id-mapped when userns is given.
func clone(path string, userns *os.File, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	at := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
		at |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, fmt.Errorf("clone %s: %w", path, err)
	}
	attr := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if userns != nil {
		attr.Attr_set, attr.Userns_fd = unix.MOUNT_ATTR_IDMAP, uint64(userns.Fd())
	}
	if err := unix.MountSetattr(fd, "", at, attr); err != nil {
		_ = unix.Close(fd)
		if userns != nil && errors.Is(err, unix.EINVAL) {
			return -1, fmt.Errorf("the file system of %s cannot map ids on this kernel: %w", path, err)
		}
		return -1, fmt.Errorf("map ids of %s: %w", path, err)
	}
	return fd, nil
}

func attach(fd int, target string) error {
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach %s: %w", target, err)
	}
	return nil
}

// overlay makes a detached overlay mount. Layers are named by descriptor: their real paths may be longer than
// the 255 bytes that fsconfig takes, and an id-mapped clone has no path.
func overlay(lowers []string, data string, userns *os.File) (int, error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	layer := func(path string) (string, error) {
		fd, err := clone(path, userns, false)
		if err != nil {
			return "", err
		}
		fds = append(fds, fd)
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	if len(lowers) == 0 {
		return -1, errors.New("no lower layer")
	}
	var low []string
	for _, l := range lowers {
		p, err := layer(l)
		if err != nil {
			return -1, err
		}
		low = append(low, p)
	}
	up, err := layer(data) // upper and work must lie under one mount
	if err != nil {
		return -1, err
	}
	var tops [][2]string
	for _, l := range low {
		tops = append(tops, [2]string{"lowerdir+", l})
	}
	rest := [][2]string{{"upperdir", up + "/upper"}, {"workdir", up + "/work"}, {"source", "shoal"}}
	fd, err := fsMount("overlay", append(tops, rest...))
	if errors.Is(err, unix.EINVAL) { // kernels before 6.7 have no lowerdir+
		fd, err = fsMount("overlay", append([][2]string{{"lowerdir", strings.Join(low, ":")}}, rest...))
	}
	return fd, err
}

func fsMount(fstype string, opts [][2]string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range opts {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("%s option %s: %w %s", fstype, o[0], err, fsLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make %s: %w %s", fstype, err, fsLog(fs))
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// fsLog returns what the kernel says about a failed fsconfig.
func fsLog(fs int) string {
	var out []string
	b := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fs, b)
		if err != nil || n <= 0 {
			break
		}
		out = append(out, strings.TrimSpace(string(b[:n])))
	}
	return strings.Join(out, "; ")
}

// asOwner runs fn on a thread whose file-system ids are id and whose capabilities are still all there. Overlayfs
// records its mounter and writes as it: host root has no id in an id-mapped upper layer and gets EOVERFLOW.
func asOwner(id int, fn func() error) error {
	if id == 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			done <- err
			return
		}
		if err := errors.Join(unix.Setfsgid(id), unix.Setfsuid(id)); err != nil {
			done <- err
			return
		}
		if err := unix.Capset(&hdr, &caps[0]); err != nil { // setfsuid has dropped those for files
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}
