package kvstore

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// LockCollector deletes locks that somebody has held for too long: a process that is alive, so that its lease is renewed, but has forgotten to
// unlock. Nothing in the house needs it (an unlock that fails is repeated, a dead process's lease runs out); it is for
// the operator of a cluster that hangs. The holder's transactions fail from then on, if they carry [Lock.Held]. Not for concurrent use.
type LockCollector struct {
	c      *Client
	prefix string
	after  time.Duration
	seen   map[string]sight // by path: who was first in the queue, since when by our clock
}

type sight struct {
	key   string
	rev   int64
	since time.Time
}

// NewLockCollector returns a collector of the locks whose paths begin with prefix.
func (c *Client) NewLockCollector(prefix string, after time.Duration) *LockCollector {
	return &LockCollector{c: c, prefix: prefix, after: after, seen: map[string]sight{}}
}

// Collect looks once and returns the keys that it deleted: those that stood first in their queue at all calls for the last after. A
// key that is not of the form of a lock's is left alone.
func (g *LockCollector) Collect(ctx context.Context) (deleted []string, err error) {
	first := map[string]sight{}
	now := time.Now()
	_, err = g.c.List(ctx, g.prefix, func(kvs []KeyValue) error {
		for _, kv := range kvs {
			i := strings.LastIndexByte(kv.Key, '/')
			if i < 0 || !lockName(kv.Key[i+1:]) {
				continue
			}
			path := kv.Key[:i]
			if old, ok := first[path]; !ok || kv.CreateRevision < old.rev {
				first[path] = sight{kv.Key, kv.CreateRevision, now}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("collect locks: %w", err)
	}
	for path, s := range first {
		if old, ok := g.seen[path]; ok && old.key == s.key && old.rev == s.rev {
			s.since = old.since
			first[path] = s
		}
		if now.Sub(s.since) < g.after {
			continue
		}
		r, err := g.c.Txn(ctx, Txn{If: []Compare{{Key: s.key, Target: TargetCreate, Equal: s.rev}}, Then: []Op{Delete(s.key)}})
		if err != nil {
			return deleted, fmt.Errorf("collect locks: %w", err)
		}
		if r.Succeeded {
			g.c.cfg.Log.Warn("took away a lock that was held for too long", "lock", s.key, "held", now.Sub(s.since))
			deleted = append(deleted, s.key)
		}
		delete(first, path)
	}
	g.seen = first
	return deleted, nil
}

// lockName says whether s is how Client.Lock names keys: 16 and 8 hexadecimal digits.
func lockName(s string) bool {
	if len(s) != 25 || s[16] != '-' {
		return false
	}
	return strings.Trim(s[:16], "0123456789abcdef")+strings.Trim(s[17:], "0123456789abcdef") == ""
}
