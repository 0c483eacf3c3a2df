package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// fault is what goes wrong all the time while a test runs.
type fault int

const (
	slow       fault = 1 << iota // each call takes a millisecond longer
	disconnect                   // streams end, again and again
	compact                      // the past is forgotten and streams fall behind, again and again
)

var faultNames = map[fault]string{slow: "slow calls", disconnect: "broken streams", compact: "compactions"}

// cases are the suite. Each bears the faults that a user of the client should not notice in it; the others look at a raw stream or at
// old revisions, which may end under these.
var cases = []struct {
	name  string
	f     func(*env)
	bears fault
}{
	{"keys", keys, slow | disconnect | compact}, {"empty value is not a missing key", emptyValue, slow | disconnect | compact},
	{"paged list at one revision", pages, slow | disconnect}, {"list in one go", longList, slow | disconnect}, {"compares", compares, slow | disconnect | compact},
	{"transaction is all or nothing", allOrNothing, slow | disconnect | compact}, {"limits", limits, slow | disconnect | compact},
	{"reads within a transaction", innerReads, slow | disconnect | compact}, {"old revisions", oldRevisions, slow | disconnect},
	{"watch", watch, slow}, {"watch from the past", watchPast, slow}, {"watch from now", watchNow, slow}, {"progress", progress, slow},
	{"list and watch", listAndWatch, slow | disconnect}, {"watcher after compaction", watcherCompacted, slow},
	{"watcher through compactions", watcherThrough, slow | disconnect | compact},
	{"lease", lease, slow | disconnect | compact}, {"revoke", revoke, slow | disconnect | compact}, {"pool of lost leases", poolLost, slow | disconnect | compact},
	{"update if different", updateIfDifferent, slow | disconnect | compact}, {"update if unchanged", updateIfUnchanged, slow | disconnect | compact},
	{"operations under a lock", ifLocked, slow | disconnect}, {"lock", lock, slow | disconnect | compact},
	{"lock waiter gives up", lockGivesUp, slow | disconnect | compact}, {"lock is fenced", lockFenced, slow | disconnect | compact},
	{"lock queues", lockQueues, slow | disconnect | compact}, {"lock of a crowd", lockCrowd, slow | disconnect | compact},
	{"lock over broken streams", lockBroken, slow | disconnect}, {"lock of a deleted waiter", lockTaken, slow | disconnect | compact},
	{"locks of nested paths", lockNested, slow | disconnect | compact},
	{"lock of a lost lease", lockLost, slow | disconnect | compact}, {"locks of lost leases", locksLost, slow | disconnect | compact},
	{"stale locks", lockStale, slow | disconnect | compact}, {"close", closed, slow},
}

// Run tests the backend that open returns; open is called once per test and cleans up after itself with t.Cleanup. minTTL is
// the shortest lease that the backend grants.
func Run(t *testing.T, minTTL time.Duration, open func(t *testing.T) kvstore.Backend) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) { runCase(t, minTTL, open(t), tt.f) })
	}
}

func runCase(t *testing.T, minTTL time.Duration, b kvstore.Backend, f func(*env)) {
	c := kvstore.New(b, kvstore.Config{Page: 7, CheckInterval: 50 * time.Millisecond})
	t.Cleanup(func() { c.Close() })
	f(&env{T: t, b: b, c: c, minTTL: minTTL})
}

// RunWithFaults is Run while one thing or another goes wrong all the time, with the tests in which that must not be noticed.
func RunWithFaults(t *testing.T, minTTL time.Duration, open func(t *testing.T) kvstore.Backend) {
	for _, what := range []fault{slow, disconnect, compact} {
		t.Run(faultNames[what], func(t *testing.T) {
			for _, tt := range cases {
				if tt.bears&what == 0 {
					continue
				}
				t.Run(tt.name, func(t *testing.T) {
					f := NewFaults(open(t))
					inflict(t, f, what)
					runCase(t, minTTL, f, tt.f)
				})
			}
		})
	}
}

