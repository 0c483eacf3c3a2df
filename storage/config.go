package storage

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/storage/driver"
)

// PoolKeys returns the configuration keys of pools of a driver; errs.InvalidInput for a driver that is not there.
func (s *Service) PoolKeys(name string) (*schema.Table, error) {
	drv, err := s.driver(name)
	if err != nil {
		return nil, err
	}
	return poolKeys(drv), nil
}

func poolKeys(drv driver.Driver) *schema.Table {
	return schema.New("", append(drv.Keys(),
		schema.Key{Name: "volume.size", Type: schema.Size(), Doc: "size of new volumes that name none"},
		schema.Key{Name: "rsync.bwlimit", Type: schema.Size(), Live: true, Doc: "bytes a second at most for copies to other servers; kept for clients, copies are not made yet"},
		schema.Key{Name: "rsync.compression", Type: schema.Bool(), Default: "true", Live: true, Doc: "whether copies to other servers are compressed; kept for clients"},
		schema.Key{Name: "volatile.initial_source", Type: schema.String(), Internal: true, Doc: "the source that the pool was created with"},
		schema.Key{Name: "user.*", Type: schema.Text(1 << 20), Live: true, Doc: "free for users"},
	)...)
}

// checkChange refuses what a client may not write: unknown keys, bad values, keys of the daemon. before is nil for a
// new pool.
func checkChange(drv driver.Driver, before, after api.Config) error {
	if err := poolKeys(drv).ValidateChange(before, after, ""); err != nil {
		return errs.Invalid("storage pool of driver %q: %v", drv.Info().Name, err)
	}
	return nil
}

// dropEmpty returns the configuration without keys that have no value: that is how clients unset them.
func dropEmpty(c api.Config) api.Config {
	out := api.Config{}
	for k, v := range c {
		if v != "" {
			out[k] = v
		}
	}
	return out
}
