package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/kvstore/store"
	"github.com/shoal-project/shoal/test/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = "/test/things/"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// link is a connection to a store with faults; n counts the keys that were written through it.
type link struct {
	*kvstore.Client
	faults *kvtest.Faults
	mu     sync.Mutex
	n      int
}

type counter struct {
	kvstore.Backend
	l *link
}

func (c counter) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	r, err := c.Backend.Txn(ctx, t)
	if err == nil {
		c.l.mu.Lock()
		c.l.n += len(t.Then)
		c.l.mu.Unlock()
	}
	return r, err
}

func (l *link) written() int { l.mu.Lock(); defer l.mu.Unlock(); return l.n }

func connect(b kvstore.Backend) *link {
	l := &link{}
	l.faults = kvtest.NewFaults(counter{b, l})
	l.Client = kvstore.New(l.faults, kvstore.Config{CheckInterval: 50 * time.Millisecond})
	return l
}

func newMem(t testing.TB) *mem.Store {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs f until the test or the returned function ends it.
func run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func dump(t testing.TB, b kvstore.Backend) map[string]string {
	t.Helper()
	r, err := b.Range(context.Background(), kvstore.Range{Key: "/", End: kvstore.PrefixEnd("/")})
	must(t, err)
	out := map[string]string{}
	for _, kv := range r.KVs {
		out[kv.Key] = string(kv.Value)
	}
	return out
}

func newSync(t testing.TB, l *link, change func(*store.SyncConfig)) *store.SyncStore {
	t.Helper()
	cfg := store.SyncConfig{Client: l.Client, Prefix: prefix, Canary: "/test/synced/things"}
	if change != nil {
		change(&cfg)
	}
	s, err := store.NewSyncStore(cfg)
	must(t, err)
	return s
}

func TestSyncStoreCoalesces(t *testing.T) { backends.Run(t, testSyncStoreCoalesces) }

func testSyncStoreCoalesces(t *testing.T, b kvstore.Backend) {
	l := connect(b)
	s := newSync(t, l, nil)
	for i := range 100 {
		must(t, s.Upsert("a", fmt.Append(nil, i)))
	}
	must(t, s.Upsert("b", []byte("x")))
	s.Delete("b")
	s.Delete("never seen")
	run(t, s.Run)
	must(t, s.Flush(t.Context(), "a"))
	must(t, s.Flush(t.Context(), "b"))
	must(t, s.Upsert("a", []byte("99")))
	must(t, s.Flush(t.Context(), "a"))
	if d, want := dump(t, b), map[string]string{prefix + "a": "99"}; !reflect.DeepEqual(d, want) || l.written() != 2 {
		t.Errorf("%v after %d writes", d, l.written())
	}
	if err := s.Run(t.Context()); !errs.Is(err, errs.BusyClass) {
		t.Errorf("run twice: %v", err)
	}
	for _, bad := range []error{s.Upsert("", nil), s.Upsert(strings.Repeat("n", 5000), nil), s.Upsert("x", make([]byte, store.MaxValue+1))} {
		if bad == nil {
			t.Error("a bad name or value was accepted")
		}
	}
}

// The newest value wins, whatever goes wrong on the way, and the canary comes last.
func TestSyncStoreUnderFaults(t *testing.T) { backends.Run(t, testSyncStoreUnderFaults) }

func testSyncStoreUnderFaults(t *testing.T, b kvstore.Backend) {
	l := connect(b)
	var mu sync.Mutex
	n := 0
	l.faults.Fail(func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; (op == "txn" || op == "txn after") && n%3 == 0 {
			return fmt.Errorf("%w: lost", kvstore.ErrNoQuorum)
		}
		return nil
	})
	s := newSync(t, l, func(c *store.SyncConfig) { c.MaxBatch, c.Workers = 7, 3 })
	run(t, s.Run)
	want := map[string]string{}
	for round := range 5 {
		for i := range 60 {
			name := fmt.Sprint("k", i)
			if (i+round)%5 == 0 {
				s.Delete(name)
				delete(want, prefix+name)
				continue
			}
			want[prefix+name] = fmt.Sprint(round, i)
			must(t, s.Upsert(name, []byte(want[prefix+name])))
		}
	}
	synced := make(chan map[string]string, 1)
	must(t, s.Synced(func() { synced <- dump(t, b) }))
	got := <-synced
	if got["/test/synced/things"] == "" {
		t.Error("no canary")
	}
	delete(got, "/test/synced/things")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("when the canary came: %v\nwant %v", got, want)
	}
	if err := s.Synced(); !errs.IsConflict(err) {
		t.Errorf("synced twice: %v", err)
	}
	if s.Failures() == 0 {
		t.Error("no fault was met")
	}
	wait(t, "nothing is pending", func() bool { return s.Pending() == 0 })
}

