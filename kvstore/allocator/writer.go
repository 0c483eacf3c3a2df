package allocator

import (
	"context"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// writers is how many batches are under way at a time: while one waits for the store, the next one is collected by those who call.
// There is no timer: what is queued when a writer is free goes.
const writers = 2

// start gives an entry a task. The caller holds the mutex.
func (a *Allocator) start(e *entry, t *task) {
	e.task, e.attempts, e.ask, e.stale = t, 0, Record{}, false
	a.enqueue(e)
}

func (a *Allocator) enqueue(es ...*entry) {
	a.queue = append(a.queue, es...)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// write carries tasks to the backend until the allocator is closed.
func (a *Allocator) write() {
	const first = 10 * time.Millisecond
	back := first
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-a.wake:
		}
		runtime.Gosched() // who was answered just now and wants something else comes along
		claims, releases := a.take()
		err := a.release(releases)
		if e := a.claim(claims); e != nil {
			err = e
		}
		if err == nil {
			back = first
			continue
		}
		a.cfg.Log.Warn("ids cannot be written, trying again", "err", err, "retry", back)
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(back/2 + rand.N(back)):
		}
		back = min(back*2, 2*time.Second)
	}
}

// take removes a batch from the queue.
func (a *Allocator) take() (claims, releases []*entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.queue), a.cfg.MaxBatch)
	for _, e := range a.queue[:n] {
		if e.task.release {
			releases = append(releases, e)
		} else {
			claims = append(claims, e)
		}
	}
	if a.queue = a.queue[n:]; len(a.queue) > 0 {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	} else {
		a.queue = nil
	}
	return claims, releases
}

// release deletes references. It is repeated until it succeeds: nothing but the end of the lease would delete them else.
func (a *Allocator) release(es []*entry) error {
	if len(es) == 0 {
		return nil
	}
	keys := make([]string, len(es))
	for i, e := range es {
		keys[i] = e.key
	}
	err := a.cfg.Backend.Release(a.ctx, keys)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range es {
		if err != nil || e.task.twice {
			e.task.twice = false
			a.enqueue(e)
			continue
		}
		a.m.count("released", 1)
		close(e.task.done)
		if e.then == nil {
			delete(a.held, e.key)
			continue
		}
		next := e.then
		e.then = nil
		a.start(e, next)
	}
	return err
}