// inflict has the fault happen until the test ends.
func inflict(t *testing.T, f *Faults, what fault) {
	if what == slow {
		f.Latency(time.Millisecond)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// At first often, so that short tests are hit; then seldom: a watch of etcd that begins in the past takes up to 100 ms to get going.
		for every := 7 * time.Millisecond; ; every = min(every*3/2, 400*time.Millisecond) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
			if what == disconnect {
				f.Break()
			} else if err := f.CompactAll(ctx); err != nil && ctx.Err() == nil && !errs.Is(err, errs.UnavailableClass) {
				t.Errorf("compact: %v", err)
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

type env struct {
	*testing.T
	b      kvstore.Backend
	c      *kvstore.Client
	minTTL time.Duration
}

// other returns one more client of the same store, as another process would have.
func (e *env) other() *kvstore.Client {
	c := kvstore.New(unclosed{e.b}, kvstore.Config{Page: 7, CheckInterval: 50 * time.Millisecond})
	e.Cleanup(func() { c.Close() })
	return c
}

// unclosed is a backend whose closing leaves the others theirs.
type unclosed struct{ kvstore.Backend }

func (unclosed) Close() error { return nil }

// unclosedStreamer streams, if the backend does.
type unclosedStreamer struct{ unclosed }

func (u unclosedStreamer) RangeStream(ctx context.Context, r kvstore.Range, each func(kvstore.RangeResult) error) (h kvstore.Header, ok bool, err error) {
	return u.Backend.(kvstore.Streamer).RangeStream(ctx, r, each)
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) put(key, value string) int64 {
	e.Helper()
	_, rev, err := e.c.Update(e.Context(), key, []byte(value), 0)
	e.must(err)
	return rev
}

// wait polls until ok says so.
func (e *env) wait(what string, ok func() bool) {
	e.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("waited too long: %s", what)
		}
	}
}

func keys(e *env) {
	ctx := e.Context()
	if _, ok, err := e.c.Get(ctx, "a"); ok || err != nil {
		e.Errorf("missing key: %v %v", ok, err)
	}
	r1 := e.put("a", "1")
	r2 := e.put("a", "2")
	kv, ok, err := e.c.Get(ctx, "a")
	if err != nil || !ok || string(kv.Value) != "2" || kv.CreateRevision != r1 || kv.ModRevision != r2 || kv.Version != 2 || r2 != r1+1 {
		e.Errorf("%+v %v %v, revisions %d %d", kv, ok, err, r1, r2)
	}
	created, _, err := e.c.CreateOnly(ctx, "a", nil, 0)
	if created || err != nil {
		e.Errorf("created over an existing key: %v %v", created, err)
	}
	changed, r3, err := e.c.Remove(ctx, "a")
	if !changed || err != nil || r3 != r2+1 {
		e.Errorf("remove: %v %d %v", changed, r3, err)
	}
	changed, r4, err := e.c.Remove(ctx, "a")
	if changed || err != nil || r4 != r3 {
		e.Errorf("remove again: %v %d %v", changed, r4, err)
	}
	created, _, err = e.c.CreateOnly(ctx, "a", nil, 0)
	if !created || err != nil {
		e.Errorf("create after remove: %v %v", created, err)
	}
	for _, k := range []string{"p/1", "p/2", "p0", "p"} {
		e.put(k, "")
	}
	if n, _, err := e.c.RemovePrefix(ctx, "p/"); n != 2 || err != nil {
		e.Errorf("remove prefix: %d %v", n, err)
	}
}

func emptyValue(e *env) {
	e.put("a", "")
	kv, ok, err := e.c.Get(e.Context(), "a")
	if !ok || err != nil || len(kv.Value) != 0 {
		e.Errorf("%+v %v %v", kv, ok, err)
	}
}

func pages(e *env) {
	var want []string
	for i := range 30 {
		k := fmt.Sprintf("p/%02d", i)
		want = append(want, k)
		e.put(k, k)
	}
	e.put("q", "")
	var got []string
	first := e.put("p/00", "again")
	n := 0
	head, err := e.c.List(e.Context(), "p/", func(kvs []kvstore.KeyValue) error {
		if n++; n == 1 { // what happens between two pages is not seen
			e.put("p/29", "late")
			e.put("p/30", "late")
			_, _, err := e.c.Remove(e.Context(), "p/28")
			e.must(err)
		}
		for _, kv := range kvs {
			got = append(got, kv.Key)
			if kv.Key == "p/29" && string(kv.Value) != "p/29" {
				e.Errorf("p/29 is %q", kv.Value)
			}
		}
		return nil
	})
	if err != nil || strings.Join(got, " ") != strings.Join(want, " ") || n != 5 || head.Revision != first {
		e.Errorf("%d pages at %d (want %d), %v: %v", n, head.Revision, first, err, got)
	}
	r, err := e.c.Range(e.Context(), kvstore.Range{Key: "p/", End: kvstore.PrefixEnd("p/"), CountOnly: true})
	if err != nil || r.Count != 30 || len(r.KVs) != 0 {
		e.Errorf("count %+v %v", r, err)
	}
}

// longList lists what no page of a client chooses by itself holds, while it changes.
func longList(e *env) {
	const keys = 4321
	ctx := e.Context()
	want := make([]string, keys)
	var head int64
	for i := 0; i < keys; i += 500 {
		var t kvstore.Txn
		for j := i; j < min(i+500, keys); j++ {
			want[j] = fmt.Sprintf("p/%05d", j)
			t.Then = append(t.Then, kvstore.Put(want[j], fmt.Append(nil, "value of ", j)))
		}
		r, err := e.c.Txn(ctx, t)
		e.must(err)
		head = r.Revision
	}
	l, err := e.c.Lock(ctx, "lock", max(e.minTTL, 10*time.Second))
	e.must(err)
	head = l.Fence()
	c := kvstore.New(unclosed{e.b}, kvstore.Config{}) // in pages
	defer c.Close()
	streaming := c
	if _, ok := e.b.(kvstore.Streamer); ok {
		streaming = kvstore.New(unclosedStreamer{unclosed{e.b}}, kvstore.Config{})
		defer streaming.Close()
	}
	for i, held := range [][]kvstore.Compare{nil, {l.Held()}, nil, {l.Held()}} {
		c := c
		if i > 1 {
			c = streaming
		}
		var got []kvstore.KeyValue
		var kept [][]kvstore.KeyValue
		h, err := c.List(ctx, "p/", func(kvs []kvstore.KeyValue) error {
			if len(got) == 0 {
				e.put("p/99999", "late")
				_, _, err := e.c.Remove(ctx, want[keys-1])
				e.must(err)
			}
			got, kept = append(got, kvs...), append(kept, kvs)
			return nil
		}, held...)
		if err != nil || len(got) != keys || len(kept) < 2 || held == nil && h.Revision != head {
			e.Fatalf("%d keys in %d parts at %d: %v", len(got), len(kept), h.Revision, err)
		}
		i := 0
		for _, part := range kept { // nothing was written over what was kept
			for _, kv := range part {
				if kv.Key != want[i] || string(kv.Value) != fmt.Sprint("value of ", i) || kv.Version != 1 || kv.ModRevision == 0 || kv.ModRevision != kv.CreateRevision {
					e.Fatalf("key %d: %+v", i, kv)
				}
				i++
			}
		}
		r, err := e.c.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Delete("p/99999"), kvstore.Put(want[keys-1], fmt.Append(nil, "value of ", keys-1))}})
		e.must(err)
		head = r.Revision
	}
	enough := errors.New("enough")
	e.must(l.Unlock(ctx))
	for _, c := range []*kvstore.Client{c, streaming} {
		if _, err := c.List(ctx, "p/", func([]kvstore.KeyValue) error { return enough }); !errors.Is(err, enough) {
			e.Error(err)
		}
		if _, err := c.List(ctx, "p/", func([]kvstore.KeyValue) error { return nil }, l.Held()); !errors.Is(err, kvstore.ErrLockLost) {
			e.Errorf("without the lock: %v", err)
		}
	}
}

