package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sort"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage/driver"
)

// Statuses of a pool on the wire.
const (
	statusCreated     = "Created"
	statusPending     = "Pending"
	statusUnavailable = "Unavailable"
)

// CreatePool makes a pool. What was chosen (size, source) is filled into its configuration. When it returns an error,
// nothing is left.
func (s *Service) CreatePool(ctx context.Context, req api.StoragePoolsPost) error {
	name, err := api.ParsePoolName(req.Name)
	if err != nil {
		return err
	}
	drv, err := s.driver(req.Driver)
	if err != nil {
		return err
	}
	rec := poolRecord{Driver: req.Driver, Description: req.Description, Config: dropEmpty(req.Config), Phase: making}
	if err := checkChange(drv, nil, rec.Config); err != nil {
		return err
	}
	if src := rec.Config["source"]; src != "" {
		if err := s.checkSource(name, src); err != nil {
			return err
		}
		rec.Config["volatile.initial_source"] = src
	}
	h := s.handle(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	it, err := s.pools.Create(ctx, state.Key(name.String()), rec)
	if errs.IsExists(err) {
		return errs.Exists("The storage pool already exists")
	}
	if err != nil {
		return fmt.Errorf("create storage pool %q: %w", name, err)
	}
	config, err := drv.Create(ctx, s.spec(name, rec.Config))
	if err == nil {
		it.Value.Config, it.Value.Phase = config, ""
		_, err = s.pools.Update(ctx, it)
	}
	if err != nil {
		// The request may be over; undoing must not be.
		undo := s.destroyLocked(context.WithoutCancel(ctx), name, rec, h)
		return errors.Join(fmt.Errorf("create storage pool %q: %w", name, err), undo)
	}
	return nil
}

// ListPools returns all pools, sorted by name.
func (s *Service) ListPools(ctx context.Context) []api.StoragePool {
	var out []api.StoragePool
	for _, it := range s.pools.List("") {
		name, err := api.ParsePoolName(state.SplitKey(it.Key)[0])
		if err == nil {
			out = append(out, s.render(ctx, name, it.Value))
		}
	}
	return out
}

// PoolNames returns the names of all pools, sorted.
func (s *Service) PoolNames() []api.PoolName {
	var out []api.PoolName
	for it := range s.pools.All("") {
		if name, err := api.ParsePoolName(state.SplitKey(it.Key)[0]); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// GetPool returns one pool; "Storage pool not found".
func (s *Service) GetPool(ctx context.Context, name api.PoolName) (*api.StoragePool, error) {
	it, err := s.poolItem(name)
	if err != nil {
		return nil, err
	}
	p := s.render(ctx, name, it.Value)
	return &p, nil
}

// PoolExists reports NotFound when there is no such pool.
func (s *Service) PoolExists(name api.PoolName) error {
	_, err := s.poolItem(name)
	return err
}

func (s *Service) render(ctx context.Context, name api.PoolName, rec poolRecord) api.StoragePool {
	p := api.StoragePool{Name: name.String(), Driver: rec.Driver, Status: statusCreated, Locations: []string{"none"}}
	p.Config, p.Description, p.UsedBy = rec.Config, rec.Description, s.usedBy(name)
	if rec.Phase != "" {
		p.Status = statusPending
	} else if err := s.use(ctx, name, func(driver.Pool) error { return nil }); err != nil {
		p.Status = statusUnavailable
		if p.Description == "" {
			p.Description = err.Error()
		}
	}
	return p
}

func (s *Service) usedBy(name api.PoolName) []string {
	out := []string{}
	if s.deps.UsedBy != nil {
		out = append(out, s.deps.UsedBy(name)...)
	}
	for _, it := range s.volumes.List(state.Key(name.String(), string(driver.Custom)) + "/") {
		p := state.SplitKey(it.Key)
		url := fmt.Sprintf("/1.0/storage-pools/%s/volumes/custom/%s", name, p[3])
		if p[2] != api.DefaultProject.String() {
			url += "?project=" + p[2]
		}
		out = append(out, url)
	}
	sort.Strings(out)
	return out
}

// UpdatePool is [Service.ModifyPool] for who has decided already.
func (s *Service) UpdatePool(ctx context.Context, name api.PoolName, req api.StoragePoolPut) error {
	return s.ModifyPool(ctx, name, func(api.StoragePoolPut) (api.StoragePoolPut, error) { return req, nil })
}

// ModifyPool replaces configuration and description by what change makes of the current ones, which nobody else changes meanwhile. The source cannot change and the size can only grow.
func (s *Service) ModifyPool(ctx context.Context, name api.PoolName, change func(current api.StoragePoolPut) (api.StoragePoolPut, error)) error {
	h := s.handle(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	it, err := s.poolItem(name)
	if err != nil {
		return err
	}
	drv, err := s.driver(it.Value.Driver)
	if err != nil {
		return err
	}
	req, err := change(api.StoragePoolPut{Config: maps.Clone(it.Value.Config), Description: it.Value.Description})
	if err != nil {
		return err
	}
	old, config := it.Value.Config, dropEmpty(req.Config)
	if config["source"] != "" && config["source"] != old["source"] {
		return errs.Invalid("the key \"source\" of a storage pool cannot be changed")
	}
	for _, k := range []string{"source", "size", "volatile.initial_source"} { // left out: unchanged
		if config[k] == "" && old[k] != "" {
			config[k] = old[k]
		}
	}
	if err := checkChange(drv, old, config); err != nil {
		return err
	}
	if config["size"] != old["size"] {
		size, err := driver.ParseSize(config["size"])
		if err != nil {
			return err
		}
		if err := drv.Resize(ctx, s.spec(name, old), size); err != nil {
			return err
		}
	}
	it.Value.Config, it.Value.Description = config, req.Description
	_, err = s.pools.Update(ctx, it)
	return err
}

// DeletePool removes a pool that nothing uses, with everything in it.
func (s *Service) DeletePool(ctx context.Context, name api.PoolName) error {
	if _, err := s.poolItem(name); err != nil {
		return err
	}
	if used := s.usedBy(name); len(used) > 0 {
		return errs.Invalid("The storage pool is currently in use")
	}
	if left := s.volumes.List(state.Key(name.String()) + "/"); len(left) > 0 {
		return errs.Invalid("The storage pool is currently in use")
	}
	it, err := s.pools.Modify(ctx, state.Key(name.String()), func(r *poolRecord) error { r.Phase = deleting; return nil })
	if err != nil {
		return err
	}
	return s.destroyPool(ctx, name, it.Value)
}

func (s *Service) destroyPool(ctx context.Context, name api.PoolName, rec poolRecord) error {
	h := s.handle(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	return s.destroyLocked(ctx, name, rec, h)
}

// destroyLocked removes what a pool made and then its record.
func (s *Service) destroyLocked(ctx context.Context, name api.PoolName, rec poolRecord, h *handle) error {
	if h.pool != nil {
		if err := h.pool.Close(); err != nil {
			return fmt.Errorf("delete storage pool %q: %w", name, err)
		}
		h.pool = nil
	}
	drv, err := s.driver(rec.Driver)
	if err != nil {
		return err
	}
	if err := drv.Destroy(ctx, s.spec(name, rec.Config)); err != nil {
		return fmt.Errorf("delete storage pool %q: %w", name, err)
	}
	err = s.pools.Delete(ctx, state.Key(name.String()))
	if errs.IsNotFound(err) {
		err = nil
	}
	return err
}

// Resources returns the space of a pool in bytes.
func (s *Service) Resources(ctx context.Context, name api.PoolName) (*api.ResourcesStoragePool, error) {
	var r api.ResourcesStoragePool
	err := s.use(ctx, name, func(p driver.Pool) (err error) {
		r, err = p.Resources(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// checkSource refuses a source that lies in the daemon's own directory, where other pools and images are, and one
// that another pool has.
func (s *Service) checkSource(name api.PoolName, src string) error {
	if own := s.spec(name, nil).Path; src != own && within(s.deps.Dir, src) {
		return errs.Invalid("source %q lies in the directory of the daemon", src)
	}
	for _, it := range s.pools.List("") {
		other := it.Value.Config["source"]
		if other != "" && (within(other, src) || within(src, other)) && state.SplitKey(it.Key)[0] != name.String() {
			return errs.Invalid("source %q is used by storage pool %q", src, state.SplitKey(it.Key)[0])
		}
	}
	return nil
}
