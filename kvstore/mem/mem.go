package mem

import (
	"context"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/third_party/forked/golang/btree"

	"github.com/shoal-project/shoal/kvstore"
)

// Store implements kvstore.Backend. Several clients may share one.
type Store struct {
	mu       sync.Mutex
	cluster  uint64
	rev      int64
	compact  int64 // revisions before this one are forgotten
	keys     *btree.BTree[*history]
	log      []kvstore.Event // from compact on, by ModRevision
	leases   map[kvstore.LeaseID]*lease
	closed   bool
	change   chan struct{} // closed and replaced at each commit
	onCommit func(kvstore.WatchResponse)
	users    map[string][]string // roles by name
	roles    []string
}

// history is one key with its past since the last compaction, oldest first. A deletion has Version 0.
type history struct {
	key  string
	past []kvstore.KeyValue
}

type lease struct {
	ttl   time.Duration
	until time.Time
	timer *time.Timer
	keys  map[string]bool
}

var _ kvstore.Backend = (*Store)(nil)

// New returns an empty store at revision 1.
func New() *Store {
	return &Store{
		cluster: rand.Uint64() | 1, rev: 1, leases: map[kvstore.LeaseID]*lease{}, change: make(chan struct{}),
		keys: btree.New(32, func(a, b *history) bool { return a.key < b.key }),
	}
}

// OnCommit has f called with the events of each commit, in order, before the call that caused it returns. f must not
// call the store. Set it before the first write.
func (s *Store) OnCommit(f func(kvstore.WatchResponse)) { s.onCommit = f }

func (s *Store) header() kvstore.Header { return kvstore.Header{Cluster: s.cluster, Revision: s.rev} }

// enter locks the store for a call.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return kvstore.ErrClosed
	}
	return nil
}

// at returns the key as it was at rev.
func (h *history) at(rev int64) (kvstore.KeyValue, bool) {
	i := sort.Search(len(h.past), func(i int) bool { return h.past[i].ModRevision > rev })
	if i == 0 || h.past[i-1].Version == 0 {
		return kvstore.KeyValue{}, false
	}
	return h.past[i-1], true
}

// Range implements kvstore.Backend.
func (s *Store) Range(ctx context.Context, r kvstore.Range) (kvstore.RangeResult, error) {
	if err := s.enter(ctx); err != nil {
		return kvstore.RangeResult{}, err
	}
	defer s.mu.Unlock()
	rev := r.Revision
	switch {
	case rev == 0:
		rev = s.rev
	case rev > s.rev:
		return kvstore.RangeResult{}, kvstore.ErrFuture
	case rev < s.compact:
		return kvstore.RangeResult{}, kvstore.ErrCompacted
	}
	res := s.scan(r, rev)
	res.Header = s.header()
	return res, nil
}

func (s *Store) scan(r kvstore.Range, rev int64) (res kvstore.RangeResult) {
	if r.End == "" {
		r.End = r.Key + "\x00"
	}
	s.keys.AscendGreaterOrEqual(&history{key: r.Key}, func(h *history) bool {
		if r.End != "\x00" && h.key >= r.End {
			return false
		}
		kv, ok := h.at(rev)
		if !ok {
			return true
		}
		res.Count++
		switch {
		case r.CountOnly:
		case r.Limit > 0 && int64(len(res.KVs)) == r.Limit:
			res.More = true
		default:
			res.KVs = append(res.KVs, kv)
		}
		return true
	})
	return res
}

// holds tells whether a compare holds now.
func (s *Store) holds(c kvstore.Compare) bool {
	kvs := []kvstore.KeyValue{s.now(c.Key)}
	if c.End != "" {
		if kvs = s.scan(kvstore.Range{Key: c.Key, End: c.End}, s.rev).KVs; len(kvs) == 0 {
			kvs = make([]kvstore.KeyValue, 1)
		}
	}
	for _, kv := range kvs {
		if is := [...]int64{kv.ModRevision, kv.CreateRevision, kv.Version, int64(kv.Lease)}[c.Target]; is != c.Equal {
			return false
		}
	}
	return true
}

func (s *Store) now(key string) kvstore.KeyValue {
	if h, ok := s.keys.Get(&history{key: key}); ok {
		kv, _ := h.at(s.rev)
		return kv
	}
	return kvstore.KeyValue{}
}

// Txn implements kvstore.Backend.
func (s *Store) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	if err := kvstore.CheckTxn(t); err != nil {
		return kvstore.TxnResult{}, err
	}
	if err := s.enter(ctx); err != nil {
		return kvstore.TxnResult{}, err
	}
	defer s.mu.Unlock()
	ok := true
	for _, c := range t.If {
		ok = ok && s.holds(c)
	}
	ops := t.Else
	if ok {
		ops = t.Then
	}
	for _, o := range ops {
		if o.Type == kvstore.OpPut && o.Lease != 0 && s.leases[o.Lease] == nil {
			return kvstore.TxnResult{}, kvstore.ErrLeaseExpired
		}
	}
	res := kvstore.TxnResult{Succeeded: ok, Results: make([]kvstore.OpResult, len(ops))}
	var ev []kvstore.Event
	for i, o := range ops {
		switch o.Type {
		case kvstore.OpPut:
			ev = append(ev, s.put(o))
		case kvstore.OpGet:
			// sees the writes before it in the same transaction, as etcd does
			res.Results[i].KVs = s.scan(kvstore.Range{Key: o.Key, End: o.End}, s.rev+1).KVs
		case kvstore.OpDelete:
			for _, kv := range s.scan(kvstore.Range{Key: o.Key, End: o.End}, s.rev+1).KVs {
				ev = append(ev, s.remove(kv.Key))
				res.Results[i].Deleted++
			}
		}
	}
	s.commit(ev)
	res.Header = s.header()
	return res, nil
}

