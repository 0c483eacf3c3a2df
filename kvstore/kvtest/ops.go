package kvtest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

func updateIfDifferent(e *env) {
	ctx := e.Context()
	id, err := e.c.Grant(ctx, 10*time.Second)
	e.must(err)
	var last int64
	for _, tt := range []struct {
		name, value string
		lease       kvstore.LeaseID
		want        bool
	}{
		{"a missing key", "1", 0, true}, {"the same", "1", 0, false}, {"another value", "2", 0, true},
		{"under a lease", "2", id, true}, {"under the same lease", "2", id, false}, {"off the lease", "2", 0, true},
	} {
		changed, rev, err := e.c.UpdateIfDifferent(ctx, "a", []byte(tt.value), tt.lease)
		if changed != tt.want || err != nil || tt.want != (rev > last) || !tt.want && rev != last {
			e.Errorf("%s: %v at %d after %d, %v", tt.name, changed, rev, last, err)
		}
		last = rev
	}
	_, err = e.b.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Delete("n")}})
	e.must(err)
	var wg sync.WaitGroup
	for i := range 8 { // all want one of two values: each write must have changed something
		wg.Go(func() {
			if _, _, err := e.c.UpdateIfDifferent(ctx, "n", fmt.Append(nil, i%2), 0); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
}

func updateIfUnchanged(e *env) {
	ctx := e.Context()
	rev := e.put("a", "1")
	if changed, got, err := e.c.UpdateIfUnchanged(ctx, "a", rev, []byte("2"), 0); !changed || got != rev+1 || err != nil {
		e.Errorf("%v at %d, %v", changed, got, err)
	}
	if changed, _, err := e.c.UpdateIfUnchanged(ctx, "a", rev, []byte("3"), 0); changed || !errors.Is(err, kvstore.ErrConflict) || !errs.IsConflict(err) {
		e.Errorf("changed meanwhile: %v %v", changed, err)
	}
	if changed, _, err := e.c.UpdateIfUnchanged(ctx, "b", rev, nil, 0); changed || !errors.Is(err, kvstore.ErrNotFound) || !errs.IsNotFound(err) {
		e.Errorf("gone meanwhile: %v %v", changed, err)
	}
}

// ifLocked runs every operation with a lock that is held and with one that was lost.
func ifLocked(e *env) {
	ctx := e.Context()
	l, err := e.c.Lock(ctx, "locks/x", max(e.minTTL, 10*time.Second))
	e.must(err)
	held := l.Held()
	for _, op := range []struct {
		name string
		do   func() (bool, error)
	}{
		{"create", func() (bool, error) { ok, _, err := e.c.CreateOnly(ctx, "p/a", nil, 0, held); return ok, err }},
		{"update", func() (bool, error) { ok, _, err := e.c.Update(ctx, "p/b", []byte("1"), 0, held); return ok, err }},
		{"update if different", func() (bool, error) {
			ok, _, err := e.c.UpdateIfDifferent(ctx, "p/b", []byte("2"), 0, held)
			return ok, err
		}},
		{"get", func() (bool, error) {
			kv, ok, err := e.c.Get(ctx, "p/b", held)
			return ok && string(kv.Value) == "2", err
		}},
		{"list", func() (bool, error) {
			kvs, h, err := e.c.ListPrefix(ctx, "p/", held)
			return len(kvs) == 2 && h.Revision == kvs[1].ModRevision, err
		}},
		{"remove", func() (bool, error) { ok, _, err := e.c.Remove(ctx, "p/b", held); return ok, err }},
		{"remove prefix", func() (bool, error) { n, _, err := e.c.RemovePrefix(ctx, "p/", held); return n == 1, err }},
	} {
		if ok, err := op.do(); !ok || err != nil {
			e.Errorf("%s under a lock: %v %v", op.name, ok, err)
		}
	}
	e.put("p/a", "")
	e.put("p/b", "")
	if ok, _, err := e.c.CreateOnly(ctx, "p/a", nil, 0, held); ok || err != nil {
		e.Errorf("create what exists, under a lock: %v %v", ok, err)
	}
	_, _, err = e.c.RemovePrefix(ctx, "locks/")
	e.must(err)
	before, err := e.c.Head(ctx)
	e.must(err)
	for name, do := range map[string]func() error{
		"create existing":     func() error { _, _, err := e.c.CreateOnly(ctx, "p/a", nil, 0, held); return err },
		"create":              func() error { _, _, err := e.c.CreateOnly(ctx, "p/c", nil, 0, held); return err },
		"update":              func() error { _, _, err := e.c.Update(ctx, "p/a", nil, 0, held); return err },
		"update if different": func() error { _, _, err := e.c.UpdateIfDifferent(ctx, "p/a", nil, 0, held); return err },
		"update if unchanged": func() error { _, _, err := e.c.UpdateIfUnchanged(ctx, "p/a", 1, nil, 0, held); return err },
		"get":                 func() error { _, _, err := e.c.Get(ctx, "p/a", held); return err },
		"list":                func() error { _, _, err := e.c.ListPrefix(ctx, "p/", held); return err },
		"remove":              func() error { _, _, err := e.c.Remove(ctx, "p/a", held); return err },
		"remove prefix":       func() error { _, _, err := e.c.RemovePrefix(ctx, "p/", held); return err },
	} {
		if err := do(); !errors.Is(err, kvstore.ErrLockLost) {
			e.Errorf("%s under a lost lock: %v", name, err)
		}
	}
	if after, err := e.c.Head(ctx); err != nil || after.Revision != before.Revision {
		e.Errorf("a lost lock wrote: revision %d, before %d, %v", after.Revision, before.Revision, err)
	}
	e.must(l.Unlock(ctx))
}
