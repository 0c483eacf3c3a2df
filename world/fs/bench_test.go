package fs_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/fs"
)

// bench is a volume on an etcd in this process, which does not sync its files, and the etcd without us.
func bench(b *testing.B) (kvstore.Backend, *fs.Store, *fs.FS) {
	back := backends.Etcd(b)
	st, err := fs.New(fs.Deps{KV: backends.Client(b, back), Prefix: prefix})
	must(b, err)
	b.Cleanup(func() { _ = st.Close(b.Context()) })
	f, err := st.Create(b.Context(), "v", fs.VolumeOptions{})
	must(b, err)
	return back, st, f
}

// timed returns how long f takes, and the CPU time of the process meanwhile: client and server.
func timed(b *testing.B, f func()) (wall, cpu time.Duration) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start, before := time.Now(), used()
	f()
	return time.Since(start), used() - before
}

// parallel runs f for 0 to n-1, several at a time.
func parallel(b *testing.B, workers, n int, f func(i int) error) {
	var wg sync.WaitGroup
	todo := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range todo {
				if err := f(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		todo <- i
	}
	close(todo)
	wg.Wait()
}

// BenchmarkBigFile writes and reads 100 MB as a file, and the same bytes as bare keys with values of a chunk, four at a time. rate is ours by etcd's.
func BenchmarkBigFile(b *testing.B) {
	const size, chunk = 100_000_000, fs.DefaultChunk
	back, _, f := bench(b)
	ctx := b.Context()
	var wOurs, wRaw, rOurs, rRaw, cpuOurs, cpuRaw time.Duration
	for n := range b.N {
		data, other := noise(uint64(2*n), size), noise(uint64(2*n+1), size)
		key := func(i int) string { return fmt.Sprintf("/raw/%d/%d", n, i) }
		raws := func() {
			w, c := timed(b, func() {
				parallel(b, 4, size/chunk, func(i int) error {
					_, err := back.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Put(key(i), other[i*chunk:(i+1)*chunk])}})
					return err
				})
			})
			wRaw, cpuRaw = wRaw+w, cpuRaw+c
		}
		files := func() {
			w, c := timed(b, func() { put(b, f, "/big", data) })
			wOurs, cpuOurs = wOurs+w, cpuOurs+c
		}
		if runtime.GC(); n%2 == 0 {
			raws()
			files()
		} else { // what was written before slows down what comes after
			files()
			raws()
		}
		w, _ := timed(b, func() {
			for i := range size / chunk {
				if r, err := back.Range(ctx, kvstore.Range{Key: key(i)}); err != nil || len(r.KVs) != 1 {
					b.Fatal(len(r.KVs), err)
				}
			}
		})
		rRaw += w
		w, _ = timed(b, func() {
			h, err := f.Open(ctx, "/big")
			must(b, err)
			if k, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{h}, make([]byte, chunk)); err != nil || k != size {
				b.Fatal(k, err)
			}
			h.Abandon()
		})
		rOurs += w
	}
	mb := func(d time.Duration) float64 { return float64(b.N) * size / 1e6 / d.Seconds() }
	b.ReportMetric(mb(wOurs), "write-MB/s")
	b.ReportMetric(mb(rOurs), "read-MB/s")
	b.ReportMetric(wRaw.Seconds()/wOurs.Seconds(), "write-rate")
	b.ReportMetric(rRaw.Seconds()/rOurs.Seconds(), "read-rate")
	b.ReportMetric(cpuOurs.Seconds()/cpuRaw.Seconds(), "write-cpu-ratio")
}

// BenchmarkSmallFiles makes 1,000 files of 1 KiB in one directory, one after the other, and writes as many bare keys. ratio is our time by etcd's.
func BenchmarkSmallFiles(b *testing.B) {
	back, _, f := bench(b)
	ctx, content := b.Context(), noise(1, 1024)
	var ours, raw time.Duration
	for n := range b.N {
		dir := fmt.Sprintf("/%d", n)
		must(b, f.Mkdir(ctx, dir, 0o755))
		w, _ := timed(b, func() {
			for i := range 1000 {
				put(b, f, fmt.Sprintf("%s/%d", dir, i), content)
			}
		})
		ours += w
		w, _ = timed(b, func() {
			for i := range 1000 {
				_, err := back.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Put(fmt.Sprintf("/raw%s/%d", dir, i), content)}})
				must(b, err)
			}
		})
		raw += w
	}
	b.ReportMetric(ours.Seconds()/float64(b.N), "s")
	b.ReportMetric(ours.Seconds()/raw.Seconds(), "ratio")
}

// BenchmarkTree makes a tree of 100,000 files in 100 directories, eight at a time, goes through it, watches it and removes it.
func BenchmarkTree(b *testing.B) {
	const dirs, each = 100, 1000
	_, st, f := bench(b)
	ctx := b.Context()
	for range b.N {
		add, _ := timed(b, func() {
			parallel(b, 8, dirs*each, func(i int) error {
				dir := fmt.Sprintf("/tree/%03d", i/each)
				if i%each == 0 {
					if err := f.MkdirAll(ctx, dir, 0o755); err != nil {
						return err
					}
				}
				for { // whoever is first waits for the directory
					_, err := f.Replace(ctx, fmt.Sprintf("%s/%d", dir, i), bytes.NewReader([]byte("x")), fs.ReplaceOptions{Perm: 0o644})
					if fs.Errno(err) != syscall.ENOENT {
						return err
					}
				}
			})
		})
		list, _ := timed(b, func() {
			es, err := f.ReadDir(ctx, "/tree/050")
			if must(b, err); len(es) != each {
				b.Fatal(len(es))
			}
		})
		count, _ := timed(b, func() {
			u, err := f.Usage(ctx)
			if must(b, err); u.Files != dirs*each {
				b.Fatal(u)
			}
		})
		collect, _ := timed(b, func() { _, err := st.GC(ctx); must(b, err) })
		moved, _ := timed(b, func() { must(b, f.Rename(ctx, "/tree", "/moved")) })
		gone, _ := timed(b, func() { must(b, f.RemoveAll(ctx, "/moved")) })
		b.ReportMetric(dirs*each/add.Seconds(), "adds/s")
		b.ReportMetric(float64(list.Microseconds())/1000, "list-1000-ms")
		b.ReportMetric(float64(count.Milliseconds()), "count-ms")
		b.ReportMetric(float64(collect.Milliseconds()), "gc-ms")
		b.ReportMetric(float64(moved.Microseconds())/1000, "rename-ms")
		b.ReportMetric(gone.Seconds(), "removeall-s")
	}
}
