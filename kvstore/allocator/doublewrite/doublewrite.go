// Package doublewrite keeps the records of an allocator in two stores, to move from one to the other while ids are in use.
//
// The primary decides: it is written first and its answer counts. The shadow follows from a set of keys that it has not caught up with, so
// it may be slow or away without anybody waiting. To move, run with the old store as primary until [Compare] finds no difference on
// any node's shadow, then exchange the two, then leave the old one away; each step can be taken back. Records come into the shadow
// when a node that uses them restores its references, which every allocator does from time to time. Each store has its own collector.
package doublewrite

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore/allocator"
)

// Config is what a Backend needs. Primary and Shadow have no default; they stay their owner's to close.
type Config struct {
	Primary, Shadow allocator.Backend
	// Strict writes the shadow before a claim is answered; when that fails the claim does, and its reference in the primary is given up.
	Strict bool
	Log    *slog.Logger
}

// Backend implements allocator.Backend. Watch follows the primary, whose revisions claims carry.
type Backend struct {
	cfg        Config
	readShadow atomic.Bool
	ctx        context.Context
	cancel     context.CancelFunc
	done       chan struct{}
	wake       chan struct{}

	mu        sync.Mutex
	dirty     map[string]allocator.Record // what the shadow has not been told; ID 0: released
	busy      bool                        // a part of it is on its way
	conflicts int64
}

var _ allocator.Backend = (*Backend)(nil)

// New returns a backend that follows with the shadow in the background.
func New(cfg Config) (*Backend, error) {
	if cfg.Primary == nil || cfg.Shadow == nil {
		return nil, errs.Invalid("double writing needs two stores")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg, done: make(chan struct{}), wake: make(chan struct{}, 1), dirty: map[string]allocator.Record{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	go b.follow()
	return b, nil
}

// Close stops following. What the shadow has not been told is told by the next restore.
func (b *Backend) Close() { b.cancel(); <-b.done }

// ReadShadow has Get and GetByID ask the shadow, or the primary again.
func (b *Backend) ReadShadow(on bool) { b.readShadow.Store(on) }

func (b *Backend) reader() allocator.Backend {
	if b.readShadow.Load() {
		return b.cfg.Shadow
	}
	return b.cfg.Primary
}

// Get implements allocator.Backend.
func (b *Backend) Get(ctx context.Context, key string) (allocator.Record, bool, error) {
	return b.reader().Get(ctx, key)
}

// GetByID implements allocator.Backend.
func (b *Backend) GetByID(ctx context.Context, id allocator.ID) (allocator.Record, bool, error) {
	return b.reader().GetByID(ctx, id)
}

// Watch implements allocator.Backend.
func (b *Backend) Watch(ctx context.Context, fn func(allocator.Batch) error) error {
	return b.cfg.Primary.Watch(ctx, fn)
}

// Lost implements allocator.Backend. A lease that is lost in the shadow is noticed by the next restore.
func (b *Backend) Lost() <-chan struct{} { return b.cfg.Primary.Lost() }

// Claim implements allocator.Backend.
func (b *Backend) Claim(ctx context.Context, claims []allocator.Claim) ([]allocator.Claimed, error) {
	out, err := b.cfg.Primary.Claim(ctx, claims)
	if err != nil {
		return nil, err
	}
	if b.cfg.Strict {
		if err := b.both(ctx, out); err != nil {
			return nil, err
		}
		return out, nil
	}
	b.mark(out)
	return out, nil
}

// both writes the shadow, and gives up in the primary what it did not take.
func (b *Backend) both(ctx context.Context, out []allocator.Claimed) error {
	var recs []allocator.Record
	var keys []string
	for _, c := range out {
		if c.State == allocator.Done {
			recs, keys = append(recs, c.Record), append(keys, c.Key)
		}
	}
	if len(recs) == 0 {
		return nil
	}
	answers, err := b.cfg.Shadow.Restore(ctx, recs)
	for i := range answers {
		if answers[i].State != allocator.Done {
			err = errs.Conflict("the shadow has id %d for key %.40q, the primary %d for %.40q", answers[i].ID, answers[i].Key, recs[i].ID, recs[i].Key)
			b.count(1)
		}
	}
	if err == nil {
		return nil
	}
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if rerr := b.cfg.Primary.Release(rctx, keys); rerr != nil {
		err = fmt.Errorf("%w (and the references stay in the primary until their lease ends: %v)", err, rerr)
	}
	b.release(keys) // what of them the shadow took
	return fmt.Errorf("write the shadow: %w", err)
}

// Restore implements allocator.Backend.
func (b *Backend) Restore(ctx context.Context, held []allocator.Record) ([]allocator.Claimed, error) {
	out, err := b.cfg.Primary.Restore(ctx, held)
	b.mark(out)
	return out, err
}

// Release implements allocator.Backend.
func (b *Backend) Release(ctx context.Context, keys []string) error {
	err := b.cfg.Primary.Release(ctx, keys)
	if err == nil {
		b.release(keys)
	}
	return err
}

func (b *Backend) mark(cs []allocator.Claimed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range cs {
		if c.State == allocator.Done {
			b.dirty[c.Key] = c.Record
		}
	}
	b.poke()
}

func (b *Backend) release(keys []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		b.dirty[key] = allocator.Record{Key: key}
	}
	b.poke()
}

func (b *Backend) count(n int64) { b.mu.Lock(); b.conflicts += n; b.mu.Unlock() }

func (b *Backend) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Dirty is the number of keys that the shadow has not caught up with, Conflicts that of records which it could not take.
func (b *Backend) Dirty() (dirty int, conflicts int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.dirty); n > 0 || !b.busy {
		return n, b.conflicts
	}
	return 1, b.conflicts
}

