package fs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/shoal-project/shoal/kvstore"
)

// view reads a volume at one revision: rev, or that of its first read. Not for several goroutines before its first read.
type view struct {
	st  *Store
	vol volume
	rev int64
}

func (v *view) read(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	r.Revision = v.rev
	res, err := v.st.read(ctx, r)
	if err == nil && v.rev == 0 {
		v.rev = res.Revision
	}
	return res, err
}

func (v *view) get(ctx context.Context, key string) (kvstore.KeyValue, bool, error) {
	r, err := v.read(ctx, kvstore.Range{Key: key})
	if err != nil || len(r.KVs) == 0 {
		return kvstore.KeyValue{}, false, err
	}
	return r.KVs[0], true, nil
}

// inode reads one; ENOENT when there is none.
func (v *view) inode(ctx context.Context, ino Ino) (inode, kvstore.KeyValue, error) {
	kv, ok, err := v.get(ctx, v.inodeKey(ino))
	if err == nil && !ok {
		err = syscall.ENOENT
	}
	if err != nil {
		return inode{}, kv, err
	}
	n, err := decodeInode(kv.Value)
	if err != nil {
		return n, kv, fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
	}
	return n, kv, nil
}

// info describes an inode. A directory's time is that of the last change of its entries, or what Chtimes set.
func (v *view) info(ctx context.Context, ino Ino, name string) (*Info, error) {
	n, kv, err := v.inode(ctx, ino)
	if err != nil {
		return nil, err
	}
	if n.Mode.IsDir() {
		c, ok, err := v.get(ctx, v.changedKey(ino))
		if err != nil {
			return nil, err
		}
		if ok {
			n.Mtime = decodeTime(c.Value, n.Mtime)
		}
	}
	return &Info{name: name, n: n, Ino: ino, Revision: kv.ModRevision}, nil
}

// step is an entry on the way to a file.
type step struct {
	entry
	parent Ino
	name   string
	rev    int64 // of the entry
}

// place is where a path leads: the entries from the root on, without links and dots. If the last name is missing in an existing directory, missing
// is it, and the steps lead to that directory.
type place struct {
	steps   []step
	missing string
}

// ino is the last step's inode, or the root.
func (p place) ino() Ino {
	if len(p.steps) == 0 {
		return rootIno
	}
	return p.steps[len(p.steps)-1].ino
}

func (p place) isDir() bool { return len(p.steps) == 0 || p.last().Type.IsDir() }

func (p place) last() step { return p.steps[len(p.steps)-1] }

// entry reads a name in a directory.
func (v *view) entry(ctx context.Context, parent Ino, name string) (step, bool, error) {
	kv, ok, err := v.get(ctx, v.entryKey(parent, name))
	if err != nil || !ok {
		return step{}, false, err
	}
	s, err := v.decodeStep(kv, parent, name)
	return s, err == nil, err
}

func (v *view) decodeStep(kv kvstore.KeyValue, parent Ino, name string) (step, error) {
	e, err := decodeEntry(kv.Value)
	if err == nil && !nameOK(name) {
		err = errors.New("no such name can be")
	}
	if err != nil {
		return step{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
	}
	return step{e, parent, name, kv.ModRevision}, nil
}

// walk finds a path, which begins at the root with or without a slash. The last name's link is followed only with follow. ENOENT when a directory on
// the way is missing.
func (v *view) walk(ctx context.Context, p string, follow bool) (place, error) {
	if len(p) > MaxPath {
		return place{}, syscall.ENAMETOOLONG
	}
	var at place
	todo := parts(p)
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch {
		case !at.isDir():
			return at, syscall.ENOTDIR
		case name == "..":
			at.steps = at.steps[:max(0, len(at.steps)-1)]
			continue
		case len(name) > MaxName:
			return at, syscall.ENAMETOOLONG
		case !nameOK(name):
			return at, syscall.EINVAL
		case len(at.steps) >= MaxDepth:
			return at, syscall.ENAMETOOLONG
		}
		s, ok, err := v.entry(ctx, at.ino(), name)
		if err != nil {
			return at, err
		}
		if !ok {
			if len(todo) > 0 {
				return at, syscall.ENOENT
			}
			at.missing = name
			return at, nil
		}
		if s.Type != iofs.ModeSymlink || len(todo) == 0 && !follow {
			at.steps = append(at.steps, s)
			continue
		}
		if links++; links > MaxLinks {
			return at, syscall.ELOOP
		}
		n, _, err := v.inode(ctx, s.ino)
		if err != nil {
			return at, err
		}
		if strings.HasPrefix(n.Target, "/") {
			at.steps = nil
		}
		todo = append(parts(n.Target), todo...)
		if len(todo) > MaxPath {
			return at, syscall.ELOOP
		}
	}
	return at, nil
}

