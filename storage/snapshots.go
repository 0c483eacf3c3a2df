package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage/driver"
)

// Root says which root to copy from: that of an instance, or a snapshot when Snapshot, its id, is set.
type Root struct {
	Pool     api.PoolName
	Project  api.ProjectName
	Instance api.InstanceName
	Snapshot string
}

func (r Root) volume() (driver.Volume, error) {
	if r.Snapshot != "" {
		return driver.SnapshotVolume(r.Snapshot)
	}
	return driver.InstanceVolume(r.Project, r.Instance), nil
}

// AtomicCopies reports whether copies of roots in a pool are of one moment. Where they are not, an instance that runs is to be frozen
// while its root is copied.
func (s *Service) AtomicCopies(pool api.PoolName) (bool, error) {
	it, err := s.poolItem(pool)
	if err != nil {
		return false, err
	}
	d, err := s.driver(it.Value.Driver)
	if err != nil {
		return false, err
	}
	return d.Info().Snapshots, nil
}

// SnapshotRoot keeps a copy of a root under an id (a UUID), in the pool. Exists when there is one already; when it fails, nothing is
// left. The caller has a record of the id before it calls, and calls [Service.DeleteSnapshot] for what a crash cut off. progress may be
// nil and gets the bytes copied.
func (s *Service) SnapshotRoot(ctx context.Context, pool api.PoolName, id string, from Root, progress func(int64)) error {
	to, err := driver.SnapshotVolume(id)
	if err != nil {
		return err
	}
	return s.use(ctx, pool, func(p driver.Pool) error {
		if _, err := s.copyVolume(ctx, p, pool, to, 0, from, progress); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		return nil
	})
}

// CopyRoot makes the root of an instance as [Service.CreateRoot] does, filled with another root or a snapshot of any pool.
func (s *Service) CopyRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64, from Root, progress func(int64)) error {
	return s.makeRoot(ctx, pool, project, name, size, func(p driver.Pool, v driver.Volume, size int64) (bool, error) {
		return s.copyVolume(ctx, p, pool, v, size, from, progress)
	})
}

// FillRoot makes the root of an instance as [Service.CreateRoot] does; fill writes what is in it into the open directory with
// upper/ and work/ before the root has its name.
func (s *Service) FillRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64, fill func(dir *os.File) error) error {
	return s.makeRoot(ctx, pool, project, name, size, func(p driver.Pool, v driver.Volume, size int64) (bool, error) {
		return p.FillVolume(ctx, v, size, fill)
	})
}

// copyVolume copies within a pool as its driver can, and file by file from another.
func (s *Service) copyVolume(ctx context.Context, p driver.Pool, pool api.PoolName, to driver.Volume, size int64, from Root, progress func(int64)) (bool, error) {
	src, err := from.volume()
	if err != nil {
		return false, err
	}
	if from.Pool == pool {
		return p.CopyVolume(ctx, src, to, size, progress)
	}
	enforced := false
	err = s.use(ctx, from.Pool, func(q driver.Pool) error {
		dir, err := os.OpenFile(q.Path(src), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			err = errs.NotFound("volume %s not found", src)
		}
		if err != nil {
			return err
		}
		defer dir.Close()
		enforced, err = p.FillVolume(ctx, to, size, func(target *os.File) error { return copyLayer(ctx, dir, target, progress) })
		return err
	})
	return enforced, err
}

// copyLayer copies upper/ and makes an empty work/, which is overlayfs's own.
func copyLayer(ctx context.Context, from, to *os.File, progress func(int64)) error {
	for sub, mode := range map[string]uint32{"upper": 0o755, "work": 0o700} {
		if err := unix.Mkdirat(int(to.Fd()), sub, mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: %w", sub, err)
		}
	}
	src, err := openDir(from, "upper")
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openDir(to, "upper")
	if err != nil {
		return err
	}
	defer dst.Close()
	return driver.CopyTree(ctx, src, dst, progress)
}

func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReplaceRoot puts a copy of another root or a snapshot of the same pool in the place of an instance's, in one step. The instance must
// not run. The limit of the root stays. It may be called again after a crash.
func (s *Service) ReplaceRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, from Root, progress func(int64)) error {
	if err := s.rootThere(pool, project, name); err != nil {
		return err
	}
	if from.Pool != pool {
		return errs.Unsupported("the root of instance %q is in storage pool %q and cannot be replaced from pool %q", name, pool, from.Pool)
	}
	src, err := from.volume()
	if err != nil {
		return err
	}
	it, err := s.volumes.Get(rootKey(pool, project, name))
	if err != nil {
		return err
	}
	size, _ := strconv.ParseInt(it.Value.Config["size"], 10, 64)
	return s.use(ctx, pool, func(p driver.Pool) error {
		_, err := p.ReplaceVolume(ctx, src, driver.InstanceVolume(project, name), size, progress)
		return err
	})
}

// SnapshotPath makes the pool usable and returns the directory of a snapshot with upper/.
func (s *Service) SnapshotPath(ctx context.Context, pool api.PoolName, id string) (string, error) {
	v, err := driver.SnapshotVolume(id)
	if err != nil {
		return "", err
	}
	path := ""
	err = s.use(ctx, pool, func(p driver.Pool) error {
		there, err := p.Exists(v)
		if err == nil && !there {
			err = errs.Unavailable("a snapshot is recorded in storage pool %q but is not there", pool)
		}
		path = p.Path(v)
		return err
	})
	return path, err
}

// DeleteSnapshot removes a snapshot; nil when there is none, or no such pool.
func (s *Service) DeleteSnapshot(ctx context.Context, pool api.PoolName, id string) error {
	v, err := driver.SnapshotVolume(id)
	if err != nil {
		return err
	}
	if _, err := s.poolItem(pool); errs.IsNotFound(err) {
		return nil
	}
	return s.use(ctx, pool, func(p driver.Pool) error { return p.DeleteVolume(ctx, v) })
}
