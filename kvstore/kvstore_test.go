package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T) (*mem.Store, *kvtest.Faults, *kvstore.Client) {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	f := kvtest.NewFaults(s)
	c := kvstore.New(f, kvstore.Config{CheckInterval: 10 * time.Millisecond, CallTimeout: 100 * time.Millisecond})
	t.Cleanup(func() { c.Close() })
	return s, f, c
}

func down(string) error { return kvstore.ErrNoQuorum }

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a/": "a0", "a\xff": "b", "\xff\xff": "\x00", "": "\x00"} {
		if got := kvstore.PrefixEnd(prefix); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}

func FuzzPrefixEnd(f *testing.F) {
	f.Add("a/", "a/b")
	f.Add("\xff", "\xff\xff")
	f.Fuzz(func(t *testing.T, prefix, key string) {
		end := kvstore.PrefixEnd(prefix)
		in := key >= prefix && (end == "\x00" || key < end)
		if has := len(key) >= len(prefix) && key[:len(prefix)] == prefix; in != has {
			t.Errorf("key %q, prefix %q, end %q: in range %v, has prefix %v", key, prefix, end, in, has)
		}
	})
}

func TestCallsEndInTime(t *testing.T) {
	_, f, c := client(t)
	f.Latency(time.Hour)
	for what, call := range map[string]func() error{
		"get":  func() error { _, _, err := c.Get(t.Context(), "a"); return err },
		"put":  func() error { _, _, err := c.Update(t.Context(), "a", nil, 0); return err },
		"list": func() error { _, err := c.List(t.Context(), "", nil); return err },
		"lock": func() error { _, err := c.Lock(t.Context(), "l", time.Second); return err },
	} {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) || !errs.Is(kvstore.Hint(err), errs.UnavailableClass) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A lease that cannot be renewed is lost for its holder before it can be lost for the store.
func TestLeaseIsLostWithoutTheStore(t *testing.T) {
	s, f, c := client(t)
	l, err := c.Lock(t.Context(), "l", 150*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	f.Fail(down)
	<-l.Done()
	held := l.Held()
	for { // the store gives the lock to the next one
		r, err := s.Range(t.Context(), kvstore.Range{Key: held.Key})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.KVs) == 0 {
			break
		}
	}
	if err := l.Unlock(t.Context()); !errors.Is(err, kvstore.ErrNoQuorum) {
		t.Errorf("unlock: %v", err)
	}
	f.Fail(nil)
	next, err := c.Lock(t.Context(), "l", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWatcherOutlivesTheStoresTroubles(t *testing.T) {
	_, f, c := client(t)
	var reads atomic.Int64
	f.Fail(func(op string) error {
		if op == "range" && reads.Add(1) < 4 {
			return kvstore.ErrNoQuorum
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan kvstore.Batch)
	done := make(chan error)
	w := c.NewWatcher("p/")
	go func() { done <- w.Run(ctx, func(b kvstore.Batch) error { got <- b; return nil }) }()
	if b := <-got; !b.ListDone || b.Revision == 0 {
		t.Fatalf("%+v", b)
	}
	for i := range 5 {
		f.Break()
		if _, _, err := c.Update(ctx, fmt.Sprintf("p/%d", i), nil, 0); err != nil {
			t.Fatal(err)
		}
		if b := <-got; len(b.Events) != 1 || b.Events[0].KV.Key != fmt.Sprintf("p/%d", i) || b.Reset || b.ListDone {
			t.Fatalf("%d: %+v", i, b)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || w.Lists() != 4 {
		t.Errorf("%v after %d lists", err, w.Lists())
	}
}

func TestTxnIsCheckedBeforeItIsSent(t *testing.T) {
	_, f, c := client(t)
	f.Fail(func(string) error { t.Error("it was sent"); return nil })
	_, err := c.Txn(t.Context(), kvstore.Txn{Then: []kvstore.Op{kvstore.Put("a", nil), kvstore.Put("a", nil)}})
	if !errors.Is(err, kvstore.ErrDuplicateKey) || !errs.Is(err, errs.InvalidInput) {
		t.Error(err)
	}
}
