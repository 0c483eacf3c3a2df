package fs

import (
	"context"
	"os"
	"syscall"

	"github.com/shoal-project/shoal/kvstore"
)

// Rename moves a file, link or directory, over what is at the new path if that is of the same kind and, for a directory, empty. Errors are
// os.LinkError.
func (f *FS) Rename(ctx context.Context, from, to string) error {
	_, err := f.change(ctx, "rename", from, func(v *view) (kvstore.Txn, error) {
		src, err := v.walk(ctx, from, false)
		if err != nil {
			return kvstore.Txn{}, err
		}
		dst, err := v.walk(ctx, to, false)
		if err != nil {
			return kvstore.Txn{}, err
		}
		if src.missing != "" {
			return kvstore.Txn{}, syscall.ENOENT
		}
		if len(src.steps) == 0 || dst.missing == "" && len(dst.steps) == 0 {
			return kvstore.Txn{}, syscall.EBUSY
		}
		return v.move(ctx, src, dst)
	})
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: unwrapPath(err)}
	}
	return nil
}

// move plans to put an entry elsewhere.
func (v *view) move(ctx context.Context, from, dst place) (kvstore.Txn, error) {
	var t kvstore.Txn
	src := from.last()
	dirs, name := dst.steps, dst.missing
	var over *step
	if name == "" {
		last := dst.last()
		over, dirs, name = &last, dirs[:len(dirs)-1], last.name
	}
	for _, s := range from.steps[:len(from.steps)-1] {
		if over != nil && over.ino == s.ino {
			return t, syscall.ENOTEMPTY
		}
	}
	to := place{steps: dirs}
	if src.Type.IsDir() {
		// No directory above the new place may be moved meanwhile: two moves could make a circle that hangs in the air.
		for _, s := range dirs {
			if s.ino == src.ino {
				return t, syscall.EINVAL
			}
			t.If = append(t.If, kvstore.Unchanged(v.entryKey(s.parent, s.name), s.rev))
		}
	}
	switch {
	case over != nil && over.ino == src.ino:
		return kvstore.Txn{}, nil // itself
	case !to.isDir():
		return t, syscall.ENOTDIR
	case len(dirs) >= MaxDepth:
		return t, syscall.ENAMETOOLONG
	case over != nil && over.Type.IsDir() && !src.Type.IsDir():
		return t, syscall.EISDIR
	case over != nil && !over.Type.IsDir() && src.Type.IsDir():
		return t, syscall.ENOTDIR
	}
	alive, err := v.alive(ctx, to.ino())
	if err != nil {
		return t, err
	}
	old, key := v.entryKey(src.parent, src.name), v.entryKey(to.ino(), name)
	t.If = append(t.If, alive, kvstore.Unchanged(old, src.rev))
	t.Then = append(t.Then, kvstore.Delete(old), kvstore.Put(key, encode(src.entry)), v.changed(to.ino()))
	if src.parent != to.ino() {
		t.Then = append(t.Then, v.changed(src.parent))
	}
	if over == nil {
		t.If = append(t.If, kvstore.Missing(key))
		return t, nil
	}
	t.If = append(t.If, kvstore.Unchanged(key, over.rev))
	return t, v.drop(ctx, *over, &t)
}
