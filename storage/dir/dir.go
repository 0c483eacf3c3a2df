// Package dir keeps volumes as plain directories of any filesystem.
//
// It needs nothing of the filesystem but what overlayfs needs of an upper layer, so it works everywhere and is what a
// machine without disks to spare uses. It keeps no size limits: a size is recorded, and reported as not enforced, as LXD
// does on filesystems without project quotas.
package dir

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/storage/driver"
)

// Driver makes dir pools.
type Driver struct {
	logger *slog.Logger
}

// New returns the driver.
func New(logger *slog.Logger) *Driver { return &Driver{logger} }

var _ driver.Driver = (*Driver)(nil)

// Info implements [driver.Driver].
func (d *Driver) Info() driver.Info { return driver.Info{Name: "dir", Version: "1"} }

// Keys implements [driver.Driver].
func (d *Driver) Keys() []schema.Key {
	return []schema.Key{driver.SourceKey("an existing empty directory; a directory of its own when not set")}
}

// Create implements [driver.Driver]. Without a source the pool lives in its own directory; a source must be
// an empty directory.
func (d *Driver) Create(_ context.Context, s driver.Spec) (api.Config, error) {
	out := api.Config{}
	maps.Copy(out, s.Config)
	if out["source"] == "" {
		out["source"] = s.Path
	}
	if out["source"] == s.Path {
		if err := os.MkdirAll(s.Path, 0o711); err != nil {
			return nil, driver.NoSpace(fmt.Errorf("make pool directory: %w", err))
		}
	}
	return out, driver.Claim(out["source"], s.Name)
}

// Open implements [driver.Driver].
func (d *Driver) Open(_ context.Context, s driver.Spec) (driver.Pool, error) {
	path := source(s)
	if err := driver.CheckClaim(path, s.Name); err != nil {
		return nil, err
	}
	tree, err := driver.OpenTree(path, driver.TreeDeps{
		Make:   func(dir *os.File, name string) error { return unix.Mkdirat(int(dir.Fd()), name, 0o700) },
		Remove: driver.RemoveTree, Logger: d.logger,
	})
	if err != nil {
		return nil, err
	}
	return &pool{tree}, nil
}

func source(s driver.Spec) string {
	if src := s.Config["source"]; src != "" {
		return src
	}
	return s.Path
}

// Resize implements [driver.Driver]: a directory has no size.
func (d *Driver) Resize(context.Context, driver.Spec, int64) error {
	return errs.Unsupported("pools of the dir driver have no size")
}

// Destroy implements [driver.Driver].
func (d *Driver) Destroy(ctx context.Context, s driver.Spec) error {
	path := source(s)
	if err := driver.Unclaim(ctx, path, s.Name); err != nil {
		return err
	}
	if path == s.Path {
		return driver.RemoveOwnDir(path)
	}
	return nil
}

// pool adds to the common tree what a plain directory can tell about itself.
type pool struct{ *driver.Tree }

// CreateVolume implements [driver.Pool]; no limit is enforced.
func (p *pool) CreateVolume(_ context.Context, v driver.Volume, _ int64) (bool, error) {
	return false, p.Create(v, nil)
}

// FillVolume implements [driver.Pool]; no limit is enforced.
func (p *pool) FillVolume(_ context.Context, v driver.Volume, _ int64, fill func(dir *os.File) error) (bool, error) {
	return false, p.Create(v, fill)
}

// CopyVolume implements [driver.Pool]. It copies file by file and shares data where the filesystem can, so the copy is of one moment
// only when nothing writes meanwhile.
func (p *pool) CopyVolume(ctx context.Context, from, to driver.Volume, _ int64, progress func(int64)) (bool, error) {
	return false, p.CopyByFile(ctx, from, to, nil, progress)
}

// ReplaceVolume implements [driver.Pool].
func (p *pool) ReplaceVolume(ctx context.Context, from, to driver.Volume, _ int64, progress func(int64)) (bool, error) {
	return false, p.Replace(to, func(name string) error { return p.BuildByFile(ctx, name, from, to, nil, progress) })
}

// SetSize implements [driver.Pool]; no limit is enforced.
func (p *pool) SetSize(_ context.Context, v driver.Volume, _ int64) (bool, error) {
	there, err := p.Exists(v)
	if err == nil && !there {
		err = errs.NotFound("volume %s not found", v)
	}
	return false, err
}

// Usage implements [driver.Pool] by adding up what is there.
func (p *pool) Usage(ctx context.Context, v driver.Volume) (int64, error) {
	dir, err := p.OpenVolume(v)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return driver.DiskUsage(ctx, dir)
}

// Resources implements [driver.Pool].
func (p *pool) Resources(context.Context) (api.ResourcesStoragePool, error) {
	return driver.FilesystemResources(p.Root())
}
