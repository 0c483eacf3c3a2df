package store

import (
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// SyncConfig is what a SyncStore needs. Client and Prefix have no default.
type SyncConfig struct {
	Client *kvstore.Client
	Prefix string // ends with a slash; the key of a value is Prefix and its name
	// Canary is the whole key that Synced writes; "" when Synced is not used. See Manager.
	Canary string
	// TTL is how long the keys live on after this process; 0 means 15 minutes. With NoLease they live for ever.
	TTL     time.Duration
	NoLease bool
	Workers int // transactions under way at a time; 0 means 2
	// MaxBatch is how many keys are written together; 0 means 128, which every etcd takes. When the store takes fewer, so many are.
	MaxBatch int
	// Metrics says where writes are measured, under the prefix's kvstore.Scope; nil costs nothing. Stores may share it.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

func (c *SyncConfig) fill() error {
	if c.Client == nil {
		return errs.Invalid("a store needs a client")
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return err
	}
	if strings.HasPrefix(c.Canary, c.Prefix) {
		return errs.Invalid("canary %q: it must not be one of the values under %q", c.Canary, c.Prefix)
	}
	if c.TTL <= 0 {
		c.TTL = 15 * time.Minute
	}
	if c.Workers <= 0 {
		c.Workers = 2
	}
	if c.MaxBatch <= 0 {
		c.MaxBatch = 128
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func checkPrefix(p string) error {
	if !strings.HasSuffix(p, "/") {
		return errs.Invalid("prefix %q: it must end with a slash", p)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return errs.Invalid("name %.40q: 1 to %d bytes are allowed", name, MaxName)
	}
	return nil
}
