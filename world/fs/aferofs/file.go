package aferofs

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/spf13/afero"

	"github.com/shoal-project/shoal/world/fs"
)

// openInode is the content that all handles of one adapter on one inode share, as those of one kernel do: what one writes another reads at once. Others
// see it when one of the handles is synced or closed.
type openInode struct {
	a   *Fs
	ino fs.Ino

	mu   sync.Mutex // over the size while something is appended
	h    *fs.File   // opened for reading and writing
	refs int        // under a.mu
}

// volumeFile is a handle: a position in shared content.
type volumeFile struct {
	name string
	flag int
	in   *openInode

	mu     sync.Mutex
	off    int64
	closed bool
}

var _ afero.File = (*volumeFile)(nil)

// open opens a file so that it shares its content with handles that are open for writing. Directories are not shared.
func (a *Fs) open(name string, flag int, perm os.FileMode) (afero.File, error) {
	const access = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
	h, err := a.f.OpenFile(a.ctx, name, flag&^(access|os.O_APPEND|os.O_TRUNC)|os.O_RDWR, perm)
	if errors.Is(err, syscall.EISDIR) && flag&(access|os.O_CREATE|os.O_TRUNC) == 0 {
		d, err := a.f.Open(a.ctx, name)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	in, err := a.join(h, flag&access != os.O_RDONLY)
	if err == nil && flag&os.O_TRUNC != 0 {
		err = in.h.Truncate(0)
	}
	if err != nil {
		return nil, err
	}
	return &volumeFile{name: name, flag: flag, in: in}, nil
}

// join returns the content that a fresh handle shares, which may be its own.
func (a *Fs) join(h *fs.File, writes bool) (*openInode, error) {
	s, err := h.Stat()
	if err != nil {
		return nil, err
	}
	now := s.Sys().(*fs.Info)
	a.mu.Lock()
	defer a.mu.Unlock()
	if in := a.writing[now.Ino]; in != nil {
		if s, err := in.h.Stat(); err == nil && (in.h.Changed() || s.Sys().(*fs.Info).Revision >= now.Revision) {
			h.Abandon()
			in.refs++
			return in, nil
		}
	}
	in := &openInode{a: a, ino: now.Ino, h: h, refs: 1}
	if writes {
		a.writing[now.Ino] = in
	}
	return in, nil
}

// leave makes what was written visible, and ends the content with its last handle.
func (in *openInode) leave() error {
	in.a.mu.Lock()
	in.refs--
	last := in.refs == 0
	if last && in.a.writing[in.ino] == in {
		delete(in.a.writing, in.ino)
	}
	in.a.mu.Unlock()
	if last {
		return in.h.Close()
	}
	return in.h.Sync()
}

func (v *volumeFile) fail(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pe *iofs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &iofs.PathError{Op: op, Path: v.name, Err: err}
}

// enter locks the handle for reading or writing.
func (v *volumeFile) enter(op string, write bool) error {
	v.mu.Lock()
	acc := v.flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	var err error
	switch {
	case v.closed:
		err = iofs.ErrClosed
	case write && acc == os.O_RDONLY, !write && acc == os.O_WRONLY:
		err = syscall.EBADF
	}
	if err != nil {
		v.mu.Unlock()
	}
	return v.fail(op, err)
}

func (v *volumeFile) Name() string { return v.name }

func (v *volumeFile) Read(p []byte) (int, error) {
	if err := v.enter("read", false); err != nil {
		return 0, err
	}
	defer v.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	n, err := v.in.h.ReadAt(p, v.off)
	v.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, v.fail("read", err)
}

func (v *volumeFile) ReadAt(p []byte, off int64) (int, error) {
	if err := v.enter("read", false); err != nil {
		return 0, err
	}
	defer v.mu.Unlock()
	n, err := v.in.h.ReadAt(p, off)
	return n, v.fail("read", err)
}

func (v *volumeFile) Write(p []byte) (int, error) {
	if err := v.enter("write", true); err != nil {
		return 0, err
	}
	defer v.mu.Unlock()
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	if v.flag&os.O_APPEND != 0 {
		s, err := v.in.h.Stat()
		if err != nil {
			return 0, v.fail("write", err)
		}
		v.off = s.Size()
	}
	n, err := v.in.h.WriteAt(p, v.off)
	v.off += int64(n)
	return n, v.fail("write", err)
}

func (v *volumeFile) WriteAt(p []byte, off int64) (int, error) {
	if err := v.enter("write", true); err != nil {
		return 0, err
	}
	defer v.mu.Unlock()
	if v.flag&os.O_APPEND != 0 {
		return 0, v.fail("write", syscall.EINVAL)
	}
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	n, err := v.in.h.WriteAt(p, off)
	return n, v.fail("write", err)
}

func (v *volumeFile) WriteString(s string) (int, error) { return v.Write([]byte(s)) }

func (v *volumeFile) Truncate(size int64) error {
	if err := v.enter("truncate", true); err != nil {
		return err
	}
	defer v.mu.Unlock()
	v.in.mu.Lock()
	defer v.in.mu.Unlock()
	return v.fail("truncate", v.in.h.Truncate(size))
}

func (v *volumeFile) Seek(off int64, whence int) (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, err := v.in.h.Stat()
	switch {
	case v.closed:
		return 0, v.fail("seek", iofs.ErrClosed)
	case err != nil:
		return 0, v.fail("seek", err)
	case whence == io.SeekCurrent:
		off += v.off
	case whence == io.SeekEnd:
		off += s.Size()
	case whence != io.SeekStart:
		off = -1
	}
	if off < 0 {
		return 0, v.fail("seek", syscall.EINVAL)
	}
	v.off = off
	return off, nil
}

func (v *volumeFile) Stat() (os.FileInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, v.fail("stat", iofs.ErrClosed)
	}
	s, err := v.in.h.Stat()
	return s, v.fail("stat", err)
}

func (v *volumeFile) Sync() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return v.fail("sync", iofs.ErrClosed)
	}
	return v.fail("sync", v.in.h.Sync())
}

func (v *volumeFile) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return v.fail("close", iofs.ErrClosed)
	}
	v.closed = true
	return v.fail("close", v.in.leave())
}

func (v *volumeFile) Readdir(int) ([]os.FileInfo, error) {
	return nil, v.fail("readdir", syscall.ENOTDIR)
}

func (v *volumeFile) Readdirnames(int) ([]string, error) {
	return nil, v.fail("readdir", syscall.ENOTDIR)
}
