package world_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world"
)

// The benchmarks run on an etcd in this process that does not sync its files; scripts/bench-world makes the table and has the aims.

func exports(n int, kind func(i int) string, data string) []world.Export {
	list := make([]world.Export, n)
	for i := range list {
		list[i] = world.Export{Kind: kind(i), Name: fmt.Sprint("name", i), Data: data}
	}
	return list
}

func one(kind string) func(int) string { return func(int) string { return kind } }

// ms reports the median of some times.
func ms(b *testing.B, name string, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name)
}

func timed(b *testing.B, f func()) time.Duration {
	b.Helper()
	began := time.Now()
	f()
	return time.Since(began)
}

func BenchmarkExport1000(b *testing.B) {
	w := machine(b, backends.Etcd(b), "h1")
	var changed, same []time.Duration
	for i := 0; b.Loop(); i++ {
		list := exports(1000, one("k"), fmt.Sprintf("%0200d", i))
		changed = append(changed, timed(b, func() { export(b, w, list...) }))
		same = append(same, timed(b, func() { export(b, w, list...) }))
	}
	ms(b, "changed-ms", changed)
	ms(b, "unchanged-ms", same)
}

func BenchmarkCollect10000(b *testing.B) {
	w := machine(b, backends.Etcd(b), "h1")
	export(b, w, exports(10_000, one("k"), fmt.Sprintf("%0200d", 1))...)
	var all []time.Duration
	for b.Loop() {
		all = append(all, timed(b, func() {
			if n := len(collectN(b, w, world.Filter{})); n != 10_000 {
				b.Fatal(n)
			}
		}))
	}
	ms(b, "ms", all)
}

func collectN(b *testing.B, w *world.World, f world.Filter) []world.Resource {
	b.Helper()
	rs, err := w.ResCollect(b.Context(), []world.Filter{f})
	must(b, err)
	return rs
}

func BenchmarkCollect100Of100000(b *testing.B) {
	c := &counting{Backend: backends.Etcd(b)}
	for m := range 10 {
		w := machine(b, c, fmt.Sprint("h", m))
		export(b, w, exports(10_000, func(i int) string { return fmt.Sprint("kind", i%1000) }, fmt.Sprintf("%0200d", 1))...)
	}
	w := machine(b, c, "h0")
	var all []time.Duration
	c.keys.Store(0)
	n := 0
	for b.Loop() {
		n++
		all = append(all, timed(b, func() {
			if n := len(collectN(b, w, world.Filter{Kind: "kind7"})); n != 100 {
				b.Fatal(n)
			}
		}))
	}
	ms(b, "ms", all)
	b.ReportMetric(float64(c.keys.Load())/float64(n), "keys-read")
}

func BenchmarkDeploySeenBy50(b *testing.B) {
	back := backends.Etcd(b)
	w := machine(b, back, "h0")
	type seen struct {
		id uint64
		at time.Time
	}
	ch := make(chan seen, 50)
	var wg sync.WaitGroup
	for i := range 50 {
		m := machine(b, back, fmt.Sprint("h", i+1))
		ws, err := m.WatchDeploy(b.Context())
		must(b, err)
		<-ws.C()
		b.Cleanup(ws.Close)
		wg.Go(func() {
			for range ws.C() {
				if id, err := m.GetMaxDeployID(b.Context()); err == nil {
					ch <- seen{id, time.Now()}
				}
			}
		})
	}
	var all []time.Duration
	for b.Loop() {
		began := time.Now()
		d := publish(b, w, "payload")
		for n := 0; n < 50; {
			if s := <-ch; s.id == d.ID {
				all = append(all, s.at.Sub(began))
				n++
			}
		}
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

func BenchmarkStrSet(b *testing.B) {
	for _, name := range []string{"raw", "changed", "unchanged"} {
		b.Run(name, func(b *testing.B) {
			w := machine(b, backends.Etcd(b), "h1")
			for i := 0; b.Loop(); i++ {
				var err error
				switch name {
				case "raw":
					_, err = w.KV().Txn(b.Context(), kvstore.Txn{Then: []kvstore.Op{kvstore.Put("k", fmt.Append(nil, i))}})
				case "changed":
					_, err = w.StrSet(b.Context(), "k", fmt.Sprint(i))
				default:
					_, err = w.StrSet(b.Context(), "k", "same")
				}
				must(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs")
		})
	}
}