// parts splits a path into its names, without those that mean nothing.
func parts(p string) []string {
	var out []string
	for name := range strings.SplitSeq(p, "/") {
		if name != "" && name != "." {
			out = append(out, name)
		}
	}
	return out
}

// base is the name that a FileInfo of the path has.
func base(p string) string { return path.Base("/" + p) }

// find walks to something that exists.
func (v *view) find(ctx context.Context, p string, follow bool) (place, error) {
	at, err := v.walk(ctx, p, follow)
	if err == nil && at.missing != "" {
		err = syscall.ENOENT
	}
	return at, err
}

func (v *view) stat(ctx context.Context, p string, follow bool) (*Info, error) {
	at, err := v.find(ctx, p, follow)
	if err != nil {
		return nil, err
	}
	return v.info(ctx, at.ino(), base(p))
}

// DirEntry is a name in a directory. It implements io/fs.DirEntry. Info reads the inode, at the revision of the listing.
type DirEntry struct {
	v   *view
	ctx context.Context // of the listing: io/fs has no other place for it
	s   step
}

func (d *DirEntry) Name() string                 { return d.s.name }
func (d *DirEntry) IsDir() bool                  { return d.s.Type.IsDir() }
func (d *DirEntry) Type() iofs.FileMode          { return d.s.Type }
func (d *DirEntry) String() string               { return iofs.FormatDirEntry(d) }
func (d *DirEntry) Ino() Ino                     { return d.s.ino }
func (d *DirEntry) Info() (iofs.FileInfo, error) { return d.Stat(d.ctx) }

// Stat is Info with a context.
func (d *DirEntry) Stat(ctx context.Context) (*Info, error) {
	i, err := d.v.info(ctx, d.s.ino, d.s.name)
	return i, pathError("stat", d.s.name, err)
}

// entries returns up to limit entries of a directory whose names come after a name; 0 is no limit.
func (v *view) entries(ctx context.Context, dir Ino, after string, limit int) ([]*DirEntry, error) {
	const page = 500
	var out []*DirEntry
	p := v.dirPrefix(dir)
	r := kvstore.Range{Key: p, End: kvstore.PrefixEnd(p)}
	if after != "" {
		r.Key = p + after + "\x00"
	}
	for {
		r.Limit = page
		if limit > 0 {
			r.Limit = int64(min(page, limit-len(out)))
		}
		res, err := v.read(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, kv := range res.KVs {
			s, err := v.decodeStep(kv, dir, kv.Key[len(p):])
			if err != nil {
				return nil, err
			}
			out = append(out, &DirEntry{v, ctx, s})
		}
		if !res.More || len(res.KVs) == 0 || limit > 0 && len(out) >= limit {
			return out, nil
		}
		r.Key = res.KVs[len(res.KVs)-1].Key + "\x00"
	}
}

func (v *view) readDir(ctx context.Context, p string) ([]*DirEntry, error) {
	at, err := v.find(ctx, p, true)
	if err != nil {
		return nil, err
	}
	if !at.isDir() {
		return nil, syscall.ENOTDIR
	}
	return v.entries(ctx, at.ino(), "", 0)
}

// blob reads a chunk or manifest as it is now, or as it was at rev if it has been collected since, and checks it.
func (s *Store) blob(ctx context.Context, h Hash, rev int64) ([]byte, error) {
	key := s.blobKey(h)
	r, err := s.read(ctx, kvstore.Range{Key: key, Revision: rev})
	if errors.Is(err, ErrPast) || err == nil && len(r.KVs) == 0 {
		past := err
		if r, err = s.read(ctx, kvstore.Range{Key: key}); err == nil && len(r.KVs) == 0 && past != nil {
			return nil, past
		}
	}
	if err != nil {
		return nil, err
	}
	if len(r.KVs) == 0 {
		return nil, fmt.Errorf("%w: %s is missing", ErrCorrupt, key)
	}
	if sha256.Sum256(r.KVs[0].Value) != h {
		return nil, fmt.Errorf("%w: %s is not what its name says", ErrCorrupt, key)
	}
	return r.KVs[0].Value, nil
}

// manifest reads the list of a file's chunks.
func (v *view) manifest(ctx context.Context, n inode) (manifest, error) {
	if n.Manifest == "" {
		return manifest{chunk: v.vol.Chunk}, nil
	}
	h, err := parseHash(n.Manifest)
	if err != nil {
		return manifest{}, err
	}
	b, err := v.st.blob(ctx, h, v.rev)
	if err != nil {
		return manifest{}, err
	}
	m, err := decodeManifest(b, n.Size)
	if err != nil {
		return m, fmt.Errorf("%w: manifest %s: %w", ErrCorrupt, h, err)
	}
	return m, nil
}
