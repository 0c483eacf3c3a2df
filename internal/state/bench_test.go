package state_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func fill(b *testing.B, n int) (*state.DB, *state.Table[thing], *kvstore.Client) {
	store := mem.New()
	db := openOn(b, store)
	tab := state.NewTable[thing](db, "things", 1)
	m := map[string]string{}
	for i := range 20 {
		m[fmt.Sprintf("some.configuration.key.%d", i)] = "a value of thirty-two characters."
	}
	for i := 0; i < n; i += 100 {
		var ops []state.Op
		for j := i; j < min(i+100, n); j++ {
			ops = append(ops, tab.CreateOp(state.Key("default", fmt.Sprint(j)), thing{Name: fmt.Sprint(j), N: j, Map: m}))
		}
		if _, err := db.Txn(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	return db, tab, kvstore.New(store, kvstore.Config{})
}

// BenchmarkList lists 10,000 items of 1.4 kB from the cache, and the way it would be without one.
func BenchmarkList(b *testing.B) {
	const n = 10_000
	_, tab, kv := fill(b, n)
	b.Run("cache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := len(tab.List("default/")); got != n {
				b.Fatal(got)
			}
		}
	})
	b.Run("store", func(b *testing.B) {
		for b.Loop() {
			got := 0
			_, err := kv.List(b.Context(), state.DefaultPrefix+"things/", func(kvs []kvstore.KeyValue) error {
				for _, kv := range kvs {
					var v struct{ D thing }
					if err := json.Unmarshal(kv.Value, &v); err != nil {
						return err
					}
					got++
				}
				return nil
			})
			if err != nil || got != n {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkPut writes to a member in this process and reads what was written: what a write costs until reads see it, and without the tables.
func BenchmarkPut(b *testing.B) {
	kv := kvstore.New(etcdBackend(b), kvstore.Config{})
	defer kv.Close()
	db, err := state.Open(b.Context(), kv, state.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	tab := state.NewTable[thing](db, "things", 1)
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			if _, err := tab.Put(b.Context(), "a", thing{Name: "a"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("key", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := kv.Update(b.Context(), "/elsewhere", []byte(`{"v":1,"d":{"name":"a"}}`), 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	_, tab, _ := fill(b, 1000)
	b.Run("peek", func(b *testing.B) {
		for b.Loop() {
			tab.Peek("default/500")
		}
	})
	b.Run("private copy", func(b *testing.B) {
		for b.Loop() {
			if _, err := tab.Get("default/500"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestListDoesNotDecode holds what the benchmark shows: a list of 10,000 makes a handful of allocations.
func TestListDoesNotDecode(t *testing.T) {
	db := state.NewMemory()
	tab := state.NewTable[thing](db, "things", 1)
	for i := 0; i < 10_000; i += 100 {
		var ops []state.Op
		for j := i; j < i+100; j++ {
			ops = append(ops, tab.CreateOp(fmt.Sprint(j), thing{Name: "n", Tags: []string{"t"}}))
		}
		if _, err := db.Txn(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(3, func() { tab.List("") }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}
