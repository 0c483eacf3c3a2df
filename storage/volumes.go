package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage/driver"
)

// within reports whether path is dir or below it; both are clean and absolute.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func rootKey(pool api.PoolName, project api.ProjectName, name api.InstanceName) string {
	return state.Key(pool.String(), string(driver.Containers), project.String(), name.String())
}

// CreateRoot makes an empty writable layer for an instance, with a size limit in bytes (0: the pool's volume.size, else
// none) where the pool's driver keeps one; [Service.GetVolume] shows whether it holds. Exists when there is one already. When it returns an
// error, nothing is left.
func (s *Service) CreateRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error {
	return s.makeRoot(ctx, pool, project, name, size, func(p driver.Pool, v driver.Volume, size int64) (bool, error) {
		return p.CreateVolume(ctx, v, size)
	})
}

// makeRoot records a root, has it made, and undoes both when that fails.
func (s *Service) makeRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64,
	build func(p driver.Pool, v driver.Volume, size int64) (enforced bool, err error),
) error {
	it, err := s.poolItem(pool)
	if err != nil {
		return err
	}
	if size < 0 {
		return errs.Invalid("size %d of an instance's root must not be negative", size)
	}
	if size == 0 {
		if size, err = driver.ParseSize(it.Value.Config["volume.size"]); err != nil {
			return fmt.Errorf("storage pool %q: volume.size: %w", pool, err)
		}
	}
	rec := volumeRecord{CreatedAt: s.deps.Clock.Now(), Phase: making, Config: api.Config{}}
	if size > 0 {
		rec.Config["size"] = strconv.FormatInt(size, 10)
	}
	return s.use(ctx, pool, func(p driver.Pool) error {
		it, err := s.volumes.Create(ctx, rootKey(pool, project, name), rec)
		if errs.IsExists(err) {
			return errs.Exists("the root of instance %q already exists in storage pool %q", name, pool)
		}
		if err != nil {
			return fmt.Errorf("create root of %s: %w", name, err)
		}
		it.Value.Enforced, err = build(p, driver.InstanceVolume(project, name), size)
		if err == nil {
			it.Value.Phase = ""
			_, err = s.volumes.Update(ctx, it)
		}
		if err == nil {
			return nil
		}
		after := context.WithoutCancel(ctx)
		var undo error
		if !errs.IsExists(err) { // a directory without a record is not ours to remove
			undo = p.DeleteVolume(after, driver.InstanceVolume(project, name))
		}
		if undo == nil {
			undo = s.volumes.Delete(after, it.Key)
		}
		return errors.Join(fmt.Errorf("create root of %s: %w", name, err), undo)
	})
}

