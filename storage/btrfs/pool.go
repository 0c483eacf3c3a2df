package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage/driver"
)

// pool is an open btrfs pool: every volume is a subvolume with a quota group of its own.
type pool struct {
	*driver.Tree
	dir *os.File // the pool's directory, for ioctls
}

func openPool(path string, d *Driver) (*pool, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pool directory: %w", err)
	}
	tree, err := driver.OpenTree(path, driver.TreeDeps{
		Make: createSubvolume, Remove: removeSubvolume, Freed: startCleaner, Logger: d.logger,
	})
	if err != nil {
		dir.Close()
		return nil, err
	}
	// Kernels before 6.13 keep the quota groups of deleted subvolumes; what is still being cleaned is busy.
	if stale, err := staleQgroups(dir); err == nil {
		for _, id := range stale {
			_ = destroyQgroup(dir, id)
		}
	}
	if err := repairQuota(dir); err != nil {
		d.logger.Warn("size limits may not hold until the quotas are counted anew", "path", path, "err", err)
	}
	return &pool{tree, dir}, nil
}

// Close implements [driver.Pool].
func (p *pool) Close() error { return errors.Join(p.Tree.Close(), p.dir.Close()) }

// CreateVolume implements [driver.Pool].
func (p *pool) CreateVolume(_ context.Context, v driver.Volume, size int64) (bool, error) {
	if size > 0 {
		if err := p.fits(size); err != nil {
			return false, err
		}
	}
	err := p.Create(v, p.prepare(size))
	return err == nil, err
}

// prepare sets the limit of a volume that is being made.
func (p *pool) prepare(size int64) func(dir *os.File) error {
	return func(dir *os.File) error {
		if size <= 0 {
			return nil
		}
		return p.limit(dir, size)
	}
}

// FillVolume implements [driver.Pool]; the limit holds from the first byte.
func (p *pool) FillVolume(_ context.Context, v driver.Volume, size int64, fill func(dir *os.File) error) (bool, error) {
	if size > 0 {
		if err := p.fits(size); err != nil {
			return false, err
		}
	}
	err := p.Create(v, func(dir *os.File) error {
		if err := p.prepare(size)(dir); err != nil {
			return err
		}
		return fill(dir)
	})
	return err == nil, err
}

// CopyVolume implements [driver.Pool] with a snapshot. What a guest with btrfs of its own nested inside is an empty
// directory in the copy, as in every snapshot of btrfs.
func (p *pool) CopyVolume(_ context.Context, from, to driver.Volume, size int64, _ func(int64)) (bool, error) {
	if size > 0 {
		if err := p.fits(size); err != nil {
			return false, err
		}
	}
	err := p.Build(to, func(name string) error { return p.snapshot(name, from, size) })
	return err == nil, err
}

// ReplaceVolume implements [driver.Pool].
func (p *pool) ReplaceVolume(_ context.Context, from, to driver.Volume, size int64, _ func(int64)) (bool, error) {
	if size > 0 {
		if err := p.fits(size); err != nil {
			return false, err
		}
	}
	err := p.Replace(to, func(name string) error { return p.snapshot(name, from, size) })
	return err == nil, err
}

// snapshot makes a snapshot of a volume under a name among the unfinished ones.
func (p *pool) snapshot(name string, from driver.Volume, size int64) error {
	src, err := p.OpenVolume(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if sub, err := isSubvolume(src); err != nil || !sub {
		return errors.Join(err, errs.Invalid("volume %s is not a subvolume", from))
	}
	parent, err := p.OpenUnfinished(".")
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := snapshotSubvolume(parent, src, name); err != nil {
		return fmt.Errorf("snapshot of volume %s: %w", from, err)
	}
	dir, err := p.OpenUnfinished(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return p.prepare(size)(dir)
}

// fits refuses limits that the whole pool could not hold. Limits may add up to more than the pool: they are limits,
// not reservations.
func (p *pool) fits(size int64) error {
	r, err := p.Resources(context.Background())
	if err == nil && uint64(size) > r.Space.Total {
		err = errs.NoSpace("not enough space: %d bytes asked for, the pool has %d in all", size, r.Space.Total)
	}
	return err
}

func (p *pool) limit(dir *os.File, size int64) error {
	err := limitSubvolume(dir, size)
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		if size <= 0 {
			return nil
		}
		// Quotas are off: a pool on a filesystem that was there before.
		if err := enableQuota(p.dir); err != nil {
			return fmt.Errorf("enable quotas: %w", err)
		}
		err = limitSubvolume(dir, size)
	}
	if err != nil {
		return fmt.Errorf("set size limit: %w", err)
	}
	return nil
}

// SetSize implements [driver.Pool].
func (p *pool) SetSize(_ context.Context, v driver.Volume, size int64) (bool, error) {
	if size > 0 {
		if err := p.fits(size); err != nil {
			return false, err
		}
	}
	dir, err := p.OpenVolume(v)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	err = p.limit(dir, size)
	return err == nil, err
}

// Usage implements [driver.Pool]: what the quota group said at the last commit, at most some seconds ago.
func (p *pool) Usage(ctx context.Context, v driver.Volume) (int64, error) {
	dir, err := p.OpenVolume(v)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	id, err := subvolumeID(dir)
	if err != nil {
		return 0, err
	}
	n, ok, err := referenced(p.dir, id)
	if err != nil || ok {
		return n, err
	}
	return driver.DiskUsage(ctx, dir)
}

// Resources implements [driver.Pool]; btrfs has no limit of inodes.
func (p *pool) Resources(context.Context) (api.ResourcesStoragePool, error) {
	return driver.FilesystemResources(p.Root())
}

// removeSubvolume removes a subvolume with those inside it, or a plain directory.
func removeSubvolume(ctx context.Context, parent *os.File, name string) error {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return driver.RemoveTree(ctx, parent, name)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if sub, err := isSubvolume(dir); err != nil || !sub {
		if err != nil {
			return err
		}
		return driver.RemoveTree(ctx, parent, name)
	}
	id, err := subvolumeID(dir)
	if err != nil {
		return err
	}
	if err := removeNested(ctx, parent, id); err != nil {
		return err
	}
	if err := destroySubvolume(parent, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete subvolume %s: %w", name, err)
	}
	return nil
}

// removeNested removes the subvolumes inside subvolume id, the innermost first, without recursion: a guest with
// a volume may have nested thousands.
func removeNested(ctx context.Context, fs *os.File, id uint64) error {
	stack := []uint64{id}
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := stack[len(stack)-1]
		inside, err := nested(fs, top)
		if err != nil {
			return err
		}
		if len(inside) > 0 {
			stack = append(stack, inside...)
			continue
		}
		stack = stack[:len(stack)-1]
		if top == id {
			continue
		}
		if err := destroySubvolumeID(fs, top); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete nested subvolume %d: %w", top, err)
		}
	}
	return nil
}
