package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Deps is what a store needs.
type Deps struct {
	KV     *kvstore.Client
	Prefix string           // of all keys; ends with a slash
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: none
	// LeaseTTL is how long blobs of an upload whose client has died are kept from the collector; 0 means 30 s.
	LeaseTTL time.Duration
}

// Store holds volumes. Safe for concurrent use.
type Store struct {
	kv     *kvstore.Client
	prefix string
	now    func() time.Time
	log    *slog.Logger
	ttl    time.Duration

	mu      sync.Mutex
	current *session
}

// New returns a store; it asks the database for nothing.
func New(d Deps) (*Store, error) {
	if d.KV == nil || !strings.HasSuffix(d.Prefix, "/") {
		return nil, errs.Invalid("a file system needs a database and a prefix that ends with a slash, not %q", d.Prefix)
	}
	s := &Store{kv: d.KV, prefix: d.Prefix, now: d.Now, log: d.Log, ttl: d.LeaseTTL}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.ttl <= 0 {
		s.ttl = 30 * time.Second
	}
	return s, nil
}

// Close gives the store's lease back. Uploads that are under way fail.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil
	}
	l := s.current.lease
	s.current = nil
	return l.Close(ctx)
}

// VolumeOptions are what a volume is created with.
type VolumeOptions struct {
	Chunk int64 // bytes, MinChunk to MaxChunk; 0 means DefaultChunk
}

// Create makes a volume with an empty root directory. It is an error of class Exists if there is one of that name.
func (s *Store) Create(ctx context.Context, name string, o VolumeOptions) (*FS, error) {
	if err := checkVolume(name); err != nil {
		return nil, err
	}
	if o.Chunk == 0 {
		o.Chunk = DefaultChunk
	}
	if o.Chunk < MinChunk || o.Chunk > MaxChunk {
		return nil, errs.Invalid("chunks of %d bytes: want %d to %d", o.Chunk, MinChunk, MaxChunk)
	}
	now := s.now().UnixNano()
	f := &FS{st: s, name: name, vol: volume{V: schema, ID: newID(), Chunk: o.Chunk, Created: now}}
	v := f.view()
	root := inode{V: schema, Mode: iofs.ModeDir | 0o755, Mtime: now}
	res, err := s.kv.Txn(ctx, kvstore.Txn{
		If:   []kvstore.Compare{kvstore.Missing(s.volKey(name))},
		Then: []kvstore.Op{kvstore.Put(s.volKey(name), encode(f.vol)), kvstore.Put(v.inodeKey(rootIno), encode(root))},
	})
	if err != nil {
		return nil, fmt.Errorf("create volume %q: %w", name, err)
	}
	if !res.Succeeded {
		return nil, errs.Exists("volume %q exists", name)
	}
	return f, nil
}

// Open returns a volume that exists; nothing is written.
func (s *Store) Open(ctx context.Context, name string) (*FS, error) {
	if err := checkVolume(name); err != nil {
		return nil, err
	}
	kv, ok, err := s.kv.Get(ctx, s.volKey(name))
	if err != nil {
		return nil, fmt.Errorf("open volume %q: %w", name, err)
	}
	if !ok {
		return nil, errs.Classify(errs.NotFoundClass, fmt.Errorf("there is no volume %q: %w", name, syscall.ENOENT))
	}
	vol, err := decodeVolume(kv.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
	}
	return &FS{st: s, name: name, vol: vol}, nil
}

// OpenOrCreate opens a volume, and makes it if it is missing.
func (s *Store) OpenOrCreate(ctx context.Context, name string, o VolumeOptions) (*FS, error) {
	for {
		f, err := s.Open(ctx, name)
		if !errs.IsNotFound(err) {
			return f, err
		}
		if f, err = s.Create(ctx, name, o); !errs.IsExists(err) {
			return f, err
		}
	}
}

