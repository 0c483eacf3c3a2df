package allocator_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// newEtcd starts an embedded member whose files are in memory, so that what is measured is not the disk.
func newEtcd(t testing.TB) kvstore.Backend {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shoal-allocator-")
	if err != nil {
		dir = t.TempDir()
	}
	m, err := elastic.Start(context.Background(), elastic.Config{Name: "m1", Dir: dir, NoSync: true})
	must(t, err)
	b := etcd.New(m.Client())
	t.Cleanup(func() {
		b.Close()
		must(t, m.Stop(context.Background()))
		must(t, os.RemoveAll(dir))
	})
	return b
}

// big is a range with room for whatever a benchmark allocates.
func big(c *allocator.Config, _ *allocator.KVConfig) { c.Max = 1<<24 - 1 }

// meter adds up the time and the processor time (of this process, the store included) that measured operations take.
type meter struct {
	ops        int
	spent, cpu time.Duration
}

func (m *meter) measure(ops int, do func()) {
	before, start := cpuTime(), time.Now()
	do()
	m.spent += time.Since(start)
	m.cpu += cpuTime() - before
	m.ops += ops
}

// cpuTime is what stays comparable when the machine is busy with something else.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (m *meter) report(b *testing.B) {
	b.ReportMetric(float64(m.ops)/m.spent.Seconds(), "ops/s")
	b.ReportMetric(float64(m.cpu.Microseconds())/float64(m.ops), "cpu-us/op")
	b.ReportMetric(0, "ns/op")
}

// each calls do for all keys from a number of workers.
func each(b *testing.B, workers int, keys []string, do func(string) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(keys); i = next.Add(1) - 1 {
				if err := do(keys[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkAllocateNew allocates 1000 new keys, one call each.
func BenchmarkAllocateNew(b *testing.B) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			n := newNode(b, newEtcd(b), "a", big)
			n.allocate(b, "first")
			var m meter
			for i := 0; b.Loop(); i++ {
				ks := keys(fmt.Sprintf("k%d-", i), 1000)
				m.measure(len(ks), func() {
					each(b, workers, ks, func(k string) error { _, err := n.Allocate(b.Context(), k); return err })
				})
			}
			m.report(b)
		})
	}
}

// BenchmarkAllocateMany allocates 10,000 new keys in one call. Each is three puts and two conditions, so a third of BenchmarkRawPuts is
// what can be had.
func BenchmarkAllocateMany(b *testing.B) {
	n := newNode(b, newEtcd(b), "a", big)
	n.allocate(b, "first")
	var m meter
	for i := 0; b.Loop(); i++ {
		ks := keys(fmt.Sprintf("k%d-", i), 10000)
		m.measure(len(ks), func() {
			_, err := n.AllocateMany(b.Context(), ks)
			must(b, err)
		})
	}
	m.report(b)
}

// BenchmarkAllocateExisting (one put and one condition each) allocates 10,000 keys that another node made: from 16 workers, from 256, and in one call.
func BenchmarkAllocateExisting(b *testing.B) {
	for _, workers := range []int{16, 256, 0} {
		name := fmt.Sprintf("workers=%d", workers)
		if workers == 0 {
			name = "batch"
		}
		b.Run(name, func(b *testing.B) {
			store := newEtcd(b)
			first, n := newNode(b, store, "a", big), newNode(b, store, "b", big)
			var m meter
			for i := 0; b.Loop(); i++ {
				ks := keys(fmt.Sprintf("k%d-", i), 10000)
				_, err := first.AllocateMany(b.Context(), ks)
				must(b, err)
				wait(b, "the other node hears", func() bool { return n.Stats().Known == (i+1)*10000 })
				m.measure(len(ks), func() {
					if workers == 0 {
						_, err = n.AllocateMany(b.Context(), ks)
						must(b, err)
						return
					}
					each(b, workers, ks, func(k string) error { _, err := n.Allocate(b.Context(), k); return err })
				})
			}
			m.report(b)
		})
	}
}

// BenchmarkCollect (two deletions and two conditions each) collects 10,000 ids that nobody uses; the time is the second round's, lists included.
func BenchmarkCollect(b *testing.B) {
	n := newNode(b, newEtcd(b), "a", big)
	var m meter
	for b.Loop() {
		ks := keys("k", 10000)
		_, err := n.AllocateMany(b.Context(), ks)
		must(b, err)
		must(b, n.ReleaseMany(b.Context(), ks))
		col, err := allocator.NewCollector(allocator.CollectorConfig{KV: n.kv})
		must(b, err)
		_, err = col.Run(b.Context())
		must(b, err)
		var s allocator.CollectStats
		m.measure(len(ks), func() { s, err = col.Run(b.Context()) })
		if err != nil || s.Deleted != 10000 {
			b.Fatalf("%+v %v", s, err)
		}
	}
	m.report(b)
}

// BenchmarkRawPuts is the peer of the others: 30,000 puts of the same size without conditions, 100 in a transaction, which is what
// the store itself can take.
func BenchmarkRawPuts(b *testing.B) {
	store := newEtcd(b)
	var m meter
	for i := 0; b.Loop(); i++ {
		m.measure(30000, func() {
			for from := 0; from < 30000; from += 100 {
				var t kvstore.Txn
				for j := range 100 {
					t.Then = append(t.Then, kvstore.Put(fmt.Sprintf("%skeys/k%d-%d", prefix, i, from+j), []byte("1234567 k1-10000")))
				}
				_, err := store.Txn(b.Context(), t)
				must(b, err)
			}
		})
	}
	m.report(b)
}