// One value that the store refuses does not hold up the others.
func TestSyncStorePoison(t *testing.T) { backends.Run(t, testSyncStorePoison) }

func testSyncStorePoison(t *testing.T, b kvstore.Backend) {
	poison := refuse{b}
	l := connect(poison)
	s := newSync(t, l, nil)
	for i := range 20 {
		must(t, s.Upsert(fmt.Sprint("k", i), []byte("x")))
	}
	must(t, s.Upsert("poison", []byte("x")))
	run(t, s.Run)
	wait(t, "all others are written", func() bool { return len(dump(t, b)) == 20 })
}

type refuse struct{ kvstore.Backend }

func (r refuse) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	for _, o := range t.Then {
		if strings.HasSuffix(o.Key, "poison") {
			return kvstore.TxnResult{}, errs.Forbidden("no")
		}
	}
	return r.Backend.Txn(ctx, t)
}

func TestSyncStoreLease(t *testing.T) { backends.Run(t, testSyncStoreLease) }

func testSyncStoreLease(t *testing.T, b kvstore.Backend) {
	s := newSync(t, connect(b), nil)
	free := newSync(t, connect(b), func(c *store.SyncConfig) { c.Prefix, c.NoLease = "/test/free/", true })
	stop := run(t, s.Run)
	run(t, free.Run)
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprint("k", i)
		must(t, s.Upsert(names[i], []byte("x")))
	}
	must(t, free.Upsert("f", []byte("x")))
	must(t, s.Synced())
	wait(t, "everything is written", func() bool { return len(dump(t, b)) == 302 })
	lease := leaseOf(t, b, prefix+"k0")
	if lease == 0 || leaseOf(t, b, "/test/free/f") != 0 || leaseOf(t, b, "/test/synced/things") != lease {
		t.Error("leases are not what they should be")
	}
	must(t, b.Revoke(t.Context(), lease))
	if n := len(dump(t, b)); n != 1 {
		t.Fatalf("%d keys survived the lease", n)
	}
	must(t, s.Upsert("new", nil)) // the first to notice
	wait(t, "everything is back", func() bool { return len(dump(t, b)) == 303 })
	stop()
	if n := len(dump(t, b)); n != 303 {
		t.Errorf("stopping took keys away: %d are left", n)
	}
}

func leaseOf(t testing.TB, b kvstore.Backend, key string) kvstore.LeaseID {
	t.Helper()
	r, err := b.Range(t.Context(), kvstore.Range{Key: key})
	must(t, err)
	if len(r.KVs) == 0 {
		t.Fatalf("no %s", key)
	}
	return r.KVs[0].Lease
}

// log collects what an observer hears.
type log struct {
	mu  sync.Mutex
	got []string
}

func (l *log) add(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, fmt.Sprintf(format, a...))
}

func (l *log) take() []string { l.mu.Lock(); defer l.mu.Unlock(); g := l.got; l.got = nil; return g }

func (l *log) has(want ...string) func() bool {
	return func() bool { l.mu.Lock(); defer l.mu.Unlock(); return reflect.DeepEqual(l.got, want) }
}

func decode(_ string, data []byte) (string, error) {
	if strings.Contains(string(data), "bad") {
		return "", errors.New("bad")
	}
	return string(data), nil
}

func TestWatchStoreTellsDifferences(t *testing.T) { backends.Run(t, testWatchStoreTellsDifferences) }