// Volumes returns the names of all volumes.
func (s *Store) Volumes(ctx context.Context) ([]string, error) {
	var names []string
	p := s.prefix + "vol/"
	_, err := s.kv.List(ctx, p, func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			names = append(names, kv.Key[len(p):])
		}
		return nil
	})
	return names, err
}

// Delete removes a volume and everything in it. Its name is free at once; the rest goes now, or with the next GC if the caller dies.
func (s *Store) Delete(ctx context.Context, name string) error {
	f, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	if _, _, err := s.kv.Remove(ctx, s.volKey(name)); err != nil {
		return fmt.Errorf("delete volume %q: %w", name, err)
	}
	return s.dropTree(ctx, f.vol.ID)
}

// dropTree deletes the keys of a tree in portions, the root's inode first: from then on nobody can add to it by a path.
func (s *Store) dropTree(ctx context.Context, id string) error {
	v := &view{st: s, vol: volume{ID: id}}
	if _, _, err := s.kv.Remove(ctx, v.inodeKey(rootIno)); err != nil {
		return err
	}
	for {
		r, err := s.read(ctx, kvstore.Range{Key: s.treePrefix(id), End: kvstore.PrefixEnd(s.treePrefix(id)), Limit: 500})
		if err != nil || len(r.KVs) == 0 {
			return err
		}
		var t kvstore.Txn
		for _, kv := range r.KVs {
			t.Then = append(t.Then, kvstore.Delete(kv.Key))
		}
		if _, err := s.kv.Txn(ctx, t); err != nil {
			return err
		}
	}
}

// readTimeout bounds one read; the client bounds transactions.
const readTimeout = 15 * time.Second

// read asks for a range. One at a revision is answered by the local copy if that has got so far.
func (s *Store) read(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	r.Serializable = r.Revision != 0
	res, err := s.kv.Range(ctx, r)
	if r.Serializable && errors.Is(err, kvstore.ErrFuture) {
		r.Serializable = false
		res, err = s.kv.Range(ctx, r)
	}
	if errors.Is(err, kvstore.ErrCompacted) {
		err = fmt.Errorf("%w (%w)", ErrPast, err)
	}
	return res, kvstore.Hint(err)
}

// list reads all keys with the prefix at a revision, page by page.
func (s *Store) list(ctx context.Context, prefix string, rev int64, each func(kvstore.KeyValue) error) error {
	const page = 500
	r := kvstore.Range{Key: prefix, End: kvstore.PrefixEnd(prefix), Limit: page, Revision: rev}
	for {
		res, err := s.read(ctx, r)
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			if err := each(kv); err != nil {
				return err
			}
		}
		if !res.More || len(res.KVs) == 0 {
			return nil
		}
		if r.Revision == 0 {
			r.Revision = res.Revision
		}
		r.Key = res.KVs[len(res.KVs)-1].Key + "\x00"
	}
}

// maxTries is how often a change that others got in the way of is decided anew.
const maxTries = 100

// errRetry asks change to decide anew.
var errRetry = errors.New("changed meanwhile")

// change decides with plan and does it, anew as long as others change what was compared, and returns at which revision. A transaction without
// operations is none; its revision is 0.
func (f *FS) change(ctx context.Context, op, path string, plan func(v *view) (kvstore.Txn, error)) (int64, error) {
	for try := range maxTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return 0, pathError(op, path, context.Cause(ctx))
			case <-time.After(rand.N(time.Millisecond << min(try, 7))):
			}
		}
		t, err := plan(f.view())
		switch {
		case errors.Is(err, errRetry), errors.Is(err, ErrPast):
			continue
		case err != nil:
			return 0, pathError(op, path, err)
		case len(t.Then) == 0:
			return 0, nil
		}
		res, err := f.st.kv.Txn(ctx, t)
		if err != nil {
			return 0, pathError(op, path, kvstore.Hint(err))
		}
		if res.Succeeded {
			return res.Revision, nil
		}
	}
	return 0, pathError(op, path, syscall.EAGAIN)
}
