package template

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// maxLinks is how many symbolic links one path may lead through, as in the kernel.
const maxLinks = 40

// Layers are the layers of a root, all owned unshifted: Upper is written, Lower (top first) only read.
type Layers struct {
	Upper string
	Lower []string
}

// WriteFile writes data to path as the guest would see it, into the upper layer. The instance must not run. It keeps
// mode and owner of an existing file; with createOnly it leaves an existing file alone. A missing directory is made
// with mode 0755, a new file has mode 0644, both owned by the guest's root.
//
// The content of the layers may be hostile. Every step opens one component below a directory descriptor without
// following links; links in the middle of the path are resolved inside the layers, as the guest would; the last
// component is replaced, never followed, so a link there becomes a file.
func WriteFile(l Layers, path string, data []byte, createOnly bool) error {
	w := walker{}
	defer w.close()
	if err := w.openRoot(l); err != nil {
		return err
	}
	err := w.write(path, data, createOnly)
	if err != nil {
		return fmt.Errorf("write %q into the root of the instance: %w", path, err)
	}
	return nil
}

// level is one directory of the merged tree: descriptors of its layers, index 0 the upper one, -1 where it is not there.
type level struct {
	name string
	fds  []int
	st   unix.Stat_t // of the topmost
	hide bool        // made anew where the lower layers have something that is hidden
}

type walker struct {
	stack []level
	links int
}

func (w *walker) close() {
	for len(w.stack) > 0 {
		w.pop()
	}
}

func (w *walker) pop() {
	for _, fd := range w.top().fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	w.stack = w.stack[:len(w.stack)-1]
}

func (w *walker) top() *level { return &w.stack[len(w.stack)-1] }

func (w *walker) openRoot(l Layers) error {
	root := level{}
	for i, dir := range append([]string{l.Upper}, l.Lower...) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if i == 0 && err == nil {
			unix.Close(fd)
			fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			w.stack = append(w.stack, root)
			return fmt.Errorf("open layer: %w", &os.PathError{Op: "open", Path: dir, Err: err})
		}
		root.fds = append(root.fds, fd)
	}
	w.stack = append(w.stack, root)
	return nil
}

// entry is what the merged tree has under a name of the top directory.
type entry struct {
	found    bool
	st       unix.Stat_t
	layer    int   // of the topmost
	fds      []int // of a directory
	whiteout bool  // the upper layer hides what is below
}

func (w *walker) look(name string) (entry, error) {
	e := entry{}
	for i, dir := range w.top().fds {
		e.fds = append(e.fds, -1)
		if dir < 0 || e.found && e.st.Mode&unix.S_IFMT != unix.S_IFDIR || e.whiteout {
			continue
		}
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return e, closeAll(e.fds, &os.PathError{Op: "stat", Path: name, Err: err})
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFCHR && st.Rdev == 0 {
			e.whiteout = true
			continue
		}
		if e.found && kind != unix.S_IFDIR {
			e.whiteout = true // a file below a directory: everything from here on is hidden
			continue
		}
		if !e.found {
			e.found, e.st, e.layer = true, st, i
		}
		if kind == unix.S_IFDIR {
			fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return e, closeAll(e.fds, &os.PathError{Op: "open", Path: name, Err: err})
			}
			e.fds[i] = fd
			if isOpaque(fd) {
				e.whiteout = true
			}
		}
	}
	return e, nil
}

func closeAll(fds []int, err error) error {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return err
}

func isOpaque(fd int) bool {
	var buf [1]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, attr, buf[:]); err == nil && n == 1 && buf[0] == 'y' {
			return true
		}
	}
	return false
}

