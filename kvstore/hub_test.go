package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// view is what a consumer knows.
type view struct {
	mu   sync.Mutex
	keys map[string]string
	rev  int64
	bad  error
}

func (v *view) apply(b kvstore.Batch) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range b.Events {
		if _, known := v.keys[e.KV.Key]; known == (e.Type == kvstore.Created) && !b.Reset && v.bad == nil {
			v.bad = fmt.Errorf("%s of %s, known: %v", e.Type, e.KV.Key, known)
		}
		if e.Type == kvstore.Deleted {
			delete(v.keys, e.KV.Key)
		} else {
			v.keys[e.KV.Key] = string(e.KV.Value)
		}
	}
	v.rev = max(v.rev, b.Revision)
	return nil
}

func (v *view) is(want map[string]string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Equal(v.keys, want)
}

// Many watchers on one stream see what watchers of their own would see, over broken connections and compactions.
func TestHubServesMany(t *testing.T) {
	s := mem.New()
	f := kvtest.NewFaults(s)
	var streams atomic.Int64
	f.Fail(func(op string) error {
		if op == "watch" {
			streams.Add(1)
		}
		return nil
	})
	c := kvstore.New(f, kvstore.Config{CheckInterval: 10 * time.Millisecond, Page: 5})
	defer c.Close()
	h := c.NewHub(kvstore.HubConfig{Prefix: "p/"})
	if _, err := h.NewWatcher("q/"); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("a prefix elsewhere: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	views := map[string][]*view{}
	start := func(prefix string) {
		v := &view{keys: map[string]string{}}
		views[prefix] = append(views[prefix], v)
		w, err := h.NewWatcher(prefix)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := w.Run(ctx, v.apply); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for i := range 400 {
		key := fmt.Sprintf("p/%c/%02d", 'a'+i%3, i%40)
		var err error
		if i%5 == 4 {
			_, _, err = c.Remove(t.Context(), key)
		} else {
			_, _, err = c.Update(t.Context(), key, fmt.Append(nil, i), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%40 == 0 {
			start([]string{"p/", "p/a/", "p/b/", "p/a/1", "p/c/"}[i/40%5])
		}
		if i%90 == 89 {
			f.Break()
			if i > 200 {
				head, err := c.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Compact(t.Context(), head.Revision); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for prefix, vs := range views {
		want := map[string]string{}
		kvs, _, err := c.ListPrefix(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range kvs {
			want[kv.Key] = string(kv.Value)
		}
		for _, v := range vs {
			eventually(t, "a watcher of "+prefix+" has seen everything", func() bool { return v.is(want) })
			if v.bad != nil {
				t.Errorf("%s: %v", prefix, v.bad)
			}
		}
	}
	if n := streams.Load(); n > 10 {
		t.Errorf("%d streams for %d watchers", n, len(views))
	}
	cancel()
	wg.Wait()
}

// One that does not keep up is cut off; the others see everything.
func TestHubCutsTheSlowOff(t *testing.T) {
	_, _, c := client(t)
	h := c.NewHub(kvstore.HubConfig{Prefix: "p/", Pending: 10})
	listed, release, slow := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		w, _ := h.NewWatcher("p/")
		slow <- w.Run(t.Context(), func(b kvstore.Batch) error {
			if b.ListDone {
				close(listed)
			} else if len(b.Events) > 0 {
				<-release
			}
			return nil
		})
	}()
	<-listed
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v := &view{keys: map[string]string{}}
	quick := make(chan error, 1)
	w, err := h.NewWatcher("p/")
	if err != nil {
		t.Fatal(err)
	}
	go func() { quick <- w.Run(ctx, v.apply) }()
	for i := range 100 { // one key over and over costs nobody anything
		if _, _, err := c.Update(t.Context(), "p/same", fmt.Append(nil, i), 0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the quick one follows", func() bool { return v.is(map[string]string{"p/same": "99"}) })
	for i := range 50 {
		if _, _, err := c.Update(t.Context(), fmt.Sprintf("p/%02d", i), nil, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the quick one follows", func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.keys) == i+2 })
	}
	close(release)
	if err := <-slow; !errors.Is(err, kvstore.ErrSlow) {
		t.Error(err)
	}
	cancel()
	if err := <-quick; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// One that asks for it lists again when it was cut off, and is told the difference.
func TestHubResyncsTheSlow(t *testing.T) {
	_, _, c := client(t)
	h := c.NewHub(kvstore.HubConfig{Prefix: "p/", Pending: 10})
	w, err := h.NewWatcher("p/")
	if err != nil {
		t.Fatal(err)
	}
	w.Resync()
	listed, release := make(chan struct{}), make(chan struct{})
	v := &view{keys: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first := true
	go func() {
		done <- w.Run(ctx, func(b kvstore.Batch) error {
			if b.ListDone && first {
				first = false
				close(listed)
				<-release
			}
			return v.apply(b)
		})
	}()
	<-listed
	want := map[string]string{}
	for i := range 50 {
		key := fmt.Sprintf("p/%02d", i)
		if _, _, err := c.Update(t.Context(), key, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		want[key] = "1"
	}
	close(release)
	eventually(t, "everything is seen", func() bool { return v.is(want) })
	if v.bad != nil || w.Lists() != 2 {
		t.Errorf("%d lists, %v", w.Lists(), v.bad)
	}
	cancel()
	<-done
}

// A hub that is closed ends its watchers, and takes no more; the client goes on.
func TestHubCloses(t *testing.T) {
	_, _, c := client(t)
	h := c.NewHub(kvstore.HubConfig{Prefix: "p/"})
	run := func(listed func()) error {
		w, err := h.NewWatcher("p/")
		if err != nil {
			t.Fatal(err)
		}
		return w.Run(t.Context(), func(b kvstore.Batch) error {
			if b.ListDone {
				listed()
			}
			return nil
		})
	}
	listed, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- run(func() { close(listed) }) }()
	<-listed
	h.Close()
	h.Close()
	if err := <-done; !errors.Is(err, kvstore.ErrClosed) {
		t.Error(err)
	}
	if err := run(func() { t.Error("listed after the end") }); !errors.Is(err, kvstore.ErrClosed) {
		t.Error(err)
	}
	if _, _, err := c.Update(t.Context(), "p/x", nil, 0); err != nil {
		t.Error(err)
	}
}

// The store is replaced under the hub: everybody lists anew.
func TestHubNoticesARestoredStore(t *testing.T) {
	s, _, c := client(t)
	if _, _, err := c.Update(t.Context(), "p/old", nil, 0); err != nil {
		t.Fatal(err)
	}
	h := c.NewHub(kvstore.HubConfig{Prefix: "p/"})
	w, err := h.NewWatcher("p/")
	if err != nil {
		t.Fatal(err)
	}
	v := &view{keys: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, v.apply) }()
	eventually(t, "the first list", func() bool { return v.is(map[string]string{"p/old": ""}) })
	other := mem.New()
	oc := kvstore.New(other, kvstore.Config{})
	defer oc.Close()
	if _, _, err := oc.Update(t.Context(), "p/new", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	s.Replace(other)
	eventually(t, "the new content", func() bool { return v.is(map[string]string{"p/new": "1"}) })
	cancel()
	<-done
}