// follow tells the shadow what it has not been told, one batch at a time, so that of one key nothing overtakes.
func (b *Backend) follow() {
	defer close(b.done)
	const first = 20 * time.Millisecond
	back := first
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.wake:
		}
		err := b.step()
		if err == nil {
			back = first
			continue
		}
		b.cfg.Log.Warn("the shadow cannot be written, trying again", "err", err, "retry", back)
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)):
		}
		back = min(back*2, 5*time.Second)
	}
}

func (b *Backend) step() error {
	b.mu.Lock()
	todo := b.dirty
	b.dirty, b.busy = map[string]allocator.Record{}, true
	b.mu.Unlock()
	var held []allocator.Record
	var gone []string
	for key, r := range todo {
		if r.ID == 0 {
			gone = append(gone, key)
		} else {
			held = append(held, r)
		}
	}
	err := b.cfg.Shadow.Release(b.ctx, gone)
	var answers []allocator.Claimed
	if err == nil {
		answers, err = b.cfg.Shadow.Restore(b.ctx, held)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	for i, c := range answers {
		if c.State != allocator.Done {
			b.conflicts++
			b.cfg.Log.Error("the shadow has another record", "key", held[i].Key, "id", uint64(held[i].ID), "shadow_key", c.Key, "shadow_id", uint64(c.ID))
		}
	}
	if err == nil {
		return nil
	}
	for key, r := range todo {
		if _, newer := b.dirty[key]; !newer {
			b.dirty[key] = r
		}
	}
	b.poke()
	return err
}

// Lister lists records; *allocator.KV does.
type Lister interface {
	List(ctx context.Context, each func([]allocator.Record) error) error
}

// Report is the difference of two stores. The examples are keys, sorted, at most 20 of each kind.
type Report struct {
	Same, OnlyPrimary, OnlyShadow, Different int
	Examples                                 []string
}

// Clean says that the shadow could take over.
func (r Report) Clean() bool { return r.OnlyPrimary+r.Different == 0 }

// Compare lists both stores. They change while they are read: only what stays in a second report is a difference.
func Compare(ctx context.Context, primary, shadow Lister) (Report, error) {
	have := map[string]allocator.ID{}
	err := primary.List(ctx, func(rs []allocator.Record) error {
		for _, r := range rs {
			have[r.Key] = r.ID
		}
		return nil
	})
	if err != nil {
		return Report{}, fmt.Errorf("list the primary: %w", err)
	}
	var rep Report
	var different, onlyShadow, onlyPrimary []string
	err = shadow.List(ctx, func(rs []allocator.Record) error {
		for _, r := range rs {
			switch id, ok := have[r.Key]; {
			case !ok:
				onlyShadow = append(onlyShadow, r.Key)
			case id != r.ID:
				different = append(different, r.Key)
			default:
				rep.Same++
			}
			delete(have, r.Key)
		}
		return nil
	})
	if err != nil {
		return Report{}, fmt.Errorf("list the shadow: %w", err)
	}
	for key := range have {
		onlyPrimary = append(onlyPrimary, key)
	}
	rep.Different, rep.OnlyShadow, rep.OnlyPrimary = len(different), len(onlyShadow), len(onlyPrimary)
	for _, keys := range [][]string{different, onlyShadow, onlyPrimary} {
		sort.Strings(keys)
		rep.Examples = append(rep.Examples, keys[:min(len(keys), 20)]...)
	}
	return rep, nil
}
