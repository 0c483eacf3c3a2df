// Package backends opens every kind of store for the tests of rooms over kvstore: what holds in memory must hold on etcd.
package backends

import (
	"context"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// Run runs a test on each kind of store, empty.
func Run(t *testing.T, f func(t *testing.T, b kvstore.Backend)) {
	t.Run("mem", func(t *testing.T) { f(t, Mem(t)) })
	t.Run("etcd", func(t *testing.T) { f(t, Etcd(t)) })
}

// Mem returns an empty store in memory.
func Mem(t testing.TB) kvstore.Backend {
	s := mem.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Etcd returns an etcd with one member in this process that does not sync its files.
func Etcd(t testing.TB) kvstore.Backend {
	m, err := elastic.Start(context.Background(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	b := etcd.New(m.Client())
	t.Cleanup(func() {
		_ = b.Close()
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Client returns a client of b as another process would have it: closing it ends its watches and leaves b open.
func Client(t testing.TB, b kvstore.Backend) *kvstore.Client {
	u := unclosed{Backend: b}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	c := kvstore.New(u, kvstore.Config{CheckInterval: 50 * time.Millisecond})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type unclosed struct {
	kvstore.Backend
	ctx    context.Context
	cancel context.CancelFunc
}

func (u unclosed) Close() error { u.cancel(); return nil }

func (u unclosed) Watch(ctx context.Context, prefix string, from int64) kvstore.Stream {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(u.ctx, cancel)
	return stream{u.Backend.Watch(ctx, prefix, from), u.ctx}
}

type stream struct {
	kvstore.Stream
	client context.Context
}

func (s stream) Next() (kvstore.WatchResponse, error) {
	r, err := s.Stream.Next()
	if err != nil && s.client.Err() != nil {
		err = kvstore.ErrClosed
	}
	return r, err
}
