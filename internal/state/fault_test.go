package state_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestRestoredServerIsReadAnew(t *testing.T) {
	server, other := mem.New(), mem.New()
	old := openOn(t, other)
	must[state.Item[thing]](t)(state.NewTable[thing](old, "things", 1).Create(t.Context(), "other", thing{}))
	db := openOn(t, server)
	tab := state.NewTable[thing](db, "things", 1)
	var gone []string
	tab.OnChange(func(c state.Change[thing]) {
		if c.New == nil {
			gone = append(gone, c.Key)
		}
	})
	for i := range 250 { // more than one page, and a higher revision than the other one's
		must[state.Item[thing]](t)(tab.Create(t.Context(), fmt.Sprint(i), thing{}))
	}
	server.Replace(other)
	wait(t, "the cache follows", func() bool { return names(tab.List("")) == "other" })
	must[state.Item[thing]](t)(tab.Create(t.Context(), "new", thing{}))
	db.Close() // the hooks run after the cache has changed; now they are through
	if len(gone) != 250 {
		t.Errorf("%d deletions were reported", len(gone))
	}
}

// Two databases and a watcher of one process share a stream of the store.
func TestOneStream(t *testing.T) {
	f := kvtest.NewFaults(mem.New())
	var streams atomic.Int64
	f.Fail(func(op string) error {
		if op == "watch" {
			streams.Add(1)
		}
		return nil
	})
	kv := kvstore.New(f, kvstore.Config{})
	defer kv.Close()
	first := must[*state.DB](t)(state.Open(t.Context(), kv, state.Options{}))
	defer first.Close()
	second := must[*state.DB](t)(state.Open(t.Context(), kv, state.Options{Hub: first.Hub()}))
	tab := state.NewTable[thing](second, "things", 1)
	it := must[state.Item[thing]](t)(state.NewTable[thing](first, "things", 1).Create(t.Context(), "a", thing{N: 1}))
	if err := second.WaitRev(t.Context(), it.Rev); err != nil {
		t.Fatal(err)
	}
	if got, err := tab.Get("a"); err != nil || got.Value.N != 1 {
		t.Errorf("%+v %v", got, err)
	}
	second.Close() // leaves the stream to the first
	must[state.Item[thing]](t)(state.NewTable[thing](first, "things", 1).Put(t.Context(), "a", thing{N: 2}))
	if n := streams.Load(); n != 1 {
		t.Errorf("%d streams", n)
	}
	if _, err := state.Open(t.Context(), kv, state.Options{Hub: first.Hub(), Prefix: "/elsewhere/"}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("a hub of another prefix: %v", err)
	}
}

func TestChaos(t *testing.T) {
	for name, b := range map[string]kvstore.Backend{"mem": mem.New(), "etcd": etcdBackend(t)} {
		t.Run(name, func(t *testing.T) { chaos(t, b) })
	}
}

// chaos writes while streams break, answers get lost and history is compacted behind the watch; then the cache and a
// mirror fed by changes must equal the store.
func chaos(t *testing.T, b kvstore.Backend) {
	f := kvtest.NewFaults(b)
	db := openOn(t, f)
	tab := state.NewTable[thing](db, "things", 1)
	mirror := map[string]int64{}
	tab.OnChange(func(c state.Change[thing]) {
		if c.New == nil {
			delete(mirror, c.Key)
		} else {
			mirror[c.Key] = c.New.Rev
		}
	})
	raw := kvstore.New(b, kvstore.Config{})
	var lost int
	f.Fail(func(op string) error {
		if op == "txn after" {
			if lost++; lost%7 == 0 {
				return fmt.Errorf("%w: answer lost", kvstore.ErrNoQuorum)
			}
		}
		return nil
	})
	for i := range 400 {
		key := fmt.Sprint(i * 7 % 50)
		var err error
		if i%3 == 2 {
			err = tab.Delete(t.Context(), key)
		} else {
			_, err = tab.Put(t.Context(), key, thing{N: i})
		}
		if err != nil && !errs.IsNotFound(err) && !errs.Is(err, errs.UnavailableClass) {
			t.Fatal(err)
		}
		if i%40 == 39 {
			f.Break()
			for range 2 {
				if _, _, err := raw.Update(t.Context(), state.DefaultPrefix+"things/x", []byte(`{"v":1,"d":{}}`), 0); err != nil {
					t.Fatal(err)
				}
			}
			h := must[kvstore.Header](t)(raw.Head(t.Context()))
			if err := b.Compact(t.Context(), h.Revision); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Linearizable(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	_, err := raw.List(t.Context(), state.DefaultPrefix+"things/", func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			want[strings.TrimPrefix(kv.Key, state.DefaultPrefix+"things/")] = kv.ModRevision
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for it := range tab.All("") {
		got[it.Key] = it.Rev
	}
	db.Close() // ends the feed, so that the mirror can be read
	if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(mirror) != fmt.Sprint(want) {
		t.Errorf("cache  %v\nmirror %v\nstore  %v", got, mirror, want)
	}
	if db.Lists() < 2 {
		t.Errorf("%d lists: the compaction never overtook the watch", db.Lists())
	}
	t.Logf("%d lists", db.Lists())
}

func TestWithoutStore(t *testing.T) {
	b := mem.New()
	db := openOn(t, b)
	tab := state.NewTable[thing](db, "things", 1)
	must[state.Item[thing]](t)(tab.Create(t.Context(), "a", thing{}))
	b.Close()
	if _, err := tab.Put(t.Context(), "a", thing{}); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("write: %v", err)
	}
	if err := db.Linearizable(t.Context()); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("linearizable: %v", err)
	}
	if _, err := tab.Get("a"); err != nil {
		t.Errorf("reads go on: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := state.Open(ctx, kvstore.New(b, kvstore.Config{}), state.Options{}); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("open: %v", err)
	}
}
