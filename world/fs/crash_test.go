package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/fs"
)

var errDead = errs.Unavailable("the client is dead")

// scenario is something that a client does; before and after are the only two trees that others may see.
type scenario struct {
	name string
	do   func(ctx context.Context, f *fs.FS) error
}

func scenarios() []scenario {
	big := func(seed uint64) []byte { return noise(seed, 7*fs.MinChunk+9) }
	return []scenario{
		{"put new", func(ctx context.Context, f *fs.FS) error {
			_, err := f.Replace(ctx, "/d/new", bytes.NewReader(big(5)), fs.ReplaceOptions{Perm: 0o600})
			return err
		}},
		{"put over", func(ctx context.Context, f *fs.FS) error {
			_, err := f.Replace(ctx, "/d/big", bytes.NewReader(big(6)), fs.ReplaceOptions{})
			return err
		}},
		{"write", func(ctx context.Context, f *fs.FS) error {
			h, err := f.OpenFile(ctx, "/d/big", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if _, err := h.WriteAt([]byte("in the middle"), 3*fs.MinChunk-5); err != nil {
				return err
			}
			return h.Close()
		}},
		{"shrink", func(ctx context.Context, f *fs.FS) error { return f.Truncate(ctx, "/d/big", fs.MinChunk+5) }},
		{"mkdir", func(ctx context.Context, f *fs.FS) error { return f.Mkdir(ctx, "/d/e", 0o755) }},
		{"symlink", func(ctx context.Context, f *fs.FS) error { return f.Symlink(ctx, "big", "/d/l") }},
		{"rename over", func(ctx context.Context, f *fs.FS) error { return f.Rename(ctx, "/d/big", "/d/small") }},
		{"rename dir", func(ctx context.Context, f *fs.FS) error { return f.Rename(ctx, "/d", "/dd") }},
		{"remove", func(ctx context.Context, f *fs.FS) error { return f.Remove(ctx, "/d/big") }},
		{"removeall", func(ctx context.Context, f *fs.FS) error { return f.RemoveAll(ctx, "/d") }},
		{"chmod", func(ctx context.Context, f *fs.FS) error { return f.Chmod(ctx, "/d/big", 0o400) }},
	}
}

// crashWorld is a volume for scenarios.
func crashWorld(t *testing.T) (*world, *fs.FS) {
	w := newWorld(t)
	f := w.volume(fs.MinChunk)
	must(t, f.MkdirAll(t.Context(), "/d/sub/sub", 0o755))
	put(t, f, "/d/big", noise(1, 6*fs.MinChunk))
	put(t, f, "/d/small", []byte("small"))
	for i := range 5 {
		put(t, f, fmt.Sprint("/d/sub/", i), noise(uint64(i), 2*fs.MinChunk))
	}
	return w, f
}

// TestCrash has the client die before, and after, each of its calls to the database. Others see the tree as it was or as it was to become; when the
// client's lease is over the collector leaves nothing, and what was to be done can be done.
func TestCrash(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			var before, after []string
			{
				_, f := crashWorld(t)
				before = dump(t, ours(t, f).tree())
				must(t, sc.do(t.Context(), f))
				after = dump(t, ours(t, f).tree())
			}
			if slices.Equal(before, after) {
				t.Fatal("the scenario does nothing")
			}
			for _, when := range []string{"txn", "txn after", "range", "grant"} {
				for n := 0; ; n++ {
					if !crash(t, sc, when, n, before, after) {
						break
					}
				}
			}
		})
	}
}