func (w *walker) write(path string, data []byte, createOnly bool) error {
	todo := strings.Split(path, "/")
	last := ""
	for len(todo) > 0 && last == "" {
		last = todo[len(todo)-1]
		todo = todo[:len(todo)-1]
	}
	if last == "" || last == "." || last == ".." || len(path) > 4096 || strings.ContainsRune(path, 0) {
		return errs.Invalid("not a file's path")
	}
	if err := w.descend(todo); err != nil {
		return err
	}
	e, err := w.look(last)
	if err != nil {
		return err
	}
	closeAll(e.fds, nil)
	switch kind := e.st.Mode & unix.S_IFMT; {
	case e.found && kind == unix.S_IFDIR:
		return errs.Invalid("a directory is in the way")
	case e.found && createOnly:
		return nil
	case !e.found || kind != unix.S_IFREG:
		e.st = unix.Stat_t{Mode: 0o644}
	}
	dir, err := w.materialise()
	if err != nil {
		return err
	}
	return replace(dir, last, data, e.st)
}

// descend walks to the directory that todo names, resolving links; what is missing is pushed as a level without layers.
func (w *walker) descend(todo []string) error {
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(w.stack) > 1 {
				w.pop()
			}
			continue
		}
		if len(w.stack) > 100 {
			return errs.Invalid("the path has more than 100 directories")
		}
		e, err := w.look(name)
		if err != nil {
			return err
		}
		switch kind := e.st.Mode & unix.S_IFMT; {
		case !e.found:
			w.stack = append(w.stack, level{name: name, fds: e.fds, st: unix.Stat_t{Mode: 0o755}, hide: e.whiteout})
		case kind == unix.S_IFDIR:
			w.stack = append(w.stack, level{name: name, fds: e.fds, st: e.st})
		case kind == unix.S_IFLNK:
			target, err := readlink(w.top().fds[e.layer], name)
			if err != nil {
				return err
			}
			if w.links++; w.links > maxLinks {
				return errs.Invalid("more than %d symbolic links", maxLinks)
			}
			todo = append(strings.Split(target, "/"), todo...)
			for strings.HasPrefix(target, "/") && len(w.stack) > 1 {
				w.pop()
			}
		default:
			return errs.Invalid("%q in the path is not a directory", name)
		}
	}
	return nil
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil || n == len(buf) {
		return "", errs.Invalid("link %q cannot be read", name)
	}
	return string(buf[:n]), nil
}

// materialise makes the directories of the stack exist in the upper layer and returns the last one.
func (w *walker) materialise() (int, error) {
	up := w.stack[0].fds[0]
	for i := 1; i < len(w.stack); i++ {
		l := &w.stack[i]
		if l.fds[0] < 0 {
			fd, err := makeDir(up, l)
			if err != nil {
				return -1, err
			}
			l.fds[0] = fd
		}
		up = l.fds[0]
	}
	return up, nil
}

func makeDir(up int, l *level) (int, error) {
	if l.hide {
		_ = unix.Unlinkat(up, l.name, 0) // the whiteout
	}
	if err := unix.Mkdirat(up, l.name, 0o700); err != nil {
		return -1, &os.PathError{Op: "mkdir", Path: l.name, Err: err}
	}
	fd, err := unix.Openat(up, l.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: l.name, Err: err}
	}
	err = unix.Fchown(fd, int(l.st.Uid), int(l.st.Gid))
	if err == nil {
		err = unix.Fchmod(fd, l.st.Mode&0o7777)
	}
	if err == nil && l.hide {
		err = unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "copy up", Path: l.name, Err: err}
	}
	return fd, nil
}

// replace puts a new file in place of whatever is there, in one step.
func replace(dir int, name string, data []byte, like unix.Stat_t) error {
	tmp := ".shoal-" + rand.Text()
	fd, err := unix.Openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	_, err = f.Write(data)
	if err == nil {
		err = unix.Fchown(fd, int(like.Uid), int(like.Gid))
	}
	if err == nil {
		err = unix.Fchmod(fd, like.Mode&0o7777)
	}
	if err == nil {
		err = unix.Renameat(dir, tmp, dir, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, tmp, 0)
	}
	return err
}
