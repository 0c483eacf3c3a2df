package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage/driver"
)

// Deps is what the service needs.
type Deps struct {
	Dir     string // the daemon's directory; storage-pools/ and disks/ in it are this room's
	State   *state.DB
	Drivers []driver.Driver
	Clock   clock.Clock
	Logger  *slog.Logger
	// UsedBy returns the URLs of what uses a pool (instances, profiles); volumes are added here. Optional.
	UsedBy func(pool api.PoolName) []string
}

// Service keeps pools and volumes. Safe for concurrent use; calls that change one volume are serialised by the
// caller (an instance has one operation at a time), calls that change one pool by the service.
type Service struct {
	deps    Deps
	drivers map[string]driver.Driver
	pools   *state.Table[poolRecord]
	volumes *state.Table[volumeRecord]

	mu   sync.Mutex
	open map[string]*handle // by pool name
}

// handle is a pool of this node. Its lock is held for reading while the pool is used and for writing while it is
// opened, changed or destroyed.
type handle struct {
	mu   sync.RWMutex
	pool driver.Pool // nil: not open
	why  error       // why the last attempt to open it failed
}

// phase says what is being done to a record's subject; empty means nothing, it is there.
type phase string

const (
	making   phase = "making"
	deleting phase = "deleting"
)

// poolRecord is a pool in the database.
type poolRecord struct {
	Driver      string     `json:"driver"`
	Description string     `json:"description,omitempty"`
	Config      api.Config `json:"config"`
	Phase       phase      `json:"phase,omitempty"`
}

// volumeRecord is a volume in the database.
type volumeRecord struct {
	Config      api.Config `json:"config,omitempty"`
	Description string     `json:"description,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	Enforced    bool       `json:"enforced,omitempty"` // the size in Config holds
	Phase       phase      `json:"phase,omitempty"`
	// RenameFrom is the directory that this volume is being renamed from; its record still exists.
	RenameFrom string `json:"rename_from,omitempty"`
}

// New returns the service. It touches no pool; call [Service.Recover] once the database can be written.
func New(d Deps) (*Service, error) {
	s := &Service{deps: d, drivers: map[string]driver.Driver{}, open: map[string]*handle{}}
	for _, drv := range d.Drivers {
		s.drivers[drv.Info().Name] = drv
	}
	s.pools = state.NewTable[poolRecord](d.State, "pools", 1)
	s.volumes = state.NewTable[volumeRecord](d.State, "volumes", 1)
	for sub, mode := range map[string]os.FileMode{"storage-pools": 0o711, "disks": 0o700} {
		if err := os.MkdirAll(filepath.Join(d.Dir, sub), mode); err != nil {
			return nil, fmt.Errorf("storage: %w", err)
		}
	}
	return s, nil
}

// Recover finishes or undoes what a crash cut off. It tries everything and returns what could not be done now; that is
// tried again at the next start. Safe to call again.
func (s *Service) Recover(ctx context.Context) error {
	var all []error
	for _, it := range s.pools.List("") {
		if it.Value.Phase == "" {
			continue
		}
		name, err := api.ParsePoolName(state.SplitKey(it.Key)[0])
		if err == nil {
			err = s.destroyPool(ctx, name, it.Value)
		}
		all = append(all, err)
	}
	for _, it := range s.volumes.List("") {
		if it.Value.Phase == "" && it.Value.RenameFrom == "" {
			continue
		}
		if err := s.recoverVolume(ctx, it); err != nil {
			all = append(all, fmt.Errorf("recover volume %s: %w", it.Key, err))
		}
	}
	return errors.Join(all...)
}

// Close lets go of all pools. They stay mounted: instances run on.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for name, h := range s.open {
		h.mu.Lock()
		if h.pool != nil {
			all = append(all, h.pool.Close())
			h.pool = nil
		}
		h.mu.Unlock()
		delete(s.open, name)
	}
	return errors.Join(all...)
}

func (s *Service) spec(name api.PoolName, config api.Config) driver.Spec {
	return driver.Spec{
		Name: name, Config: config,
		Path: filepath.Join(s.deps.Dir, "storage-pools", name.String()),
		Disk: filepath.Join(s.deps.Dir, "disks", name.String()+".img"),
	}
}

func (s *Service) handle(name api.PoolName) *handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.open[name.String()]
	if h == nil {
		h = &handle{}
		s.open[name.String()] = h
	}
	return h
}

// use calls f with the open pool, opening it first where needed. The pool stays open while f runs.
func (s *Service) use(ctx context.Context, name api.PoolName, f func(driver.Pool) error) error {
	for {
		h := s.handle(name)
		h.mu.RLock()
		if h.pool != nil {
			defer h.mu.RUnlock()
			return f(h.pool)
		}
		h.mu.RUnlock()
		if err := s.openPool(ctx, name, h); err != nil {
			return err
		}
	}
}

func (s *Service) openPool(ctx context.Context, name api.PoolName, h *handle) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pool != nil {
		return nil
	}
	it, err := s.poolItem(name)
	if err != nil {
		return err
	}
	if it.Value.Phase != "" {
		return errs.Unavailable("storage pool %q is not ready: %s", name, it.Value.Phase)
	}
	drv, err := s.driver(it.Value.Driver)
	if err != nil {
		return err
	}
	h.pool, h.why = drv.Open(ctx, s.spec(name, it.Value.Config))
	if h.why != nil {
		h.pool = nil
		s.deps.Logger.Warn("storage pool unavailable", "pool", name.String(), "err", h.why)
		return errs.Unavailable("storage pool %q unavailable on this server: %w", name, h.why)
	}
	return nil
}

func (s *Service) driver(name string) (driver.Driver, error) {
	if d, ok := s.drivers[name]; ok {
		return d, nil
	}
	known := make([]string, 0, len(s.deps.Drivers))
	for _, d := range s.deps.Drivers {
		known = append(known, d.Info().Name)
	}
	return nil, errs.Invalid("unknown storage driver %q; this server has %v", name, known)
}

// Drivers describes the drivers, for GET /1.0.
func (s *Service) Drivers() []driver.Info {
	out := make([]driver.Info, 0, len(s.deps.Drivers))
	for _, d := range s.deps.Drivers {
		out = append(out, d.Info())
	}
	return out
}

func (s *Service) poolItem(name api.PoolName) (state.Item[poolRecord], error) {
	it, err := s.pools.Get(state.Key(name.String()))
	if errs.IsNotFound(err) {
		return it, errs.NotFound("Storage pool not found")
	}
	return it, err
}