// claim asks for references, with ids from the pool for the keys that have no record yet.
func (a *Allocator) claim(es []*entry) error {
	if len(es) == 0 {
		return nil
	}
	asked, claims := a.propose(es)
	if len(asked) == 0 {
		return nil
	}
	answers, err := a.cfg.Backend.Claim(a.ctx, claims)
	if err != nil {
		for _, c := range claims {
			a.giveBack(c)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, e := range asked {
			a.failed(e, err)
		}
		return err
	}
	for i, r := range answers {
		if r.State != Gone {
			a.cache.put(r.Record)
		}
		a.giveBack(claims[i])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, e := range asked {
		a.answered(e, claims[i], answers[i])
	}
	return nil
}

// propose says for each key what to ask the backend for. Keys for which there is nothing to ask fail.
func (a *Allocator) propose(es []*entry) (asked []*entry, claims []Claim) {
	for _, e := range es {
		a.mu.Lock()
		rec, known := e.ask, e.ask.Rev != 0
		stale := e.stale
		a.mu.Unlock()
		if !known && !stale {
			rec, known = a.cache.key("", e.key)
		}
		if !known {
			id, ok := a.pool.Lease()
			if !ok {
				a.mu.Lock()
				a.settle(e, Record{}, false, ErrNoID)
				a.mu.Unlock()
				continue
			}
			rec = Record{ID: id | a.cfg.PrefixMask}
		}
		asked = append(asked, e)
		claims = append(claims, Claim{Key: e.key, ID: rec.ID, Rev: rec.Rev})
	}
	return asked, claims
}

// giveBack ends the lease of a claim's id from the pool.
func (a *Allocator) giveBack(c Claim) {
	if c.Rev == 0 {
		a.cache.giveBack(c.ID)
	}
}

// answered takes the backend's word on a claim. The caller holds the mutex.
func (a *Allocator) answered(e *entry, c Claim, r Claimed) {
	switch r.State {
	case Done:
		a.settle(e, r.Record, c.Rev == 0, nil)
		return
	case Taken:
		e.ask = r.Record
	case Gone, IDTaken:
		e.ask, e.stale = Record{}, r.State == Gone
	}
	a.again(e, errs.Busy("other nodes changed the record %d times meanwhile", e.attempts+1))
}

// failed deals with a claim whose outcome is unknown, or that the backend refused. The caller holds the mutex.
func (a *Allocator) failed(e *entry, err error) {
	if !errs.Is(err, errs.UnavailableClass) || a.ctx.Err() != nil {
		e.attempts = a.cfg.MaxAttempts
	}
	a.again(e, err)
}

// again tries a claim once more, if anybody still waits for it.
func (a *Allocator) again(e *entry, err error) {
	if e.attempts++; e.attempts >= a.cfg.MaxAttempts || e.task.waiters == 0 {
		a.settle(e, Record{}, false, err)
		return
	}
	a.enqueue(e)
}

// settle ends a claim. A reference that nobody wants any more, or that may have been written by a call whose answer was lost, is
// deleted. The caller holds the mutex.
func (a *Allocator) settle(e *entry, rec Record, isNew bool, err error) {
	t := e.task
	t.rec, t.isNew, t.err = rec, isNew, err
	close(t.done)
	if err == nil && t.waiters > 0 {
		e.task, e.rec, e.refs = nil, rec, t.waiters
		if e.shaky {
			e.shaky = false
			a.suspect(rec)
		}
		return
	}
	if err != nil && e.attempts == 0 { // nothing was sent
		delete(a.held, e.key)
		return
	}
	a.start(e, &task{release: true, done: make(chan struct{})})
}

// follow feeds cache and pool until the allocator is closed.
func (a *Allocator) follow() {
	first := true
	for a.ctx.Err() == nil {
		if !first {
			a.cache.begin("")
		}
		err := a.cfg.Backend.Watch(a.ctx, func(b Batch) error {
			if b.Reset {
				a.cache.begin("")
			}
			b = a.validate("", b)
			a.cache.apply("", b, a.protect)
			if b.ListDone && first {
				first = false
				close(a.listed)
			}
			return nil
		})
		if a.ctx.Err() != nil {
			return
		}
		a.cfg.Log.Warn("watch of ids ended, starting again", "err", err)
		a.pause(time.Second)
	}
}

// forget takes records out of the cache that were protected and are not in use any more.
func (a *Allocator) forget(gone []Record) {
	if len(gone) > 0 {
		a.cache.apply("", Batch{Deleted: gone}, func(Record) bool { return false })
	}
}

func (a *Allocator) pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(a.ctx, d)
	defer cancel()
	<-ctx.Done()
}

// validate leaves out what the validators refuse.
func (a *Allocator) validate(source string, b Batch) Batch {
	if len(a.cfg.Validators) == 0 {
		return b
	}
	ok := b.Updated[:0:0]
next:
	for _, r := range b.Updated {
		for _, v := range a.cfg.Validators {
			if err := v(source, r.ID, r.Key); err != nil {
				a.cfg.Log.Warn("record refused", "source", source, "id", uint64(r.ID), "err", err)
				continue next
			}
		}
		ok = append(ok, r)
	}
	b.Updated = ok
	return b
}

// protect keeps what this node uses in the cache although it was deleted from the store, and has it put back.
func (a *Allocator) protect(r Record) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.held[r.Key]
	if e == nil || e.refs == 0 || e.rec.ID != r.ID || e.rec.Rev > r.Rev {
		return false
	}
	a.suspect(r)
	return true
}

// suspect has the keeper look at a record. The caller holds the mutex.
func (a *Allocator) suspect(r Record) {
	a.suspects[r.Key] = r
	select {
	case a.sync <- struct{}{}:
	default:
	}
}