func testWatchStoreTellsDifferences(t *testing.T, one kvstore.Backend) {
	two := backends.Mem(t)
	c1, c2 := connect(one), connect(two)
	put := func(c *link, key, value string) {
		t.Helper()
		_, _, err := c.Update(t.Context(), key, []byte(value), 0)
		must(t, err)
	}
	var l log
	syncs := 0
	w, err := store.NewWatchStore(store.WatchConfig[string]{Decode: decode,
		OnUpdate: func(n, v string) { l.add("+%s=%s", n, v) }, OnDelete: func(n, v string) { l.add("-%s=%s", n, v) }, OnSync: func() { syncs++ }})
	must(t, err)
	put(c1, "/p/a", "1")
	put(c1, "/p/b", "1")
	put(c1, "/p/x", "bad")
	stop := run(t, func(ctx context.Context) error { return w.Watch(ctx, c1, "/p/") })
	wait(t, "the list is complete", w.Synced)
	if err := w.Watch(t.Context(), c1, "/p/"); !errs.Is(err, errs.BusyClass) {
		t.Errorf("watched twice: %v", err)
	}
	if err := w.Drain(); !errs.Is(err, errs.BusyClass) {
		t.Errorf("drained while watched: %v", err)
	}
	put(c1, "/p/c", "1")
	put(c1, "/p/c", "bad")
	put(c1, "/p/c", "2")
	wait(t, "changes are told", l.has("+a=1", "+b=1", "+c=1", "+c=2"))
	stop()
	if w.Synced() || w.Len() != 3 {
		t.Errorf("after the watch: synced %v, %d values", w.Synced(), w.Len())
	}
	l.take()
	put(c2, "/q/a", "1")
	put(c2, "/q/d", "1")
	stop = run(t, func(ctx context.Context) error { return w.Watch(ctx, c2, "/q/") })
	wait(t, "the other store is told", func() bool { return w.Synced() && w.Len() == 2 })
	stop()
	if got := l.take(); len(got) != 4 || got[0] != "+a=1" || got[1] != "+d=1" {
		t.Errorf("%v", got)
	}
	if v, ok := w.Get("d"); !ok || v != "1" || len(w.All()) != 2 {
		t.Errorf("%q %v %v", v, ok, w.All())
	}
	must(t, w.Drain())
	if got := l.take(); len(got) != 2 || w.Len() != 0 || syncs != 1 {
		t.Errorf("%v, %d left, %d syncs", got, w.Len(), syncs)
	}
}

func TestManager(t *testing.T) { backends.Run(t, testManager) }

func testManager(t *testing.T, b kvstore.Backend) {
	c := connect(b)
	var l log
	for _, tt := range []struct {
		name, prefix string
		wait         bool
	}{{"canaries", "/synced/", true}, {"immediate", "", false}} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := store.NewManager(c, tt.prefix)
			must(t, err)
			for _, n := range []string{"a", "b"} {
				must(t, m.Register(n, func(ctx context.Context) { l.add("%s", n); <-ctx.Done() }))
			}
			if err := m.Register("a", nil); !errs.IsExists(err) {
				t.Errorf("%v", err)
			}
			stop := run(t, m.Run)
			if tt.wait {
				for _, n := range []string{"unknown", "b"} {
					_, _, err := c.Update(t.Context(), "/synced/"+n, nil, 0)
					must(t, err)
				}
				wait(t, "b starts alone", l.has("b"))
				_, _, err := c.RemovePrefix(t.Context(), "/synced/")
				must(t, err)
				for range 2 { // twice: once only
					_, _, err = c.Update(t.Context(), "/synced/b", nil, 0)
					must(t, err)
				}
				_, _, err = c.Update(t.Context(), "/synced/a", nil, 0)
				must(t, err)
				wait(t, "a starts", l.has("b", "a"))
			} else {
				wait(t, "both start", func() bool { return l.has("a", "b")() || l.has("b", "a")() })
			}
			if err := m.Register("late", nil); !errs.Is(err, errs.BusyClass) {
				t.Errorf("%v", err)
			}
			stop()
			l.take()
		})
	}
}

func newShared(t testing.TB, l *link, name string, o *log, change func(*store.SharedConfig[string])) *store.Shared[string] {
	t.Helper()
	cfg := store.SharedConfig[string]{SyncConfig: store.SyncConfig{Client: l.Client, Prefix: prefix}, Decode: decode}
	if o != nil {
		cfg.OnUpdate = func(n, v string) { o.add("+%s=%s", n, v) }
		cfg.OnDelete = func(n, v string) { o.add("-%s=%s", n, v) }
	}
	if change != nil {
		change(&cfg)
	}
	s, err := store.NewShared(cfg)
	must(t, err)
	return s
}

func TestSharedStore(t *testing.T) { backends.Run(t, testSharedStore) }