func compares(e *env) {
	rev := e.put("a", "1")
	e.put("b", "1")
	for _, tt := range []struct {
		name string
		cmp  []kvstore.Compare
		want bool
	}{
		{"none", nil, true},
		{"missing", []kvstore.Compare{kvstore.Missing("x")}, true},
		{"not missing", []kvstore.Compare{kvstore.Missing("a")}, false},
		{"unchanged", []kvstore.Compare{kvstore.Unchanged("a", rev)}, true},
		{"changed", []kvstore.Compare{kvstore.Unchanged("a", rev-1)}, false},
		{"missing has revision 0", []kvstore.Compare{kvstore.Unchanged("x", 0)}, true},
		{"version", []kvstore.Compare{{Key: "a", Target: kvstore.TargetVersion, Equal: 1}}, true},
		{"no lease", []kvstore.Compare{{Key: "a", Target: kvstore.TargetLease}}, true},
		{"nothing under a prefix", []kvstore.Compare{kvstore.NoneUnder("x")}, true},
		{"one key under a prefix", []kvstore.Compare{kvstore.NoneUnder("b")}, false},
		{"range of old keys", []kvstore.Compare{{Key: "a", End: "c", Target: kvstore.TargetVersion, Equal: 1}}, true},
		{"range with one changed", []kvstore.Compare{{Key: "a", End: "c", Target: kvstore.TargetMod, Equal: rev}}, false},
		{"range up to a changed one", []kvstore.Compare{{Key: "a", End: "b", Target: kvstore.TargetMod, Equal: rev}}, true},
		{"all must hold", []kvstore.Compare{kvstore.Unchanged("a", rev), kvstore.Missing("b")}, false},
	} {
		r, err := e.c.Txn(e.Context(), kvstore.Txn{If: tt.cmp, Then: []kvstore.Op{kvstore.Get("a")}, Else: []kvstore.Op{kvstore.Get("a"), kvstore.Get("b")}})
		if err != nil || r.Succeeded != tt.want || tt.want != (len(r.Results) == 1) {
			e.Errorf("%s: %+v %v", tt.name, r, err)
		}
	}
}

