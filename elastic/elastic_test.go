package elastic_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/processes"
)

func TestMain(m *testing.M) {
	processes.Main(nil)
	// lumberjack and etcd's raft logger keep nothing running. What is left out are idle connections between members, which etcd keeps
	// when it stops; they end with the other side.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func start(t *testing.T, cfg elastic.Config) *elastic.Member {
	t.Helper()
	m, err := elastic.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, m) })
	return m
}

func stop(t *testing.T, m *elastic.Member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func put(t *testing.T, m *elastic.Member, key, value string) int64 {
	t.Helper()
	r, err := m.Client().Put(t.Context(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

func get(t *testing.T, m *elastic.Member, key string) string {
	t.Helper()
	r, err := m.Client().Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func TestRestart(t *testing.T) {
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir()}
	m := start(t, cfg)
	put(t, m, "k", "v")
	h := m.Health()
	stop(t, m)
	stop(t, m)
	select {
	case <-m.Done():
	default:
		t.Error("stopped but not done")
	}

	m = start(t, cfg)
	if got := get(t, m, "k"); got != "v" {
		t.Errorf("after the restart k is %q", got)
	}
	h2 := m.Health()
	if h.Member != h2.Member || h.Cluster != h2.Cluster || !h2.HasLeader || h2.Revision < h.Revision {
		t.Errorf("before %+v, after %+v", h, h2)
	}
	if l := listeners(t); l > 0 {
		t.Errorf("%d sockets listen", l)
	}
}

// listeners counts listening TCP sockets among this process's files.
func listeners(t *testing.T) (n int) {
	mine := map[string]bool{}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, "socket:[") {
			mine[strings.TrimSuffix(strings.TrimPrefix(l, "socket:["), "]")] = true
		}
	}
	for _, f := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if c := strings.Fields(line); len(c) > 9 && c[3] == "0A" && mine[c[9]] {
				n++
			}
		}
	}
	return n
}

func TestSnapshotAndRestore(t *testing.T) {
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir()}
	snap := filepath.Join(t.TempDir(), "snap.db")
	m := start(t, cfg)
	put(t, m, "k", "in the snapshot")
	if err := m.Snapshot(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	late := put(t, m, "k", "later")
	cluster := m.Health().Cluster
	stop(t, m)

	for range 4 { // each moves data aside
		if err := elastic.Restore(t.Context(), cfg, snap); err != nil {
			t.Fatal(err)
		}
	}
	m = start(t, cfg)
	if got := get(t, m, "k"); got != "in the snapshot" {
		t.Errorf("k is %q", got)
	}
	if h := m.Health(); h.Cluster == cluster || h.Revision <= late {
		t.Errorf("cluster %s revision %d; it was %s and %d", h.Cluster, h.Revision, cluster, late)
	}
	w := m.Client().Watch(t.Context(), "k", clientv3.WithRev(late))
	if r := <-w; r.CompactRevision == 0 {
		t.Errorf("a watch at an old revision got %+v", r)
	}
	old, _ := filepath.Glob(filepath.Join(cfg.Dir, "etcd.old-*"))
	if len(old) != 2 {
		t.Errorf("kept %v", old)
	}
}

func TestDamagedSnapshotLeavesDataAlone(t *testing.T) {
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir()}
	m := start(t, cfg)
	put(t, m, "k", "v")
	stop(t, m)
	bad := filepath.Join(t.TempDir(), "bad.db")
	if err := os.WriteFile(bad, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := elastic.Restore(t.Context(), cfg, bad); err == nil {
		t.Error("a file of zeros was restored")
	}
	if err := elastic.Restore(t.Context(), cfg, bad+".none"); err == nil {
		t.Error("a missing file was restored")
	}
	if got := get(t, start(t, cfg), "k"); got != "v" {
		t.Errorf("k is %q", got)
	}
}

func TestLostDataIsNotReplacedByNothing(t *testing.T) {
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir()}
	stop(t, start(t, cfg))
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	if _, err := elastic.Start(t.Context(), cfg); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("got %v", err)
	}
}

func TestInterruptedFirstStart(t *testing.T) {
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir()}
	stop(t, start(t, cfg))
	// what a kill during the first start leaves: an identity without ids, data that may be anything
	f := filepath.Join(cfg.Dir, "identity.json")
	if err := os.WriteFile(f, []byte(`{"format":1,"name":"m1","token":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Dir, "etcd", "member", "wal")); err != nil {
		t.Fatal(err)
	}
	m := start(t, cfg)
	put(t, m, "k", "v")
}

func TestBadConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  elastic.Config
	}{
		{"no name", elastic.Config{Dir: "/x"}},
		{"default", elastic.Config{Name: "default", Dir: "/x"}},
		{"long name", elastic.Config{Name: strings.Repeat("n", 129), Dir: "/x"}},
		{"relative", elastic.Config{Name: "m", Dir: "x"}},
		{"election", elastic.Config{Name: "m", Dir: "/x", Tick: time.Second, Election: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := elastic.Start(t.Context(), tt.cfg); !errs.Is(err, errs.InvalidInput) {
				t.Errorf("got %v", err)
			}
		})
	}
	dir := t.TempDir()
	stop(t, start(t, elastic.Config{Name: "m1", Dir: dir}))
	if _, err := elastic.Start(t.Context(), elastic.Config{Name: "m2", Dir: dir}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("another member's directory: %v", err)
	}
}

func TestFullDatabaseIsReclaimed(t *testing.T) {
	m := start(t, elastic.Config{Name: "m1", Dir: t.TempDir(), Quota: 4 << 20, NoSync: true})
	val := strings.Repeat("x", 100_000)
	var err error
	i := 0
	// The size that the quota is held against is known at each commit of the backend, a second apart.
	for deadline := time.Now().Add(30 * time.Second); err == nil && time.Now().Before(deadline); i++ {
		_, err = m.Client().Put(t.Context(), "k", fmt.Sprint(i, val))
	}
	if err == nil || len(m.Health().Alarms) == 0 {
		t.Fatalf("the quota was not reached: %v %+v", err, m.Health())
	}
	if err := m.Reclaim(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, m, "k", "small")
	if h := m.Health(); len(h.Alarms) > 0 || h.Size >= h.Quota {
		t.Errorf("%+v", h)
	}
}

func BenchmarkWarmStart(b *testing.B) {
	cfg := elastic.Config{Name: "m1", Dir: b.TempDir()}
	ctx := context.Background()
	for b.Loop() {
		m, err := elastic.Start(ctx, cfg)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Client().Put(ctx, "k", "v"); err != nil {
			b.Fatal(err)
		}
		if err := m.Stop(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// A healthy member has nothing to say to a user, at its first start and at later ones.
func TestStartIsQuiet(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	cfg := elastic.Config{Name: "m1", Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	for range 2 {
		m := start(t, cfg)
		put(t, m, "k", "v")
		stop(t, m)
	}
	mu.Lock()
	defer mu.Unlock()
	if log.Len() > 0 {
		t.Errorf("a healthy member complains:\n%s", &log)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
