package fs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

// Collected says what a collection found and did.
type Collected struct {
	Live    int   `json:"live"`    // blobs that an inode or a pin names
	Swept   int   `json:"swept"`   // blobs that were deleted
	Bytes   int64 `json:"bytes"`   // in those
	Trees   int   `json:"trees"`   // removed trees that were taken apart to the end
	Volumes int   `json:"volumes"` // deleted volumes that were cleared away
}

// GC deletes what nothing leads to: detached trees, trees of deleted volumes, and blobs that no inode and no pin named at one
// revision and that nobody has begun to rely on since. It can run beside everything, itself too, and may die at any point. When it finds something
// that it does not understand it deletes no blob.
func (s *Store) GC(ctx context.Context) (Collected, error) {
	var c Collected
	vols, err := s.ids(ctx)
	if err == nil {
		err = s.clear(ctx, vols, &c)
	}
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	h, err := s.kv.Head(ctx)
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	live, err := s.mark(ctx, h.Revision)
	if err != nil {
		return c, fmt.Errorf("collect: mark what is in use: %w", err)
	}
	c.Live = len(live)
	if err := s.sweep(ctx, h.Revision, live, &c); err != nil {
		return c, fmt.Errorf("collect: sweep: %w", err)
	}
	return c, nil
}

// ids returns all volumes by the names of their trees.
func (s *Store) ids(ctx context.Context) (map[string]volume, error) {
	vols := map[string]volume{}
	err := s.list(ctx, s.prefix+"vol/", 0, func(kv kvstore.KeyValue) error {
		v, err := decodeVolume(kv.Value)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
		}
		vols[v.ID] = v
		return nil
	})
	return vols, err
}

// trees calls each with the name of every tree of which there is a key.
func (s *Store) trees(ctx context.Context, rev int64, each func(id string) error) error {
	p := s.prefix + "tree/"
	r := kvstore.Range{Key: p, End: kvstore.PrefixEnd(p), Limit: 1, Revision: rev}
	for {
		res, err := s.read(ctx, r)
		if err != nil || len(res.KVs) == 0 {
			return err
		}
		id, _, ok := strings.Cut(res.KVs[0].Key[len(p):], "/")
		if !ok {
			return fmt.Errorf("%w: key %s", ErrCorrupt, res.KVs[0].Key)
		}
		if err := each(id); err != nil {
			return err
		}
		r.Key = kvstore.PrefixEnd(s.treePrefix(id))
	}
}

// clear removes deleted volumes and detached trees.
func (s *Store) clear(ctx context.Context, vols map[string]volume, c *Collected) error {
	return s.trees(ctx, 0, func(id string) error {
		vol, ok := vols[id]
		if !ok {
			// It may have been created since the volumes were read.
			now, err := s.ids(ctx)
			if err != nil {
				return err
			}
			if _, ok := now[id]; ok {
				return nil
			}
			c.Volumes++
			return s.dropTree(ctx, id)
		}
		es, err := (&view{st: s, vol: vol}).entries(ctx, trashIno, "", 0)
		for _, e := range es {
			if err := s.dismantle(ctx, vol, trashIno, e.Name()); err != nil {
				return err
			}
			c.Trees++
		}
		return err
	})
}

// mark returns the blobs that were named at a revision.
func (s *Store) mark(ctx context.Context, rev int64) (map[Hash]bool, error) {
	live := map[Hash]bool{}
	pins := s.prefix + "pin/"
	err := s.list(ctx, pins, rev, func(kv kvstore.KeyValue) error {
		h, err := parseHash(kv.Key[strings.LastIndexByte(kv.Key, '/')+1:])
		if err != nil {
			return fmt.Errorf("%w: key %s", ErrCorrupt, kv.Key)
		}
		live[h] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{} // manifests; equal files share one
	err = s.trees(ctx, rev, func(id string) error {
		return s.list(ctx, s.treePrefix(id)+"i/", rev, func(kv kvstore.KeyValue) error {
			n, err := decodeInode(kv.Value)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
			}
			if n.Manifest == "" || listed[n.Manifest] {
				return nil
			}
			listed[n.Manifest] = true
			m, err := (&view{st: s, rev: rev}).manifest(ctx, n)
			if err != nil {
				return fmt.Errorf("%s: %w", kv.Key, err)
			}
			h, err := parseHash(n.Manifest)
			live[h] = true
			for _, h := range m.sums {
				live[h] = true
			}
			return err
		})
	})
	delete(live, Hash{})
	return live, err
}

// sweep deletes the blobs that were there at a revision and not live, unless their use has been noted since.
func (s *Store) sweep(ctx context.Context, rev int64, live map[Hash]bool, c *Collected) error {
	const batch = 32
	type dead struct {
		h    Hash
		use  kvstore.KeyValue
		size int64
	}
	var todo []dead
	p := s.prefix + "use/"
	err := s.list(ctx, p, rev, func(kv kvstore.KeyValue) error {
		h, err := parseHash(kv.Key[len(p):])
		if err != nil {
			return fmt.Errorf("%w: key %s", ErrCorrupt, kv.Key)
		}
		if size, _ := strconv.ParseInt(string(kv.Value), 10, 64); !live[h] {
			todo = append(todo, dead{h, kv, size})
		}
		return nil
	})
	if err != nil {
		return err
	}
	try := func(ds []dead) (bool, error) {
		var t kvstore.Txn
		var bytes int64
		for _, d := range ds {
			t.If = append(t.If, kvstore.Unchanged(d.use.Key, d.use.ModRevision))
			t.Then = append(t.Then, kvstore.Delete(d.use.Key), kvstore.Delete(s.blobKey(d.h)))
			bytes += d.size
		}
		res, err := s.kv.Txn(ctx, t)
		if err != nil || !res.Succeeded {
			return false, err
		}
		c.Swept, c.Bytes = c.Swept+len(ds), c.Bytes+bytes
		return true, nil
	}
	for len(todo) > 0 {
		part := todo[:min(batch, len(todo))]
		todo = todo[len(part):]
		if ok, err := try(part); ok || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		for i := range part { // somebody uses one of them again: find out which
			if _, err := try(part[i : i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Maintain collects every so often until ctx ends; failures are logged. Several nodes may do it.
func (s *Store) Maintain(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c, err := s.GC(ctx)
		switch {
		case errors.Is(err, ErrPast), ctx.Err() != nil: // the next one
		case err != nil:
			s.log.Warn("the shared file system could not be cleaned", "err", err)
		case c.Swept > 0:
			s.log.Info("the shared file system was cleaned", "blobs", c.Swept, "bytes", c.Bytes)
		}
	}
}
