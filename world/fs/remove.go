package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"syscall"

	"github.com/shoal-project/shoal/kvstore"
)

// unlink plans the removal of an entry and its inode; a directory must be empty.
func (v *view) unlink(ctx context.Context, s step) (kvstore.Txn, error) {
	t := kvstore.Txn{
		If:   []kvstore.Compare{kvstore.Unchanged(v.entryKey(s.parent, s.name), s.rev)},
		Then: []kvstore.Op{kvstore.Delete(v.entryKey(s.parent, s.name)), v.changed(s.parent)},
	}
	return t, v.drop(ctx, s, &t)
}

// drop adds to a transaction that an inode goes.
func (v *view) drop(ctx context.Context, s step, t *kvstore.Txn) error {
	t.Then = append(t.Then, kvstore.Delete(v.inodeKey(s.ino)))
	if !s.Type.IsDir() {
		return nil
	}
	es, err := v.entries(ctx, s.ino, "", 1)
	if err != nil {
		return err
	}
	if len(es) > 0 {
		return syscall.ENOTEMPTY
	}
	t.If = append(t.If, kvstore.NoneUnder(v.dirPrefix(s.ino)))
	t.Then = append(t.Then, kvstore.Delete(v.changedKey(s.ino)))
	return nil
}

// Remove removes a file, a link or an empty directory. Handles on it can be read on; what was written to them has nowhere to go.
func (f *FS) Remove(ctx context.Context, p string) error {
	_, err := f.change(ctx, "remove", p, func(v *view) (kvstore.Txn, error) {
		at, err := v.find(ctx, p, false)
		if err != nil {
			return kvstore.Txn{}, err
		}
		if len(at.steps) == 0 {
			return kvstore.Txn{}, syscall.EBUSY
		}
		return v.unlink(ctx, at.last())
	})
	return err
}

// RemoveAll removes a path and all below it, at one moment: the tree is detached first and taken apart then, by the collector if the
// caller dies. A missing path is no error. Of the root it removes what is in it, entry by entry.
func (f *FS) RemoveAll(ctx context.Context, p string) error {
	var root, tree bool
	var gone step
	_, err := f.change(ctx, "removeall", p, func(v *view) (kvstore.Txn, error) {
		root, tree = false, false
		at, err := v.find(ctx, p, false)
		if errors.Is(err, iofs.ErrNotExist) {
			return kvstore.Txn{}, nil
		}
		if err != nil {
			return kvstore.Txn{}, err
		}
		if root = len(at.steps) == 0; root {
			return kvstore.Txn{}, nil
		}
		gone = at.last()
		if !gone.Type.IsDir() {
			return v.unlink(ctx, gone)
		}
		tree = true
		return v.detach(gone), nil
	})
	if err != nil {
		return err
	}
	if root {
		es, err := f.ReadDir(ctx, "/")
		for _, e := range es {
			err = errors.Join(err, f.RemoveAll(ctx, "/"+e.Name()))
		}
		return err
	}
	if tree {
		if err := f.st.dismantle(ctx, f.vol, trashIno, gone.ino.String()); err != nil {
			f.st.log.Debug("the collector takes the removed tree apart", "path", p, "err", err)
		}
	}
	return nil
}

// detach plans to move a directory to where no path leads.
func (v *view) detach(s step) kvstore.Txn {
	key := v.entryKey(s.parent, s.name)
	return kvstore.Txn{
		If: []kvstore.Compare{kvstore.Unchanged(key, s.rev)},
		Then: []kvstore.Op{
			kvstore.Delete(key), kvstore.Put(v.entryKey(trashIno, s.ino.String()), encode(s.entry)), v.changed(s.parent),
		},
	}
}

// dismantle removes a detached directory, deepest first, in transactions that spare what somebody moved out of it in the last moment.
func (s *Store) dismantle(ctx context.Context, vol volume, parent Ino, name string) error {
	for range maxTries {
		v := &view{st: s, vol: vol}
		at, ok, err := v.entry(ctx, parent, name)
		if err != nil || !ok {
			return err
		}
		if at.Type.IsDir() {
			if err := s.empty(ctx, vol, at.ino); err != nil {
				return err
			}
		}
		v.rev = 0
		t, err := v.unlink(ctx, at)
		if errors.Is(err, syscall.ENOTEMPTY) {
			continue // somebody who had found the way before added something
		}
		if err != nil {
			return err
		}
		if res, err := s.kv.Txn(ctx, t); err != nil || res.Succeeded {
			return err
		}
	}
	return fmt.Errorf("take apart %s: %w", name, syscall.EAGAIN)
}

// empty removes what is in a directory.
func (s *Store) empty(ctx context.Context, vol volume, dir Ino) error {
	const batch = 100
	for after := ""; ; {
		v := &view{st: s, vol: vol}
		es, err := v.entries(ctx, dir, after, batch)
		if err != nil || len(es) == 0 {
			return err
		}
		after = es[len(es)-1].Name()
		var t kvstore.Txn
		for _, e := range es {
			if e.IsDir() {
				if err := s.dismantle(ctx, vol, dir, e.Name()); err != nil {
					return err
				}
				continue
			}
			key := v.entryKey(dir, e.Name())
			t.If = append(t.If, kvstore.Unchanged(key, e.s.rev))
			t.Then = append(t.Then, kvstore.Delete(key), kvstore.Delete(v.inodeKey(e.s.ino)))
		}
		if len(t.Then) == 0 {
			continue
		}
		res, err := s.kv.Txn(ctx, t)
		if err != nil {
			return err
		}
		for i := 0; !res.Succeeded && i < len(es); i++ {
			if !es[i].IsDir() {
				if err := s.dismantle(ctx, vol, dir, es[i].Name()); err != nil {
					return err
				}
			}
		}
	}
}