// crash lets the n-th call of a kind be the last. It is false when there is no n-th.
func crash(t *testing.T, sc scenario, when string, n int, before, after []string) (died bool) {
	synctest.Test(t, func(t *testing.T) {
		w, f := crashWorld(t)
		g, err := w.node().Open(t.Context(), "v")
		must(t, err)
		var mu sync.Mutex
		count, dead := 0, false
		w.faults.Fail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == when {
				count++
			}
			if dead = dead || count > n; dead {
				return errDead
			}
			return nil
		})
		err = sc.do(t.Context(), f)
		mu.Lock() // what is read ahead may still be on its way
		died = dead
		mu.Unlock()
		if died == (err == nil) && !(died && sc.name == "removeall") { // its rest is the collector's
			t.Errorf("%s %d: %v", when, n, err)
		}
		got := dump(t, ours(t, g).tree())
		if !slices.Equal(got, before) && !slices.Equal(got, after) {
			t.Errorf("%s %d: others see\n%.3000q", when, n, got)
		}
		if c, err := w.node().GC(t.Context()); err != nil {
			t.Errorf("%s %d: collect while the client's lease lives: %+v, %v", when, n, c, err)
		}
		_ = w.kv.Close() // the process is gone
		time.Sleep(time.Minute)
		w.faults.Fail(nil)
		w.kv, w.st = w.client(shared{w.b})
		if n := w.keys("session/") + w.keys("pin/"); n != 0 {
			t.Errorf("%s: %d keys of the dead client are left", when, n)
		}
		consistent(t, w)
		if got2 := dump(t, ours(t, g).tree()); !slices.Equal(got, got2) {
			t.Errorf("%s %d: the collector changed the tree", when, n)
		}
		if slices.Equal(got, before) && !slices.Equal(got, after) {
			must(t, sc.do(t.Context(), g))
			if got := dump(t, ours(t, g).tree()); !slices.Equal(got, after) {
				t.Errorf("%s %d: after another try\n%.3000q", when, n, got)
			}
		}
	})
	return died
}

// TestLostAnswer: whoever calls Sync again after an error that leaves the outcome open learns that it happened.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	h, err := f.Create(ctx, "/x")
	must(t, err)
	b := noise(1, 30_000)
	_, err = h.Write(b)
	must(t, err)
	g, err := w.node().Open(ctx, "v")
	must(t, err)
	lost := false
	w.faults.Fail(func(op string) error {
		if op != "txn after" || lost {
			return nil
		}
		if i, err := g.Stat(ctx, "/x"); err == nil && i.Size() > 0 {
			lost = true
			return errDead
		}
		return nil
	})
	if err := h.Sync(); !errs.Is(err, errs.UnavailableClass) || !lost {
		t.Fatalf("lost %v: %v", lost, err)
	}
	must(t, h.Sync())
	_, err = h.WriteAt([]byte("more"), 0)
	must(t, err)
	must(t, h.Close())
	copy(b, "more")
	want(t, g, "/x", b)
}

// TestCollectorBesideUpload runs the collector between all steps of uploads that share blobs with what is being removed.
func TestCollectorBesideUpload(t *testing.T) {
	w := newWorld(t)
	f, ctx := w.volume(fs.MinChunk), t.Context()
	b := noise(1, 6*fs.MinChunk)
	other := w.node()
	busy := false
	for n := range 40 { // the file is removed and the collector runs before the n-th transaction of the upload
		put(t, f, "/old", b)
		count := 0
		var mu sync.Mutex
		w.faults.Fail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op != "txn" {
				return nil
			}
			if count++; count == n+1 && !busy {
				busy = true
				g, err := other.Open(ctx, "v")
				must(t, err)
				must(t, g.Remove(ctx, "/old"))
				_, err = other.GC(ctx)
				must(t, err)
				busy = false
			}
			return nil
		})
		put(t, f, "/new", b)
		w.faults.Fail(nil)
		_, err := other.GC(ctx)
		must(t, err)
		want(t, f, "/new", b)
		must(t, f.RemoveAll(ctx, "/"))
		w.gc()
		if n := w.keys("blob/"); n != 0 {
			t.Fatalf("%d blobs are left", n)
		}
	}
}

// TestUploadBesideCollector makes a file of blobs that nobody names before each call of a collection: from its mark on they are dead to it.
func TestUploadBesideCollector(t *testing.T) {
	w := newWorld(t)
	w.volume(fs.MinChunk)
	ctx, b := t.Context(), noise(1, 6*fs.MinChunk)
	g, err := w.node().Open(ctx, "v")
	must(t, err)
	for n, more := 0, true; more; n++ {
		put(t, g, "/old", b)
		must(t, g.Remove(ctx, "/old"))
		count := 0
		w.faults.Fail(func(op string) error {
			if count++; count == n+1 && op != "txn after" {
				put(t, g, "/new", b)
			}
			return nil
		})
		w.gc()
		w.faults.Fail(nil)
		more = count > n
		if _, err := g.Stat(ctx, "/new"); err == nil {
			want(t, g, "/new", b)
			must(t, g.Remove(ctx, "/new"))
		}
		w.gc()
	}
	consistent(t, w)
}

