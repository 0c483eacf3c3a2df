package fs_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/world/fs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = "/t/fs/"

// world is a database with clients, each of which stands for a node.
type world struct {
	t      testing.TB
	b      *mem.Store
	faults *kvtest.Faults // under the first client
	kv     *kvstore.Client
	st     *fs.Store
}

// shared is a backend that clients do not close.
type shared struct{ kvstore.Backend }

func (shared) Close() error { return nil }

func newWorld(t testing.TB) *world {
	w := &world{t: t, b: mem.New()}
	t.Cleanup(func() { _ = w.b.Close() })
	w.faults = kvtest.NewFaults(shared{w.b})
	w.kv, w.st = w.client(w.faults)
	return w
}

func (w *world) client(b kvstore.Backend) (*kvstore.Client, *fs.Store) {
	kv := kvstore.New(b, kvstore.Config{})
	w.t.Cleanup(func() { _ = kv.Close() })
	st, err := fs.New(fs.Deps{KV: kv, Prefix: prefix, LeaseTTL: 20 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return kv, st
}

// node returns another client's store.
func (w *world) node() *fs.Store {
	_, st := w.client(shared{w.b})
	return st
}

func (w *world) volume(chunk int64) *fs.FS {
	w.t.Helper()
	f, err := w.st.Create(w.t.Context(), "v", fs.VolumeOptions{Chunk: chunk})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// keys counts the keys below a part of the store.
func (w *world) keys(part string) int {
	w.t.Helper()
	kvs, _, err := w.kv.ListPrefix(context.WithoutCancel(w.t.Context()), prefix+part)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(kvs)
}

func (w *world) gc() fs.Collected {
	w.t.Helper()
	c, err := w.st.GC(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise returns n bytes that do not repeat, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, f *fs.FS, p string, b []byte) *fs.Info {
	t.Helper()
	i, err := f.Replace(t.Context(), p, bytes.NewReader(b), fs.ReplaceOptions{Perm: 0o644})
	must(t, err)
	return i
}

func want(t testing.TB, f *fs.FS, p string, b []byte) {
	t.Helper()
	got, err := f.ReadFile(t.Context(), p)
	must(t, err)
	if !bytes.Equal(got, b) {
		t.Fatalf("%s: %d bytes that differ from the %d expected", p, len(got), len(b))
	}
}