func allOrNothing(e *env) {
	ctx := e.Context()
	r, err := e.c.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Put("a", []byte("1")), kvstore.Put("b", []byte("1"))}})
	e.must(err)
	for _, k := range []string{"a", "b"} {
		if kv, _, err := e.c.Get(ctx, k); err != nil || kv.ModRevision != r.Revision {
			e.Errorf("%s: %+v %v, want revision %d", k, kv, err, r.Revision)
		}
	}
	_, err = e.c.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Put("c", nil), {Type: kvstore.OpPut, Key: "d", Lease: 4711}}})
	if !errors.Is(err, kvstore.ErrLeaseExpired) {
		e.Errorf("unknown lease: %v", err)
	}
	if _, ok, err := e.c.Get(ctx, "c"); ok || err != nil {
		e.Errorf("half a transaction: %v %v", ok, err)
	}
	r, err = e.c.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{kvstore.Missing("a")}, Then: []kvstore.Op{kvstore.Delete("b")}})
	if err != nil || r.Succeeded {
		e.Errorf("%+v %v", r, err)
	}
	if _, ok, _ := e.c.Get(ctx, "b"); !ok {
		e.Error("the transaction did not hold but happened")
	}
}

func limits(e *env) {
	var many []kvstore.Op
	for i := range kvstore.MaxTxnOps + 1 {
		many = append(many, kvstore.Put(fmt.Sprint(i), nil))
	}
	big := []kvstore.Op{kvstore.Put("a", make([]byte, kvstore.MaxTxnBytes))}
	for _, tt := range []struct {
		name string
		ops  []kvstore.Op
		want error
	}{
		{"most operations", many[1:], nil},
		{"too many operations", many, kvstore.ErrTooLarge},
		{"largest value", []kvstore.Op{kvstore.Put("a", make([]byte, kvstore.MaxTxnBytes-1))}, nil},
		{"too large", big, kvstore.ErrTooLarge},
		{"one key twice", []kvstore.Op{kvstore.Put("a", nil), kvstore.Delete("a")}, kvstore.ErrDuplicateKey},
	} {
		if _, err := e.b.Txn(e.Context(), kvstore.Txn{Then: tt.ops}); !errors.Is(err, tt.want) {
			e.Errorf("%s: %v", tt.name, err)
		}
	}
	if !errs.Is(kvstore.ErrTooLarge, errs.TooLargeClass) {
		e.Error("class")
	}
}