// RootPath makes the pool usable and returns the directory with upper/ and work/.
func (s *Service) RootPath(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) (string, error) {
	if err := s.rootThere(pool, project, name); err != nil {
		return "", err
	}
	path := ""
	err := s.use(ctx, pool, func(p driver.Pool) error {
		v := driver.InstanceVolume(project, name)
		there, err := p.Exists(v)
		if err == nil && !there {
			err = errs.Unavailable("the root of instance %q is recorded in storage pool %q but is not there", name, pool)
		}
		path = p.Path(v)
		return err
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

func (s *Service) rootThere(pool api.PoolName, project api.ProjectName, name api.InstanceName) error {
	if _, err := s.poolItem(pool); err != nil {
		return err
	}
	it, err := s.volumes.Get(rootKey(pool, project, name))
	if errs.IsNotFound(err) || (err == nil && it.Value.Phase != "") {
		return errs.NotFound("instance %q has no root in storage pool %q", name, pool)
	}
	return err
}

// RootUsage returns the bytes that the instance's layer uses; the number may be some seconds old.
func (s *Service) RootUsage(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) (int64, error) {
	if err := s.rootThere(pool, project, name); err != nil {
		return 0, err
	}
	var n int64
	err := s.use(ctx, pool, func(p driver.Pool) (err error) {
		n, err = p.Usage(ctx, driver.InstanceVolume(project, name))
		return err
	})
	return n, err
}

// ResizeRoot changes the size limit in bytes (0: none) of a root that may be in use.
func (s *Service) ResizeRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error {
	if err := s.rootThere(pool, project, name); err != nil {
		return err
	}
	return s.use(ctx, pool, func(p driver.Pool) error {
		enforced, err := p.SetSize(ctx, driver.InstanceVolume(project, name), size)
		if err != nil {
			return err
		}
		_, err = s.volumes.Modify(ctx, rootKey(pool, project, name), func(r *volumeRecord) error {
			r.Enforced = enforced && size > 0
			r.Config = api.Config{}
			if size > 0 {
				r.Config["size"] = strconv.FormatInt(size, 10)
			}
			return nil
		})
		return err
	})
}

// RenameRoot gives the root to another name; nil when from is gone and to exists.
func (s *Service) RenameRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, from, to api.InstanceName) error {
	if _, err := s.poolItem(pool); err != nil {
		return err
	}
	old, err := s.volumes.Get(rootKey(pool, project, from))
	if errs.IsNotFound(err) && s.rootThere(pool, project, to) == nil {
		return nil
	}
	if err != nil {
		if errs.IsNotFound(err) {
			err = errs.NotFound("instance %q has no root in storage pool %q", from, pool)
		}
		return err
	}
	rec := old.Value
	rec.RenameFrom = from.String()
	it, err := s.volumes.Create(ctx, rootKey(pool, project, to), rec)
	if errs.IsExists(err) {
		if it, err = s.volumes.Get(rootKey(pool, project, to)); err == nil && it.Value.RenameFrom != from.String() {
			return errs.Exists("the root of instance %q already exists in storage pool %q", to, pool)
		}
	}
	if err != nil {
		return err
	}
	return s.finishRename(ctx, pool, project, from, to, old, it)
}

// finishRename moves the directory and then swaps the records; every step may have been done before.
func (s *Service) finishRename(ctx context.Context, pool api.PoolName, project api.ProjectName, from, to api.InstanceName, old, it state.Item[volumeRecord]) error {
	return s.use(ctx, pool, func(p driver.Pool) error {
		if err := p.RenameVolume(ctx, driver.InstanceVolume(project, from), driver.InstanceVolume(project, to)); err != nil {
			after := context.WithoutCancel(ctx)
			if there, e := p.Exists(driver.InstanceVolume(project, from)); e == nil && there {
				err = errors.Join(err, s.volumes.Delete(after, it.Key)) // nothing has happened yet
			}
			return err
		}
		it.Value.RenameFrom = ""
		_, err := s.deps.State.Txn(ctx, s.volumes.UpdateOp(it), s.volumes.DeleteOp(old))
		return err
	})
}

// DeleteRoot removes the layer; nil when there is none, or no such pool. It is gone at once; its space comes back in the
// background.
func (s *Service) DeleteRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) error {
	key := rootKey(pool, project, name)
	it, err := s.volumes.Modify(ctx, key, func(r *volumeRecord) error { r.Phase = deleting; return nil })
	if errs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.use(ctx, pool, func(p driver.Pool) error { return p.DeleteVolume(ctx, driver.InstanceVolume(project, name)) })
	if err != nil {
		return fmt.Errorf("delete root of %s: %w", name, err)
	}
	_, err = s.deps.State.Txn(ctx, s.volumes.DeleteOp(it))
	return err
}

// recoverVolume finishes a delete or rename and undoes a create.
func (s *Service) recoverVolume(ctx context.Context, it state.Item[volumeRecord]) error {
	k := state.SplitKey(it.Key)
	if len(k) != 4 || k[1] != string(driver.Containers) {
		return nil
	}
	pool, err1 := api.ParsePoolName(k[0])
	project, err2 := api.ParseProjectName(k[2])
	name, err3 := api.ParseInstanceName(k[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if it.Value.RenameFrom == "" {
		return s.DeleteRoot(ctx, pool, project, name)
	}
	from, err := api.ParseInstanceName(it.Value.RenameFrom)
	if err != nil {
		return err
	}
	old, err := s.volumes.Get(rootKey(pool, project, from))
	if err != nil {
		return err
	}
	return s.finishRename(ctx, pool, project, from, name, old, it)
}

// ListVolumes returns the volumes of a project in a pool, sorted by kind and name.
func (s *Service) ListVolumes(pool api.PoolName, project api.ProjectName) ([]api.StorageVolume, error) {
	if _, err := s.poolItem(pool); err != nil {
		return nil, err
	}
	out := []api.StorageVolume{}
	for _, it := range s.volumes.List(state.Key(pool.String()) + "/") {
		if k := state.SplitKey(it.Key); len(k) == 4 && k[2] == project.String() {
			out = append(out, renderVolume(k, it.Value))
		}
	}
	return out, nil
}

// GetVolume returns one volume; kind is container, virtual-machine or custom.
func (s *Service) GetVolume(pool api.PoolName, kind string, project api.ProjectName, name string) (*api.StorageVolume, error) {
	if _, err := s.poolItem(pool); err != nil {
		return nil, err
	}
	dir := map[string]driver.Kind{"container": driver.Containers, "virtual-machine": driver.VirtualMachines, "custom": driver.Custom}[kind]
	if dir == "" {
		return nil, errs.Invalid("invalid storage volume type %q; allowed are container, virtual-machine, custom", kind)
	}
	k := []string{pool.String(), string(dir), project.String(), name}
	it, err := s.volumes.Get(state.Key(k...))
	if errs.IsNotFound(err) {
		return nil, errs.NotFound("Storage pool volume not found")
	}
	if err != nil {
		return nil, err
	}
	v := renderVolume(k, it.Value)
	return &v, nil
}

func renderVolume(key []string, r volumeRecord) api.StorageVolume {
	v := api.StorageVolume{
		Name: key[3], Project: key[2], Description: r.Description, Location: "none", ContentType: "filesystem",
		CreatedAt: r.CreatedAt, Config: r.Config, UsedBy: []string{},
	}
	if v.Config == nil {
		v.Config = api.Config{}
	}
	switch driver.Kind(key[1]) {
	case driver.Containers:
		v.Type = "container"
	case driver.VirtualMachines:
		v.Type = "virtual-machine"
	default:
		v.Type = "custom"
	}
	if v.Type != "custom" {
		url := "/1.0/instances/" + v.Name
		if v.Project != api.DefaultProject.String() {
			url += "?project=" + v.Project
		}
		v.UsedBy = []string{url}
	}
	if v.Config["size"] != "" && !r.Enforced {
		v.Description = strings.TrimSpace(v.Description + " (the size is not enforced: the pool's driver keeps no limits here)")
	}
	return v
}
