package allocator

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// CollectorConfig is what a collector needs. KV has no default.
type CollectorConfig struct {
	KV *KV
	// Min and Max bound the ids that it may collect, with the prefix mask in them; 0 means no bound. Others belong to somebody else.
	Min, Max ID
	// Rate is how many records are collected per second; 0 means no limit.
	Rate float64
	// Metrics and Scope are those of Config.
	Metrics prometheus.Registerer
	Scope   string
	Log     *slog.Logger
}

// Collector deletes records that nobody refers to. It needs no lock: two of them, or one that was taken for dead, do no harm.
//
// A record is deleted in the second round in which it is seen unused and unchanged, so between two rounds a node that uses a key only now
// and then finds it again. The rounds are the caller's: every quarter of an hour, on one node, will do.
type Collector struct {
	cfg   CollectorConfig
	limit *rate.Limiter
	m     *metrics
	seen  map[string]int64 // path of the record or id → ModRevision, as it was when it was seen unused
}

// CollectStats is what one round did.
type CollectStats struct {
	Alive   int // records in use
	Waiting int // unused, to be deleted in the next round
	Deleted int
	Saved   int // were to be deleted and came into use meanwhile
	Foreign int // out of range
}

// NewCollector returns a collector that has seen nothing yet.
func NewCollector(cfg CollectorConfig) (*Collector, error) {
	if cfg.KV == nil {
		return nil, errs.Invalid("a collector needs a store")
	}
	if cfg.Max == 0 {
		cfg.Max = ^ID(0)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Scope == "" {
		cfg.Scope = "ids"
	}
	c := &Collector{cfg: cfg, seen: map[string]int64{}}
	var err error
	if c.m, err = newMetrics(cfg.Metrics, cfg.Scope); err != nil {
		cfg.Log.Error("the collector's metrics cannot be registered", "err", err)
	}
	if cfg.Rate > 0 {
		c.limit = rate.NewLimiter(rate.Limit(cfg.Rate), max(int(cfg.Rate), 1))
	}
	return c, nil
}

// victim is something to delete: a record with its id, or an id alone that no record has.
type victim struct {
	Record
	idRev  int64 // 0: there is no such id record of this key
	orphan bool
	keyRev int64 // of an orphan: of the record that the key has instead, 0 for none
}

// Run does one round. It is not safe for concurrent use. After an error the next round goes on where this one stopped.
func (c *Collector) Run(ctx context.Context) (CollectStats, error) {
	end := c.m.begin("collect")
	s, err := c.round(ctx)
	end(err)
	c.m.count("collected", s.Deleted)
	c.m.count("saved", s.Saved)
	return s, err
}

func (c *Collector) round(ctx context.Context) (CollectStats, error) {
	var s CollectStats
	all, err := c.unused(ctx, &s)
	if err != nil {
		return s, err
	}
	var due []victim
	now := make(map[string]int64, len(all))
	for _, v := range all {
		path, rev := c.cfg.KV.key(v.Key), v.Rev
		if v.orphan {
			path, rev = c.cfg.KV.id(v.ID), v.idRev
		}
		if c.seen[path] == rev {
			due = append(due, v)
		} else {
			s.Waiting++
		}
		now[path] = rev
	}
	c.seen = now // what is deleted below leaves the next list; what is not is due in the next round
	err = c.deleteAll(ctx, due, &s)
	return s, wrap("collect unused ids", err)
}

// deleteAll has a few transactions under way at a time: while the store works on one, the next is made.
func (c *Collector) deleteAll(ctx context.Context, due []victim, s *CollectStats) error {
	const (
		perVictim = 3 // compares at most
		flying    = 3
	)
	var deleted, saved atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(flying)
	for from := 0; from < len(due) && gctx.Err() == nil; {
		to := c.cfg.KV.chunk(from, len(due), perVictim, func(i int) int { return len(due[i].Key) })
		part := due[from:to]
		from = to
		g.Go(func() error {
			if err := c.wait(gctx, len(part)); err != nil {
				return err
			}
			return c.delete(gctx, part, perVictim, &deleted, &saved)
		})
	}
	err := g.Wait()
	if err == nil {
		err = ctx.Err()
	}
	s.Deleted, s.Saved = int(deleted.Load()), int(saved.Load())
	return err
}

// wait takes n from the rate limit, in portions that it can give.
func (c *Collector) wait(ctx context.Context, n int) error {
	for c.limit != nil && n > 0 {
		k := min(n, c.limit.Burst())
		if err := c.limit.WaitN(ctx, k); err != nil {
			return wrap("wait for the rate limit", err)
		}
		n -= k
	}
	return nil
}

// delete removes the victims that are still what they were and still unused. When a condition does not hold, or the store does not take as
// many, the chunk is cut in halves.
func (c *Collector) delete(ctx context.Context, vs []victim, ops int, deleted, saved *atomic.Int64) error {
	k := c.cfg.KV
	var t kvstore.Txn
	for _, v := range vs {
		key, id := k.key(v.Key), k.id(v.ID)
		switch {
		case v.orphan:
			t.If = append(t.If, kvstore.Unchanged(id, v.idRev), kvstore.Unchanged(key, v.keyRev))
			t.Then = append(t.Then, kvstore.Delete(id))
			if v.keyRev == 0 { // a node that uses it will make the record again
				t.If = append(t.If, kvstore.NoneUnder(k.refs(v.Key)))
			}
		default:
			t.If = append(t.If, kvstore.Unchanged(key, v.Rev), kvstore.NoneUnder(k.refs(v.Key)))
			t.Then = append(t.Then, kvstore.Delete(key))
			if v.idRev != 0 {
				t.Then = append(t.Then, kvstore.Delete(id))
			}
			if v.idRev != 0 && v.idRev != v.Rev { // else both were written at once and are never written but together
				t.If = append(t.If, kvstore.Unchanged(id, v.idRev))
			}
		}
	}
	r, err := k.c.Txn(ctx, t)
	switch {
	case err != nil && !errors.Is(err, kvstore.ErrTooLarge):
		return err
	case err == nil && r.Succeeded:
		deleted.Add(int64(len(vs)))
		return nil
	case err != nil && len(vs) == 1:
		return err
	case len(vs) == 1:
		saved.Add(1)
		return nil
	}
	if err != nil {
		k.learn(len(vs) * ops)
	}
	if err := c.delete(ctx, vs[:len(vs)/2], ops, deleted, saved); err != nil {
		return err
	}
	return c.delete(ctx, vs[len(vs)/2:], ops, deleted, saved)
}

// unused lists the records without references, and the ids without records. The lists are not of one revision: what
// is deleted is decided by the transaction.
func (c *Collector) unused(ctx context.Context, s *CollectStats) ([]victim, error) {
	var used map[string]bool
	var ids map[ID]kvstore.KeyValue
	var recs []Record
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { used, err = c.references(gctx); return err })
	g.Go(func() (err error) { ids, err = c.ids(gctx); return err })
	g.Go(func() error {
		return c.cfg.KV.List(gctx, func(page []Record) error { recs = append(recs, page...); return nil })
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []victim
	for _, r := range recs {
		v := victim{Record: r}
		if kv, ok := ids[r.ID]; ok && string(kv.Value) == r.Key {
			v.idRev = kv.ModRevision
			delete(ids, r.ID)
		}
		switch {
		case r.ID < c.cfg.Min || r.ID > c.cfg.Max:
			s.Foreign++
		case used[escape(r.Key)]:
			s.Alive++
		default:
			out = append(out, v)
		}
	}
	return c.orphans(out, recs, ids), nil
}

// orphans adds the ids that no record has.
func (c *Collector) orphans(out []victim, recs []Record, ids map[ID]kvstore.KeyValue) []victim {
	if len(ids) == 0 {
		return out
	}
	revs := make(map[string]int64, len(recs))
	for _, r := range recs {
		revs[r.Key] = r.Rev
	}
	for id, kv := range ids {
		if id < c.cfg.Min || id > c.cfg.Max {
			continue
		}
		key := string(kv.Value)
		out = append(out, victim{Record: Record{Key: key, ID: id}, idRev: kv.ModRevision, orphan: true, keyRev: revs[key]})
	}
	return out
}

// references lists the escaped keys that somebody refers to.
func (c *Collector) references(ctx context.Context) (map[string]bool, error) {
	k := c.cfg.KV
	used := map[string]bool{}
	_, err := k.c.List(ctx, k.prefix+"refs/", func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			if key, _, ok := k.isRef(kv.Key); ok {
				used[key] = true
			}
		}
		return nil
	})
	return used, wrap("list references", err)
}

func (c *Collector) ids(ctx context.Context) (map[ID]kvstore.KeyValue, error) {
	k := c.cfg.KV
	ids := map[ID]kvstore.KeyValue{}
	_, err := k.c.List(ctx, k.prefix+"ids/", func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			id, err := parseID(kv.Key[len(k.prefix)+len("ids/"):])
			if err != nil || CheckKey(string(kv.Value)) != nil {
				c.cfg.Log.Warn("id is unreadable, leaving it alone", "key", kv.Key)
				continue
			}
			ids[id] = kv
		}
		return nil
	})
	return ids, wrap("list ids", err)
}
