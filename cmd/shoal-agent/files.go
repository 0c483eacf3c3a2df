package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// maxOpen bounds the files that one session holds open.
const maxOpen = 512

// files answers SFTP requests on the file tree around us.
type files struct{ open atomic.Int32 }

// file counts itself off when it is closed.
type file struct {
	*os.File
	fs *files
}

func (f *file) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// openRegular opens a regular file. O_NONBLOCK keeps a FIFO from blocking; a device is looked at through O_PATH
// first, because opening one may do something.
func (s *files) openRegular(path string, flags int, mode os.FileMode) (*file, error) {
	if s.open.Add(1) > maxOpen {
		s.open.Add(-1)
		return nil, fmt.Errorf("more than %d open files: %w", maxOpen, unix.EMFILE)
	}
	f, err := openRegular(path, flags, mode)
	if err != nil {
		s.open.Add(-1)
		return nil, err
	}
	return &file{f, s}, nil
}

func openRegular(path string, flags int, mode os.FileMode) (*os.File, error) {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: notRegular(st.Mode())}
	}
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY, mode)
	if err != nil {
		return nil, err
	}
	// Once more: what lay there may have been swapped.
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: notRegular(st.Mode())}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func notRegular(m fs.FileMode) error {
	if m.IsDir() {
		return unix.EISDIR
	}
	return fmt.Errorf("not a regular file but %v", m.Type())
}

// Fileread opens for reading.
func (s *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	return s.openRegular(r.Filepath, os.O_RDONLY, 0)
}

// Filewrite opens for writing.
func (s *files) Filewrite(r *sftp.Request) (io.WriterAt, error) { return s.OpenFile(r) }

// OpenFile opens for writing, and reading when asked.
func (s *files) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	p := r.Pflags()
	flags := os.O_WRONLY
	if p.Read {
		flags = os.O_RDWR
	}
	// Not O_APPEND: the client writes at offsets.
	if p.Creat {
		flags |= os.O_CREATE
	}
	if p.Trunc {
		flags |= os.O_TRUNC
	}
	if p.Excl {
		flags |= os.O_EXCL
	}
	return s.openRegular(r.Filepath, flags, 0o644)
}

// Filecmd does what changes the tree.
func (s *files) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		return setstat(r)
	case "Rename":
		// SFTP's own rename does not replace; PosixRename does.
		return unix.Renameat2(unix.AT_FDCWD, r.Filepath, unix.AT_FDCWD, r.Target, unix.RENAME_NOREPLACE)
	case "Rmdir":
		return unix.Rmdir(r.Filepath)
	case "Remove":
		return unix.Unlink(r.Filepath)
	case "Mkdir":
		return os.Mkdir(r.Filepath, 0o755)
	case "Link":
		return os.Link(r.Filepath, r.Target)
	case "Symlink": // Filepath is what the link says, Target where it lies
		return os.Symlink(r.Filepath, r.Target)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// PosixRename replaces what is there.
func (s *files) PosixRename(r *sftp.Request) error { return os.Rename(r.Filepath, r.Target) }

// setstat follows links but for owners, which it gives to a link itself: a link has an owner and nothing else to set.
func setstat(r *sftp.Request) error {
	a, f := r.Attributes(), r.AttrFlags()
	var errs []error
	if f.Size {
		file, err := openRegular(r.Filepath, os.O_WRONLY, 0)
		if err == nil {
			err = file.Truncate(int64(a.Size))
			_ = file.Close()
		}
		errs = append(errs, err)
	}
	if f.UidGid { // before the mode: chown clears set-id bits
		errs = append(errs, os.Lchown(r.Filepath, int(a.UID), int(a.GID)))
	}
	if f.Permissions {
		errs = append(errs, unix.Chmod(r.Filepath, a.Mode&0o7777))
	}
	if f.Acmodtime {
		errs = append(errs, os.Chtimes(r.Filepath, time.Unix(int64(a.Atime), 0), time.Unix(int64(a.Mtime), 0)))
	}
	return errors.Join(errs...)
}

// Filelist lists a directory or describes a file.
func (s *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch r.Method {
	case "List":
		d, err := os.OpenFile(r.Filepath, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		infos, err := d.Readdir(-1)
		return lister(infos), err
	case "Stat":
		st, err := os.Stat(r.Filepath)
		return lister{st}, err
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

// Lstat describes a link itself.
func (s *files) Lstat(r *sftp.Request) (sftp.ListerAt, error) {
	st, err := os.Lstat(r.Filepath)
	return lister{st}, err
}

// Readlink returns what a link says.
func (s *files) Readlink(path string) (string, error) { return os.Readlink(path) }

// StatVFS describes the file system that holds a path.
func (s *files) StatVFS(r *sftp.Request) (*sftp.StatVFS, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(r.Filepath, &st); err != nil {
		return nil, err
	}
	return &sftp.StatVFS{
		Bsize: uint64(st.Bsize), Frsize: uint64(st.Frsize), Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail,
		Files: st.Files, Ffree: st.Ffree, Favail: st.Ffree, Flag: uint64(st.Flags), Namemax: uint64(st.Namelen),
	}, nil
}

type lister []os.FileInfo

// ListAt copies entries from offset on.
func (l lister) ListAt(out []os.FileInfo, offset int64) (int, error) {
	if offset < 0 || offset >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(out, l[offset:])
	if n < len(out) {
		return n, io.EOF
	}
	return n, nil
}
