package fsroot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/shoal-project/shoal/internal/errs"
)

// TempPrefix begins the names of files and directories that are not finished yet.
const TempPrefix = ".shoal-tmp-"

// Root is an open directory of ours; nothing outside it can be reached through it. The methods of
// [os.Root] are there as they are (their errors are not classified, see [Classify]). Safe for concurrent use.
type Root struct {
	*os.Root
}

// Open opens dir, which must exist. Close the Root when it is not needed any more.
func Open(dir string) (*Root, error) {
	if !filepath.IsAbs(dir) {
		return nil, errs.Invalid("directory %q: path must be absolute", dir)
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, Classify(err)
	}
	return &Root{r}, nil
}

// Sub opens a directory below r, which must exist.
func (r *Root) Sub(name string) (*Root, error) {
	s, err := r.OpenRoot(name)
	if err != nil {
		return nil, Classify(err)
	}
	return &Root{s}, nil
}

// Path returns the absolute path of name below r, for what cannot work with descriptors: mount, and the arguments of
// host programs. The name must be local (no "..", not absolute), errs.InvalidInput otherwise; links in it are not
// looked at, so use it only where nobody else can make any.
func (r *Root) Path(name string) (string, error) {
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return "", errs.Invalid("path %q leaves %s", name, r.Name())
	}
	return filepath.Join(r.Name(), name), nil
}

// WriteAtomic writes a file so that after a crash there is the old content or the new, never half of it: a temporary
// file beside it, fsync, rename, fsync of the directory. When it returns nil the content is on disk.
func (r *Root) WriteAtomic(name string, data []byte, mode fs.FileMode) (err error) {
	tmp := filepath.Join(filepath.Dir(name), TempPrefix+rand.Text())
	f, err := r.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, Classify(err))
	}
	defer func() {
		if err != nil {
			_ = r.Remove(tmp)
			err = fmt.Errorf("write %s: %w", name, Classify(err))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask took away
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := r.Rename(tmp, name); err != nil {
		return err
	}
	return r.syncDir(filepath.Dir(name))
}

// RenameSync renames within r and returns when both directories are on disk. A directory that has the new name must be
// empty, a file is replaced.
func (r *Root) RenameSync(oldName, newName string) error {
	if err := r.Rename(oldName, newName); err != nil {
		return fmt.Errorf("rename %s: %w", oldName, Classify(err))
	}
	if err := r.syncDir(filepath.Dir(newName)); err != nil {
		return err
	}
	if filepath.Dir(oldName) == filepath.Dir(newName) {
		return nil
	}
	return r.syncDir(filepath.Dir(oldName))
}

func (r *Root) syncDir(name string) error {
	d, err := r.Open(name)
	if err != nil {
		return Classify(err)
	}
	defer d.Close()
	return Classify(d.Sync())
}

// ReadLimited reads a regular file of at most max bytes; errs.TooLarge when it is longer, errs.InvalidInput when it is
// not a regular file. A link is not followed out of r.
func (r *Root) ReadLimited(name string, max int64) ([]byte, error) {
	f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, Classify(err))
	}
	defer f.Close()
	return readRegular(f, name, max)
}

// RemoveTemp deletes unfinished files and trees directly below the directory name, left by a crash.
func (r *Root) RemoveTemp(name string) error {
	d, err := r.Open(name)
	if err != nil {
		return Classify(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return Classify(err)
	}
	var all error
	for _, n := range names {
		if strings.HasPrefix(n, TempPrefix) {
			all = errors.Join(all, r.RemoveTree(filepath.Join(name, n)))
		}
	}
	return all
}

// Classify gives errors of the file system their class; nil stays nil, a classified error keeps its class.
func Classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errs.ClassOf(err) != errs.Internal:
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errs.Classify(errs.NoSpaceClass, err)
	case errors.Is(err, fs.ErrNotExist):
		return errs.Classify(errs.NotFoundClass, err)
	case errors.Is(err, fs.ErrExist):
		return errs.Classify(errs.ExistsClass, err)
	case errors.Is(err, syscall.EBUSY):
		return errs.Classify(errs.BusyClass, err)
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR),
		errors.Is(err, syscall.ENAMETOOLONG), strings.HasSuffix(err.Error(), "path escapes from parent"):
		return errs.Classify(errs.InvalidInput, err)
	}
	return err
}