func testSharedStore(t *testing.T, b kvstore.Backend) {
	l1, l2 := connect(b), connect(b)
	var o log
	one := newShared(t, l1, "one", nil, nil)
	two := newShared(t, l2, "two", &o, nil)
	run(t, one.Run)
	run(t, two.Run)
	must(t, two.Ready(t.Context()))
	must(t, one.Update(t.Context(), "a", []byte("1")))
	must(t, one.Update(t.Context(), "a", []byte("2")))
	wait(t, "the other sees both", o.has("+a=1", "+a=2"))
	if err := one.Update(t.Context(), "a", []byte("bad")); err == nil {
		t.Error("wrote what nobody can read")
	}
	if err := two.Delete(t.Context(), "a"); err != nil || len(dump(t, b)) != 1 {
		t.Errorf("deleted what another owns: %v", err)
	}
	o.take()
	_, _, err := l2.Remove(t.Context(), prefix+"a")
	must(t, err)
	wait(t, "the own value is put back", func() bool { return dump(t, b)[prefix+"a"] == "2" })
	wait(t, "the other sees it again", func() bool { return two.All()["a"] == "2" })
	if one.All()["a"] != "2" {
		t.Errorf("%v", one.All())
	}
	must(t, one.DeleteAll(t.Context()))
	wait(t, "the other hears of the deletion", func() bool { _, ok := two.All()["a"]; return !ok })
	if n := len(dump(t, b)); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// A change by somebody else is undone by the comparison.
func TestSharedStoreCompares(t *testing.T) { backends.Run(t, testSharedStoreCompares) }

func testSharedStoreCompares(t *testing.T, b kvstore.Backend) {
	l := connect(b)
	s := newShared(t, l, "s", nil, func(c *store.SharedConfig[string]) { c.SyncInterval = 10 * time.Millisecond })
	run(t, s.Run)
	must(t, s.Update(t.Context(), "a", []byte("mine")))
	_, _, err := connect(b).Update(t.Context(), prefix+"a", []byte("theirs"), 0)
	must(t, err)
	wait(t, "the own value is back", func() bool { return dump(t, b)[prefix+"a"] == "mine" && s.All()["a"] == "mine" })
}

// A value that comes back in time is not reported as deleted.
func TestSharedStoreDeleteDelay(t *testing.T) { backends.Run(t, testSharedStoreDeleteDelay) }

func testSharedStoreDeleteDelay(t *testing.T, b kvstore.Backend) {
	l := connect(b)
	var o log
	s := newShared(t, l, "s", &o, func(c *store.SharedConfig[string]) { c.DeleteDelay = time.Hour })
	short := newShared(t, connect(b), "short", nil, func(c *store.SharedConfig[string]) { c.DeleteDelay = 30 * time.Millisecond })
	run(t, s.Run)
	run(t, short.Run)
	for _, v := range []string{"1", "", "2", ""} {
		if v == "" {
			_, _, err := l.Remove(t.Context(), prefix+"a")
			must(t, err)
			continue
		}
		_, _, err := l.Update(t.Context(), prefix+"a", []byte(v), 0)
		must(t, err)
		wait(t, "it is seen", func() bool { return s.All()["a"] == v })
	}
	wait(t, "the short delay is over", func() bool { return len(short.All()) == 0 })
	if got := o.take(); !reflect.DeepEqual(got, []string{"+a=1", "+a=2"}) {
		t.Errorf("%v", got)
	}
	must(t, s.Update(t.Context(), "own", []byte("1")))
	wait(t, "it is seen", func() bool { return s.All()["own"] == "1" })
	must(t, s.Delete(t.Context(), "own"))
	wait(t, "an own deletion has no delay", o.has("+own=1", "-own=1"))
}

// BenchmarkSyncStore writes 10,000 leased keys through a SyncStore into an embedded etcd in memory.
func BenchmarkSyncStore(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "shoal-store-")
	if err != nil {
		dir = b.TempDir()
	}
	m, err := elastic.Start(context.Background(), elastic.Config{Name: "m1", Dir: dir, NoSync: true})
	must(b, err)
	back := etcd.New(m.Client())
	defer func() {
		back.Close()
		must(b, m.Stop(context.Background()))
		must(b, os.RemoveAll(dir))
	}()
	s := newSync(b, connect(back), nil)
	stop := run(b, s.Run)
	must(b, s.Upsert("first", nil))
	must(b, s.Flush(b.Context(), "first"))
	var spent time.Duration
	for round := 0; b.Loop(); round++ {
		start := time.Now()
		for i := range 10000 {
			must(b, s.Upsert(fmt.Sprint("k", i), fmt.Append(nil, "value of about a hundred bytes, as they are in most of the stores that use this", round)))
		}
		for s.Pending() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
		spent += time.Since(start)
	}
	b.ReportMetric(float64(10000*b.N)/spent.Seconds(), "ops/s") // the store in this process included
	b.ReportMetric(0, "ns/op")
	stop()
}
