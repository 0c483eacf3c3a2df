package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// The crash test runs this test binary as a child that opens the database on a real member, with fsync, and has eight
// writers write as fast as they can; it says on its standard output what was acknowledged, and is killed with SIGKILL again and again.
const (
	crashDir = "SHOAL_TEST_STATE_DIR"
	writers  = 8
)

type slot struct {
	N    int    `json:"n"`
	Fill string `json:"fill"`
}

func openMember(ctx context.Context, dir string) (*elastic.Member, *kvstore.Client, *state.DB, error) {
	m, err := elastic.Start(ctx, elastic.Config{Name: "m1", Dir: dir})
	if err != nil {
		return nil, nil, nil, err
	}
	kv := kvstore.New(etcd.New(m.Client()), kvstore.Config{})
	db, err := state.Open(ctx, kv, state.Options{})
	if err != nil {
		return nil, nil, nil, errors.Join(err, m.Stop(context.Background()))
	}
	return m, kv, db, nil
}

func crashChild() {
	ctx := context.Background()
	_, _, db, err := openMember(ctx, os.Getenv(crashDir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	slots := state.NewTable[slot](db, "slots", 1)
	os.Stdout.WriteString("ready\n")
	for w := range writers {
		go func() {
			// odd writers create new items, even ones overwrite one
			n := 0
			for it := range slots.All(fmt.Sprintf("%d/", w)) {
				n = max(n, it.Value.N)
			}
			for {
				n++
				key := fmt.Sprintf("%d/x", w)
				if w%2 == 1 {
					key = fmt.Sprintf("%d/%06d", w, n)
				}
				if _, err := slots.Put(ctx, key, slot{n, strings.Repeat("x", rand.IntN(3000))}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Fprintf(os.Stdout, "%d %d\n", w, n) // one write, whole or not at all
			}
		}()
	}
	select {}
}

// acks is what the children were told is written: the highest number per writer.
type acks struct {
	mu    sync.Mutex
	last  [writers]int
	total int
}

func (a *acks) read(r io.Reader, ready chan<- struct{}) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if s.Text() == "ready" {
			close(ready)
			continue
		}
		var w, n int
		if _, err := fmt.Sscanf(s.Text(), "%d %d", &w, &n); err != nil {
			continue // the line in which it died
		}
		a.mu.Lock()
		a.last[w] = max(a.last[w], n)
		a.total++
		a.mu.Unlock()
	}
}

// run starts a child, kills it a while after it is ready, or at once when early is set, and returns how long it took to be ready.
func (a *acks) run(t *testing.T, dir string, wait time.Duration, early bool) time.Duration {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, eof := make(chan struct{}), make(chan struct{})
	go func() { defer close(eof); a.read(out, ready) }()
	took := time.Duration(0)
	if !early {
		select {
		case <-ready:
			took = time.Since(begun)
		case <-eof:
		case <-time.After(30 * time.Second):
			t.Error("not ready after 30 s")
		}
	}
	select { // the moment of the kill
	case <-time.After(wait):
	case <-eof:
	}
	cmd.Process.Signal(syscall.SIGKILL)
	<-eof
	err = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v\n%s", err, stderr.String())
	}
	return took
}

// check opens the database here and compares.
func (a *acks) check(t *testing.T, dir string) {
	t.Helper()
	m, kv, db, err := openMember(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		db.Close()
		kv.Close()
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	slots := state.NewTable[slot](db, "slots", 1)
	cache := map[string]int64{}
	for it := range slots.All("") {
		cache[it.Key] = it.Rev
	}
	_, err = kv.List(t.Context(), state.DefaultPrefix+"slots/", func(kvs []kvstore.KeyValue) error {
		for _, e := range kvs {
			key := strings.TrimPrefix(e.Key, state.DefaultPrefix+"slots/")
			if cache[key] != e.ModRevision {
				t.Errorf("%s: cache has revision %d, etcd %d", key, cache[key], e.ModRevision)
			}
			delete(cache, key)
		}
		return nil
	})
	if err != nil || len(cache) > 0 {
		t.Errorf("%v; only in the cache: %v", err, cache)
	}
	for w, last := range a.last {
		if w%2 == 0 {
			if it, ok := slots.Peek(fmt.Sprintf("%d/x", w)); last > 0 && (!ok || it.Value.N < last) {
				t.Errorf("writer %d: %d was acknowledged, there is %+v", w, last, it)
			}
			continue
		}
		for n := 1; n <= last; n++ {
			if it, ok := slots.Peek(fmt.Sprintf("%d/%06d", w, n)); !ok || it.Value.N != n {
				t.Errorf("writer %d: %d was acknowledged and is lost", w, n)
			}
		}
	}
}

func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	dir := t.TempDir()
	var a acks
	for _, ms := range []int{5, 20, 40} { // kills of the first start
		a.run(t, dir, time.Duration(ms)*time.Millisecond, true)
	}
	var slowest time.Duration
	for range kills {
		slowest = max(slowest, a.run(t, dir, time.Duration(20+rand.IntN(200))*time.Millisecond, false))
		a.check(t, dir)
	}
	if a.total < kills*10 {
		t.Errorf("only %d writes", a.total)
	}
	t.Logf("%d kills, %d acknowledged writes, slowest start of a child %v", kills+3, a.total, slowest)
}
