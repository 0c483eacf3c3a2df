package allocator

import (
	"log/slog"
	"math/bits"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-project/shoal/internal/errs"
)

// Errors that callers may want to tell from others.
var (
	ErrNoID   = errs.NoSpace("no free id is left in the range")
	ErrClosed = errs.Unavailable("the allocator is closed")
)

// Validator refuses a record of somebody else, for instance an id outside of a remote cluster's range. What it refuses is left out.
type Validator func(source string, id ID, key string) error

// Config is what an allocator needs. Backend has no default.
type Config struct {
	Backend Backend
	// Min and Max are the first and the last id to give out; 0 means 1 and 65535.
	Min, Max ID
	// PrefixMask is set in each id that is given out; its bits are clear in all ids from Min to Max.
	PrefixMask ID
	Validators []Validator
	// SyncInterval is how often it is checked that nothing of what this node uses got lost; 0 means 5 minutes.
	SyncInterval time.Duration
	// MaxAttempts bounds how often an allocation is tried; 0 means 16.
	MaxAttempts int
	// MaxBatch bounds what is written together; 0 means 128 allocations.
	MaxBatch int
	// Metrics says where calls are measured, under Scope, "" being "ids"; nil costs nothing. Allocators may share both.
	Metrics prometheus.Registerer
	Scope   string
	Log     *slog.Logger
}

func (c *Config) fill() error {
	if c.Backend == nil {
		return errs.Invalid("an allocator needs a backend")
	}
	if c.Min == 0 {
		c.Min = 1
	}
	if c.Max == 0 {
		c.Max = 1<<16 - 1
	}
	if low := ID(1)<<bits.Len64(uint64(c.Max)) - 1; c.PrefixMask&low != 0 {
		return errs.Invalid("prefix mask %#x overlaps ids up to %#x: its low %d bits must be clear", uint64(c.PrefixMask), uint64(c.Max), bits.Len64(uint64(c.Max)))
	}
	if c.SyncInterval <= 0 {
		c.SyncInterval = 5 * time.Minute
	}
	if c.MaxAttempts <= 0 {
		c.MaxAttempts = 16
	}
	if c.MaxBatch <= 0 {
		c.MaxBatch = 128
	}
	if c.Scope == "" {
		c.Scope = "ids"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
