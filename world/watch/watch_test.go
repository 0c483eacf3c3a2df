package watch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/watch"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// next waits for an event; it is false when the channel was closed.
func next(t *testing.T, w *watch.Watch) bool {
	t.Helper()
	select {
	case _, ok := <-w.C():
		return ok
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
		return false
	}
}

func put(t *testing.T, c *kvstore.Client, key, value string) int64 {
	t.Helper()
	_, rev, err := c.Update(t.Context(), key, []byte(value), 0)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// sources are the ways to watch.
func sources(t *testing.T, f func(t *testing.T, b kvstore.Backend, c *kvstore.Client, src watch.Source)) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		t.Run("own", func(t *testing.T) {
			c := backends.Client(t, b)
			f(t, b, c, watch.Own(c))
		})
		t.Run("hub", func(t *testing.T) {
			c := backends.Client(t, b)
			f(t, b, c, c.NewHub(kvstore.HubConfig{Prefix: "w/", Pending: 100}))
		})
	})
}

// quiet proves that no event waits: a change of another key through the same stream makes the only one.
func quiet(t *testing.T, c *kvstore.Client, w *watch.Watch, src watch.Source) {
	t.Helper()
	other, err := watch.New(t.Context(), src, watch.Key("w/quiet"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	next(t, other)
	put(t, c, "w/quiet", time.Now().String())
	next(t, other)
	select {
	case <-w.C():
		t.Error("an event that nothing made")
	default:
	}
}

func TestFirstEvent(t *testing.T) {
	sources(t, func(t *testing.T, _ kvstore.Backend, c *kvstore.Client, src watch.Source) {
		for i := range 30 { // several pages of a list are one event
			put(t, c, fmt.Sprint("w/a/", i), "")
		}
		w, err := watch.New(t.Context(), src, watch.Prefix("w/a/"), watch.Prefix("w/b/"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		next(t, w)
		quiet(t, c, w, src)
		for _, k := range []string{"w/a/3", "w/b/new"} {
			put(t, c, k, "x")
			next(t, w)
			quiet(t, c, w, src)
		}
		if _, _, err := c.Remove(t.Context(), "w/a/3"); err != nil {
			t.Fatal(err)
		}
		next(t, w)
	})
}

// One key is watched, not what begins like it.
func TestKey(t *testing.T) {
	sources(t, func(t *testing.T, _ kvstore.Backend, c *kvstore.Client, src watch.Source) {
		w, err := watch.New(t.Context(), src, watch.Key("w/key"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		next(t, w)
		put(t, c, "w/key2", "")
		put(t, c, "w/key/x", "")
		quiet(t, c, w, src)
		put(t, c, "w/key", "")
		next(t, w)
	})
}

// A reader that sleeps through many changes, more than a queue holds, sees the last one.
func TestSlowReader(t *testing.T) {
	sources(t, func(t *testing.T, _ kvstore.Backend, c *kvstore.Client, src watch.Source) {
		w, err := watch.New(t.Context(), src, watch.Prefix("w/"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		next(t, w)
		var last string
		for i := range 1000 {
			last = fmt.Sprint(i)
			put(t, c, fmt.Sprintf("w/%d", i%200), last)
		}
		for n := 1; ; n++ {
			next(t, w)
			kv, _, err := c.Get(t.Context(), "w/199")
			if err != nil {
				t.Fatal(err)
			}
			if string(kv.Value) == last {
				break
			}
			if n > 1000 {
				t.Fatal("more events than changes")
			}
		}
	})
}

// Broken streams and forgotten revisions: the reader gets an event after each change all the same.
func TestResume(t *testing.T) {
	for _, kind := range []string{"own", "hub"} {
		t.Run(kind, func(t *testing.T) {
			f := kvtest.NewFaults(backends.Mem(t))
			c := backends.Client(t, f)
			src := watch.Own(c)
			if kind == "hub" {
				src = c.NewHub(kvstore.HubConfig{Prefix: "w/"})
			}
			w, err := watch.New(t.Context(), src, watch.Prefix("w/"))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			next(t, w)
			for i := range 20 {
				f.Break()
				rev := put(t, c, "w/a", fmt.Sprint(i))
				if i%3 == 0 {
					if err := c.Compact(t.Context(), rev); err != nil {
						t.Fatal(err)
					}
				}
				next(t, w)
				for len(w.C()) > 0 { // an event too many is allowed
					<-w.C()
				}
			}
		})
	}
}

// The end has a reason.
func TestEnd(t *testing.T) {
	why := errors.New("enough")
	sources(t, func(t *testing.T, b kvstore.Backend, c *kvstore.Client, src watch.Source) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w, err := watch.New(ctx, src, watch.Key("w/a"), watch.Key("w/b"))
		if err != nil {
			t.Fatal(err)
		}
		next(t, w)
		if err := w.Err(); err != nil {
			t.Errorf("ended: %v", err)
		}
		cancel(why)
		for next(t, w) {
		}
		if err := w.Err(); !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
		w.Close() // again is harmless

		w, err = watch.New(t.Context(), src, watch.Key("w/a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for next(t, w) {
		}
		if err := w.Err(); err == nil {
			t.Error("ended without a reason")
		}
	})
}

func TestBadTarget(t *testing.T) {
	c := backends.Client(t, backends.Mem(t))
	h := c.NewHub(kvstore.HubConfig{Prefix: "w/"})
	if _, err := watch.New(t.Context(), h, watch.Key("w/a"), watch.Key("x")); err == nil {
		t.Error("what the hub does not follow was watched")
	}
	if _, err := watch.New(t.Context(), h); err == nil {
		t.Error("nothing was watched")
	}
}
