package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/kvtest"
)

// The server of a benchmark is a process of its own, so that what is counted is the client's: this program, started again.
const serve = "SHOAL_BENCH_ETCD_DIR"

// server starts a lone etcd with its data in memory and returns its address.
func server(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "shoal-bench-")
	if err != nil {
		b.Skip("needs /dev/shm: ", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.Command(os.Args[0], "-test.run=^TestServe$")
	cmd.Env = append(os.Environ(), serve+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestServe(t *testing.T) {
	dir := os.Getenv(serve)
	if dir == "" {
		t.Skip("only benchmarks start it")
	}
	_, addrs := servers(t, 1, func(c *embed.Config) { c.Dir, c.TickMs, c.ElectionMs = dir, 100, 1000 })
	fmt.Println(addrs[0])
	select {}
}

func dial(b *testing.B, addr string) *kvstore.Client {
	back, err := etcd.Dial(etcd.Config{Endpoints: []string{addr}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	c := kvstore.New(back, kvstore.Config{})
	b.Cleanup(func() { c.Close() })
	return c
}

// cpu is what this process has used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs f b.N times in workers and reports rate, CPU and allocations of each.
func measure(b *testing.B, workers int, f func(i int) error) {
	todo := make(chan int, b.N)
	for i := range b.N {
		todo <- i
	}
	close(todo)
	var wg sync.WaitGroup
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			for i := range todo {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkPut compares a write through the layer with one through etcd's own client, the peer, and with the peer under a deadline such as the
// layer gives to each call.
func BenchmarkPut(b *testing.B) {
	addr, ctx, value := server(b), context.Background(), make([]byte, 120)
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	c := dial(b, addr)
	for _, w := range []int{1, 32} {
		b.Run(fmt.Sprintf("raw/workers=%d", w), func(b *testing.B) {
			measure(b, w, func(i int) error { _, err := raw.Put(ctx, fmt.Sprint("k/", i%1000), string(value)); return err })
		})
		b.Run(fmt.Sprintf("raw with a deadline/workers=%d", w), func(b *testing.B) {
			measure(b, w, func(i int) error {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				_, err := raw.Put(ctx, fmt.Sprint("k/", i%1000), string(value))
				return err
			})
		})
		b.Run(fmt.Sprintf("kvstore/workers=%d", w), func(b *testing.B) {
			measure(b, w, func(i int) error {
				_, _, err := c.Update(ctx, fmt.Sprint("k/", i%1000), value, 0)
				return err
			})
		})
	}
}

// BenchmarkLock has four clients hand one lock around.
func BenchmarkLock(b *testing.B) {
	addr := server(b)
	used := cpu()
	kvtest.LockRate(b, 4, func() *kvstore.Client { return dial(b, addr) })
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkLockRaw is the least that a fair lock of four clients can cost with etcd's own client: each change of hands is one entry into the queue,
// one deletion, and the event that tells everybody of it.
func BenchmarkLockRaw(b *testing.B) {
	const clients = 4
	addr, ctx := server(b), b.Context()
	var wg, ready sync.WaitGroup
	var mu sync.Mutex
	var waits []time.Duration
	turns, start := make(chan int, b.N), make(chan struct{})
	for i := range b.N {
		turns <- i
	}
	close(turns)
	for range clients {
		cl, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
		if err != nil {
			b.Fatal(err)
		}
		defer cl.Close()
		watch := cl.Watch(ctx, "q/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-watch
		ready.Add(1)
		wg.Go(func() {
			ready.Done()
			<-start
			for i := range turns {
				began := time.Now()
				if err := rawTurn(ctx, cl, watch, fmt.Sprint("q/", i)); err != nil {
					b.Error(err)
					return
				}
				took := time.Since(began)
				if _, err := cl.Delete(ctx, fmt.Sprint("q/", i)); err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				waits = append(waits, took)
				mu.Unlock()
			}
		})
	}
	ready.Wait()
	used := cpu()
	b.ResetTimer()
	close(start)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "locks/s")
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(kvtest.Percentile(waits, 50).Microseconds()), "p50-µs")
}

// rawTurn enters the queue and waits until all that were before have gone.
func rawTurn(ctx context.Context, cl *clientv3.Client, watch clientv3.WatchChan, key string) error {
	r, err := cl.Txn(ctx).Then(clientv3.OpPut(key, ""), clientv3.OpGet("q/", clientv3.WithPrefix())).Commit()
	if err != nil {
		return err
	}
	before := map[string]bool{}
	for _, kv := range r.Responses[1].GetResponseRange().Kvs {
		if string(kv.Key) != key {
			before[string(kv.Key)] = true
		}
	}
	for len(before) > 0 {
		for _, e := range (<-watch).Events { // an old deletion is of no key that is here
			if e.Type == clientv3.EventTypeDelete {
				delete(before, string(e.Kv.Key))
			}
		}
	}
	return nil
}

var errEnough = errors.New("enough")

// BenchmarkListAndWatch lists 50,000 keys with values of 120 bytes.
func BenchmarkListAndWatch(b *testing.B) {
	const keys = 50_000
	c := dial(b, server(b))
	for i := 0; i < keys; i += 500 {
		var t kvstore.Txn
		for j := range 500 {
			t.Then = append(t.Then, kvstore.Put(fmt.Sprintf("cilium/state/identities/v1/id/%08d", i+j), make([]byte, 120)))
		}
		if _, err := c.Txn(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
	var first, done time.Duration
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	used := cpu()
	b.ResetTimer()
	for range b.N {
		start, n := time.Now(), 0
		err := c.NewWatcher("cilium/").Run(b.Context(), func(batch kvstore.Batch) error {
			if n == 0 {
				first += time.Since(start)
			}
			if n += len(batch.Events); batch.ListDone {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) || n != keys {
			b.Fatalf("%d keys: %v", n, err)
		}
		done += time.Since(start)
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(first), "first-ms")
	b.ReportMetric(per(done), "done-ms")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/1e6, "MB-allocated")
	b.ReportMetric(per(cpu()-used), "cpu-ms")
}
