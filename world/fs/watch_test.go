package fs_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/world/fs"
)

// TestWatch compares what a watcher is told with what was done.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	must(t, f.MkdirAll(ctx, "/d/e", 0o755))
	put(t, f, "/d/x", []byte("1"))
	g, err := w.node().Open(ctx, "v")
	must(t, err)
	told := make(chan string, 100)
	wctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- g.Watch(wctx, "/d", func(c fs.Changes) error {
			if c.Reset {
				told <- "stands"
			}
			for _, x := range c.Changes {
				told <- fmt.Sprint(x.Type, " ", x.Path)
			}
			return nil
		})
	}()
	for _, tt := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return nil }, []string{"stands"}},
		{func() error { return f.Mkdir(ctx, "/elsewhere", 0o755) }, nil},
		{func() error { return f.Mkdir(ctx, "/d/new", 0o755) }, []string{"created /d/new"}},
		{func() error { put(t, f, "/d/x", noise(1, 50_000)); return nil }, []string{"written /d/x"}},
		{func() error { return f.Chmod(ctx, "/d/e", 0o700) }, []string{"written /d/e"}},
		{func() error { return f.Rename(ctx, "/d/x", "/d/e/y") }, []string{"removed /d/x", "created /d/e/y"}},
		{func() error { return f.Rename(ctx, "/d/e", "/d/ee") }, []string{"removed /d/e", "created /d/ee"}},
		{func() error { put(t, f, "/d/ee/y", nil); return nil }, []string{"written /d/ee/y"}},
		{func() error { return f.Rename(ctx, "/d/ee", "/out") }, []string{"removed /d/ee"}},
		{func() error { return f.Rename(ctx, "/out", "/d/back") }, []string{"created /d/back"}},
		{func() error { return f.Remove(ctx, "/d/back/y") }, []string{"removed /d/back/y"}},
		{func() error { return f.RemoveAll(ctx, "/d") }, []string{"removed /d"}},
	} {
		must(t, tt.do())
		for _, want := range tt.want {
			if got := <-told; got != want {
				t.Fatalf("told %q, want %q", got, want)
			}
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWatchModel has a watcher keep a set of paths by what it is told, and compares it with the tree.
func TestWatchModel(t *testing.T) {
	w := newWorld(t)
	f := w.volume(0)
	enough := errors.New("enough")
	s := ours(t, f)
	r := rand.New(rand.NewPCG(7, 7))
	var known []string
	steps := 0
	err := f.Watch(t.Context(), "/", func(c fs.Changes) error {
		for _, x := range c.Changes {
			switch x.Type {
			case fs.Created:
				known = append(known, x.Path)
				// What is below came along.
				must(t, f.Walk(t.Context(), x.Path, below(x.Path, &known)))
			case fs.Removed:
				known = slices.DeleteFunc(known, func(p string) bool { return p == x.Path || strings.HasPrefix(p, x.Path+"/") })
			}
		}
		slices.Sort(known)
		known = slices.Compact(known)
		var now []string
		must(t, f.Walk(t.Context(), "/", below("/", &now)))
		slices.Sort(now)
		if !slices.Equal(known, now) {
			return fmt.Errorf("after %d steps %q, the watcher thinks %q", steps, now, known)
		}
		for before := head(t, w); before == head(t, w); { // one change at a time
			if steps++; steps > 600 {
				return enough
			}
			_, _ = someOp(r, 8).do(s)
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
}

// below collects paths but p itself.
func below(p string, into *[]string) iofs.WalkDirFunc {
	return func(q string, _ iofs.DirEntry, err error) error {
		if errors.Is(err, iofs.ErrNotExist) {
			return nil // gone since
		}
		if q = "/" + q; q != p && q != "/." {
			*into = append(*into, q)
		}
		return err
	}
}

func head(t *testing.T, w *world) int64 {
	t.Helper()
	h, err := w.kv.Head(t.Context())
	must(t, err)
	return h.Revision
}
