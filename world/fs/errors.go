package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// What is not an errno.
var (
	// ErrConflict: the content was not written, because somebody else has changed it since the file was opened.
	ErrConflict = errs.Conflict("somebody else has changed the file since it was opened")
	// ErrPast: what is read is older than what the database remembers.
	ErrPast = errs.Conflict("the database no longer has this revision; open again")
	// ErrCorrupt: a blob is missing or is not what its name says, or a key holds what nobody of this version writes.
	ErrCorrupt = errs.Classify(errs.Internal, errors.New("the stored data is damaged"))
	// ErrLost: the process was cut off from the database for so long that what it had uploaded was collected.
	ErrLost = errs.Conflict("the upload was cut off from the database for too long; write again")
)

// pathError wraps err for the user of an operation; a PathError is left as it is.
func pathError(op, path string, err error) error {
	var pe *iofs.PathError
	if err == nil || errors.As(err, &pe) {
		return err
	}
	return &iofs.PathError{Op: op, Path: path, Err: err}
}

// unwrapPath takes off what another error names better.
func unwrapPath(err error) error {
	var pe *iofs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// classes of what a file system answers.
var classes = map[syscall.Errno]errs.Class{
	syscall.ENOENT: errs.NotFoundClass, syscall.EEXIST: errs.ExistsClass, syscall.ENOTEMPTY: errs.BusyClass, syscall.EBUSY: errs.BusyClass,
	syscall.EROFS: errs.Denied, syscall.EBADF: errs.InvalidInput, syscall.EINVAL: errs.InvalidInput, syscall.ENOTDIR: errs.InvalidInput,
	syscall.EISDIR: errs.InvalidInput, syscall.ENAMETOOLONG: errs.InvalidInput, syscall.ELOOP: errs.InvalidInput, syscall.EFBIG: errs.TooLargeClass,
	syscall.EAGAIN: errs.ConflictClass,
}

// Classify gives an error of this package the class of internal/errs that it stands for.
func Classify(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		if c, ok := classes[no]; ok {
			return errs.Classify(c, err)
		}
	}
	return err
}

// Errno returns what a kernel would answer.
func Errno(err error) syscall.Errno {
	var no syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &no):
		return no
	case errors.Is(err, iofs.ErrClosed):
		return syscall.EBADF
	case errors.Is(err, ErrPast):
		return syscall.ESTALE
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, kvstore.ErrNoSpace):
		return syscall.ENOSPC
	}
	return syscall.EIO
}