func (s *Store) put(o kvstore.Op) kvstore.Event {
	h, ok := s.keys.Get(&history{key: o.Key})
	if !ok {
		h = &history{key: o.Key}
		s.keys.ReplaceOrInsert(h)
	}
	old, exists := h.at(s.rev + 1)
	kv := kvstore.KeyValue{Key: o.Key, Value: append([]byte(nil), o.Value...), CreateRevision: s.rev + 1, ModRevision: s.rev + 1, Version: 1, Lease: o.Lease}
	typ := kvstore.Created
	if exists {
		kv.CreateRevision, kv.Version, typ = old.CreateRevision, old.Version+1, kvstore.Modified
		if l := s.leases[old.Lease]; l != nil {
			delete(l.keys, o.Key)
		}
	}
	if l := s.leases[o.Lease]; l != nil {
		l.keys[o.Key] = true
	}
	h.past = append(h.past, kv)
	return kvstore.Event{Type: typ, KV: kv}
}

func (s *Store) remove(key string) kvstore.Event {
	h, _ := s.keys.Get(&history{key: key})
	if l := s.leases[h.past[len(h.past)-1].Lease]; l != nil {
		delete(l.keys, key)
	}
	kv := kvstore.KeyValue{Key: key, ModRevision: s.rev + 1}
	h.past = append(h.past, kv)
	return kvstore.Event{Type: kvstore.Deleted, KV: kv}
}

// commit makes the next revision of the events, if there are any, and wakes the watchers.
func (s *Store) commit(ev []kvstore.Event) {
	if len(ev) == 0 {
		return
	}
	s.rev++
	s.log = append(s.log, ev...)
	close(s.change)
	s.change = make(chan struct{})
	if s.onCommit != nil {
		s.onCommit(kvstore.WatchResponse{Header: s.header(), Events: ev})
	}
}

// Compact implements kvstore.Backend.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	switch {
	case rev > s.rev:
		return kvstore.ErrFuture
	case rev <= s.compact:
		return kvstore.ErrCompacted
	}
	s.compact = rev
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].KV.ModRevision >= rev })
	s.log = append([]kvstore.Event(nil), s.log[i:]...)
	var empty []*history
	s.keys.Ascend(func(h *history) bool {
		i := sort.Search(len(h.past), func(i int) bool { return h.past[i].ModRevision > rev })
		if i > 0 && h.past[i-1].Version != 0 {
			i-- // what the key was at rev stays readable
		}
		if h.past = append([]kvstore.KeyValue(nil), h.past[i:]...); len(h.past) == 0 {
			empty = append(empty, h)
		}
		return true
	})
	for _, h := range empty {
		s.keys.Delete(h)
	}
	return nil
}

// Replace puts the content of another store into this one under a new cluster id, as a restored server would appear
// behind the same address. For tests.
func (s *Store) Replace(from *Store) {
	from.mu.Lock()
	defer from.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster, s.rev, s.compact, s.log = from.cluster, from.rev, from.compact, slices.Clone(from.log)
	s.keys.Clear(false)
	from.keys.Ascend(func(h *history) bool {
		s.keys.ReplaceOrInsert(&history{h.key, slices.Clone(h.past)})
		return true
	})
	s.leases = map[kvstore.LeaseID]*lease{}
	// no watcher is told: etcd's client goes on silently against a restored server
}

// Close implements kvstore.Backend.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		for _, l := range s.leases {
			l.timer.Stop()
		}
		close(s.change)
	}
	return nil
}

type stream struct {
	s      *Store
	ctx    context.Context
	prefix string
	next   int64
	stands bool // the response that says so is due
	mark   chan struct{}
}

// Watch implements kvstore.Backend.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) kvstore.Stream {
	w := &stream{s: s, ctx: ctx, prefix: prefix, next: from, mark: make(chan struct{}, 1)}
	if from == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.next, w.stands = s.rev+1, true
	}
	return w
}

func (w *stream) RequestProgress(context.Context) error {
	select {
	case w.mark <- struct{}{}:
	default:
	}
	return nil
}

func (w *stream) Next() (kvstore.WatchResponse, error) {
	mark := false
	for {
		if err := w.s.enter(w.ctx); err != nil {
			return kvstore.WatchResponse{}, err
		}
		change, head := w.s.change, w.s.header()
		if w.stands {
			w.stands = false
			head.Revision = w.next - 1
			w.s.mu.Unlock()
			return kvstore.WatchResponse{Header: head}, nil
		}
		if w.next < w.s.compact {
			w.s.mu.Unlock()
			return kvstore.WatchResponse{}, kvstore.ErrCompacted
		}
		ev := w.pending()
		w.s.mu.Unlock()
		w.next = max(w.next, head.Revision+1)
		if len(ev) > 0 || mark {
			return kvstore.WatchResponse{Header: head, Events: ev}, nil
		}
		select {
		case <-w.ctx.Done():
		case <-change:
		case <-w.mark:
			mark = true
		}
	}
}

// pending collects the events from w.next on. The caller holds the store's lock.
func (w *stream) pending() (ev []kvstore.Event) {
	log := w.s.log
	for _, e := range log[sort.Search(len(log), func(i int) bool { return log[i].KV.ModRevision >= w.next }):] {
		if strings.HasPrefix(e.KV.Key, w.prefix) {
			ev = append(ev, e)
		}
	}
	return ev
}