// TestLeaseLost cuts an uploading client off for longer than its lease: what was not collected meanwhile is used, what was is an error.
func TestLeaseLost(t *testing.T) {
	for _, collected := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f, ctx := w.volume(fs.MinChunk), t.Context()
			h, err := f.Create(ctx, "/x")
			must(t, err)
			b := noise(1, 5<<20)
			_, err = h.Write(b)
			must(t, err)
			if w.keys("pin/") == 0 {
				t.Fatal("nothing was uploaded yet")
			}
			w.faults.Fail(func(op string) error { return errDead })
			time.Sleep(time.Minute)
			w.faults.Fail(nil)
			if n := w.keys("pin/"); n != 0 {
				t.Fatalf("%d pins outlived their lease", n)
			}
			if collected {
				w.gc()
			}
			err = h.Close()
			switch {
			case !collected:
				must(t, err)
				want(t, f, "/x", b)
			case !errors.Is(err, fs.ErrLost):
				t.Errorf("close after the blobs were collected: %v", err)
			default:
				want(t, f, "/x", nil)
			}
			consistent(t, w)
		})
	}
}

// TestConcurrent has clients do random things to the same few paths, a collector among them: what remains hangs together.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	f := w.volume(fs.MinChunk)
	must(t, f.MkdirAll(t.Context(), "/p/q/r", 0o755))
	var wg sync.WaitGroup
	for n := range 6 {
		g, err := w.node().Open(t.Context(), "v")
		must(t, err)
		wg.Go(func() { mess(t, g, uint64(n)) })
	}
	for range 20 {
		w.gc()
	}
	wg.Wait()
	dump(t, ours(t, f).tree()) // every file can be read to its end
	consistent(t, w)
}

// mess moves directories around and writes files.
func mess(t *testing.T, f *fs.FS, seed uint64) {
	ctx, dirs := t.Context(), []string{"p", "q", "r"}
	r := noise(seed, 1000)
	path := func(i int) string {
		p := ""
		for k := range 1 + int(r[i]%4) {
			p += "/" + dirs[r[i+1+k]%3]
		}
		return p
	}
	for i := 0; i+12 < len(r); i += 12 {
		var err error
		switch r[i] % 6 {
		case 0, 1:
			err = f.Rename(ctx, path(i+1), path(i+6))
		case 2:
			err = f.MkdirAll(ctx, path(i+1), 0o755)
		case 3:
			err = f.RemoveAll(ctx, path(i+1))
		default:
			_, err = f.Replace(ctx, path(i+1)+"/f", bytes.NewReader(noise(uint64(r[i+7]%3), 20_000)), fs.ReplaceOptions{Perm: 0o644})
		}
		if c := errs.ClassOf(fs.Classify(err)); err != nil && (c == errs.Internal || c == errs.UnavailableClass) {
			t.Errorf("%v", err)
		}
	}
}

// TestCounter: of many who read, add and write with a condition none is lost.
func TestCounter(t *testing.T) {
	w := newWorld(t)
	f := w.volume(0)
	put(t, f, "/n", nil)
	var wg sync.WaitGroup
	const nodes, each = 4, 10
	for range nodes {
		g, err := w.node().Open(t.Context(), "v")
		must(t, err)
		wg.Go(func() {
			for done := 0; done < each; {
				i, err := g.Stat(t.Context(), "/n")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = g.Replace(t.Context(), "/n", strings.NewReader(strings.Repeat("x", int(i.Size())+1)), fs.ReplaceOptions{Match: i.ETag()})
				if err == nil {
					done++
				} else if !errs.Is(err, errs.Precondition) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if i, err := f.Stat(t.Context(), "/n"); err != nil || i.Size() != nodes*each {
		t.Errorf("%d, %v; want %d", i.Size(), err, nodes*each)
	}
}
