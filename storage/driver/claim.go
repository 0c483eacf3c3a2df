package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// claimFile marks a directory as a pool and names it. It is written last by Create and checked by Open, so that
// neither a half-made pool nor the empty directory where a disk should be mounted is ever taken for the pool.
const claimFile = ".shoal-pool"

// SourceKey is the key "source"; doc says what it may be for a driver.
func SourceKey(doc string) schema.Key {
	return schema.Key{Name: "source", Type: schema.Custom("path", "a clean absolute path", checkSource), Doc: doc}
}

func checkSource(value string) error {
	if !filepath.IsAbs(value) || filepath.Clean(value) != value || strings.ContainsAny(value, "\x00\n") {
		return errs.Invalid("source %q must be a clean absolute path", value)
	}
	return nil
}

// Claim makes the existing, empty directory at path the directory of a pool. Claiming again for the same pool is
// fine.
func Claim(path string, name api.PoolName) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.NotFound("source path %q doesn't exist", path)
	case err != nil:
		return fmt.Errorf("look at source path: %w", err)
	case !st.IsDir():
		return errs.Invalid("source path %q isn't a directory", path)
	}
	if CheckClaim(path, name) == nil {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("look at source path: %w", err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "lost+found" && n != claimFile+".new" {
			return errs.Invalid("source path %q isn't empty", path)
		}
	}
	if err := writeClaim(path, name); err != nil {
		return NoSpace(fmt.Errorf("mark pool directory: %w", err))
	}
	return nil
}

func writeClaim(path string, name api.PoolName) error {
	tmp := filepath.Join(path, claimFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(name.String() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(path, claimFile)); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// CheckClaim returns nil when path holds the named pool, and says what is there otherwise.
func CheckClaim(path string, name api.PoolName) error {
	b, err := os.ReadFile(filepath.Join(path, claimFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.Unavailable("%s does not hold storage pool %q: is its disk mounted?", path, name)
	case err != nil:
		return errs.Unavailable("storage pool %q: %v", name, err)
	case strings.TrimSpace(string(b)) != name.String():
		return errs.Unavailable("%s holds another storage pool, %.64q", path, strings.TrimSpace(string(b)))
	}
	return nil
}

// Unclaim removes what a pool made in its directory, the mark last; nil when the directory is not the pool's.
func Unclaim(ctx context.Context, path string, name api.PoolName) error {
	if err := CheckClaim(path, name); err != nil {
		_ = os.Remove(filepath.Join(path, claimFile+".new"))
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("remove storage pool %q: %w", name, err)
	}
	defer dir.Close()
	names := []string{newDir, trashDir}
	for _, k := range kinds {
		names = append(names, string(k))
	}
	for _, n := range append(names, claimFile) {
		if err := RemoveTree(ctx, dir, n); err != nil {
			return fmt.Errorf("remove storage pool %q: %w", name, err)
		}
	}
	return nil
}

// RemoveOwnDir removes the empty directory of a pool; nil when it is gone, an error when something else is in it.
func RemoveOwnDir(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pool directory: %w", err)
	}
	return nil
}