func innerReads(e *env) {
	e.put("a", "old")
	r, err := e.c.Txn(e.Context(), kvstore.Txn{Then: []kvstore.Op{kvstore.Get("a"), kvstore.Put("a", []byte("new")), kvstore.Get("a"), kvstore.Delete("b")}})
	e.must(err)
	if len(r.Results) != 4 || string(r.Results[0].KVs[0].Value) != "old" || string(r.Results[2].KVs[0].Value) != "new" || r.Results[3].Deleted != 0 {
		e.Errorf("%+v", r)
	}
}

func oldRevisions(e *env) {
	ctx := e.Context()
	r1 := e.put("a", "1")
	r2 := e.put("a", "2")
	r, err := e.c.Range(ctx, kvstore.Range{Key: "a", Revision: r1})
	if err != nil || string(r.KVs[0].Value) != "1" || r.Revision != r2 {
		e.Errorf("%+v %v", r, err)
	}
	if _, err := e.c.Range(ctx, kvstore.Range{Key: "a", Revision: r2 + 1}); !errors.Is(err, kvstore.ErrFuture) {
		e.Errorf("future: %v", err)
	}
	e.must(e.c.Compact(ctx, r2))
	if _, err := e.c.Range(ctx, kvstore.Range{Key: "a", Revision: r1}); !errors.Is(err, kvstore.ErrCompacted) {
		e.Errorf("compacted: %v", err)
	}
	if r, err := e.c.Range(ctx, kvstore.Range{Key: "a", Revision: r2}); err != nil || string(r.KVs[0].Value) != "2" {
		e.Errorf("at the compaction: %+v %v", r, err)
	}
	if err := e.c.Compact(ctx, r2); !errors.Is(err, kvstore.ErrCompacted) {
		e.Errorf("compact twice: %v", err)
	}
	if err := e.c.Compact(ctx, r2+1); !errors.Is(err, kvstore.ErrFuture) {
		e.Errorf("compact the future: %v", err)
	}
}

func closed(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	h, err := e.c.Head(ctx)
	e.must(err)
	s := e.c.Watch(ctx, "", h.Revision+1)
	got := make(chan error, 2)
	go func() { _, err := s.Next(); got <- err }()
	w := e.c.NewWatcher("x/")
	go func() {
		got <- w.Run(ctx, func(b kvstore.Batch) error {
			if b.ListDone {
				e.c.Close()
			}
			return nil
		})
	}()
	for range 2 {
		if err := <-got; !errors.Is(err, kvstore.ErrClosed) {
			e.Errorf("watch: %v", err)
		}
	}
	if _, _, err := e.c.Get(ctx, "a"); !errors.Is(err, kvstore.ErrClosed) {
		e.Errorf("get: %v", err)
	}
	if _, _, err := e.c.Update(ctx, "a", nil, 0); !errors.Is(err, kvstore.ErrClosed) {
		e.Errorf("update: %v", err)
	}
	e.must(e.c.Close())
}
