package allocator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// keep sees to it that what this node uses exists: from time to time, when a lease was lost, and when a record in use was seen
// to vanish.
func (a *Allocator) keep() {
	const first = 20 * time.Millisecond
	back := first
	tick := time.NewTicker(a.cfg.SyncInterval)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-a.ctx.Done():
			return
		case <-a.cfg.Backend.Lost():
			a.cfg.Log.Warn("a lease of this node was lost, writing all references again")
			all = true
		case <-tick.C:
			a.pool.Cool()
			all = true
		case <-a.sync:
		}
		if err := a.restore(a.ctx, a.toRestore(all)); err != nil {
			if a.ctx.Err() != nil {
				return
			}
			a.cfg.Log.Warn("references cannot be checked, trying again", "err", err, "retry", back)
			a.pause(back/2 + rand.N(back))
			back = min(back*2, 5*time.Second)
			continue
		}
		back = first
	}
}

// Sync checks now that everything this node uses exists, and puts back what does not.
func (a *Allocator) Sync(ctx context.Context) error {
	ctx, done := a.join(ctx)
	defer done()
	return a.ended(a.restore(ctx, a.toRestore(true)))
}

func (a *Allocator) toRestore(all bool) []Record {
	a.mu.Lock()
	var out, gone []Record
	for key, e := range a.held {
		_, suspect := a.suspects[key]
		if all && e.task != nil {
			e.shaky = true
		}
		if e.refs > 0 && (all || suspect) {
			out = append(out, e.rec)
			delete(a.suspects, key)
		}
	}
	for key, r := range a.suspects {
		if a.held[key] == nil {
			gone = append(gone, r)
			delete(a.suspects, key)
		}
	}
	a.mu.Unlock()
	a.forget(gone) // released before it could be put back
	return out
}

// restore has the backend look at the records. A key may be released meanwhile, and its reference written again after it was
// deleted: those are released once more.
func (a *Allocator) restore(ctx context.Context, recs []Record) error {
	for from := 0; from < len(recs); from += a.cfg.MaxBatch {
		chunk := recs[from:min(from+a.cfg.MaxBatch, len(recs))]
		end := a.m.begin("restore")
		answers, err := a.cfg.Backend.Restore(ctx, chunk)
		end(err)
		a.mu.Lock()
		for i, r := range chunk {
			if err == nil {
				a.restored(r, answers[i])
			}
			a.released(r.Key)
		}
		if err != nil {
			for _, r := range recs[from:] {
				a.suspects[r.Key] = r
			}
			select {
			case a.sync <- struct{}{}:
			default:
			}
			a.mu.Unlock()
			return fmt.Errorf("restore %d references: %w", len(recs)-from, err)
		}
		a.mu.Unlock() // the cache hears of it from the watch: by now the record may be gone again
	}
	return nil
}

// restored takes the backend's word on one record. The caller holds the mutex.
func (a *Allocator) restored(r Record, c Claimed) {
	e := a.held[r.Key]
	if e == nil || e.refs == 0 || e.rec.ID != r.ID {
		return
	}
	if c.State != Done {
		a.stats.Conflicts++
		a.m.count("conflict", 1)
		a.cfg.Log.Error("an id in use here belongs to somebody else in the store, which must have lost data",
			"key", r.Key, "id", uint64(r.ID), "now_key", c.Key, "now_id", uint64(c.ID))
		return
	}
	if c.Rev != e.rec.Rev {
		e.rec = c.Record
		a.stats.Restored++
		a.m.count("restored", 1)
	}
}

// released deletes the reference that a restore may have written although the key is not in use any more. The caller
// holds the mutex.
func (a *Allocator) released(key string) {
	e := a.held[key]
	switch {
	case e == nil:
		e = &entry{key: key}
		a.held[key] = e
		a.start(e, &task{release: true, done: make(chan struct{})})
	case e.task != nil && e.task.release:
		e.task.twice = true
	}
}
