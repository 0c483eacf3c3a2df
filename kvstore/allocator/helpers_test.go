package allocator_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/allocator"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = "/test/ids/"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait polls until ok says so.
func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// counter counts the transactions that reach a store.
type counter struct {
	kvstore.Backend
	txns atomic.Int64
}

func (c *counter) Txn(ctx context.Context, t kvstore.Txn) (kvstore.TxnResult, error) {
	c.txns.Add(1)
	return c.Backend.Txn(ctx, t)
}

// node is one allocator with its own connection, whose faults and transactions can be looked at.
type node struct {
	*allocator.Allocator
	kv     *allocator.KV
	client *kvstore.Client
	faults *kvtest.Faults
	count  *counter
}

type option func(*allocator.Config, *allocator.KVConfig)

func newNode(t testing.TB, store kvstore.Backend, name string, opts ...option) *node {
	t.Helper()
	n := &node{count: &counter{Backend: store}}
	n.faults = kvtest.NewFaults(n.count)
	log := slog.New(slog.DiscardHandler)
	n.client = kvstore.New(n.faults, kvstore.Config{CheckInterval: 50 * time.Millisecond, Log: log})
	cfg, kvCfg := allocator.Config{Log: log}, allocator.KVConfig{Client: n.client, Prefix: prefix, Node: name, Log: log}
	for _, o := range opts {
		o(&cfg, &kvCfg)
	}
	var err error
	n.kv, err = allocator.NewKV(kvCfg)
	must(t, err)
	cfg.Backend = n.kv
	n.Allocator, err = allocator.New(cfg)
	must(t, err)
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.Allocator.Close()
	n.kv.Close()
}

func newStore(t testing.TB) *mem.Store {
	s := mem.New()
	t.Cleanup(func() { s.Close() })
	return s
}

func (n *node) allocate(t testing.TB, key string) allocator.Allocation {
	t.Helper()
	al, err := n.Allocate(t.Context(), key)
	must(t, err)
	return al
}

func (n *node) release(t testing.TB, key string) {
	t.Helper()
	_, err := n.Release(t.Context(), key)
	must(t, err)
}

// dump returns what stands under the prefix: path without prefix → value.
func dump(t testing.TB, store kvstore.Backend) map[string]kvstore.KeyValue {
	t.Helper()
	r, err := store.Range(context.Background(), kvstore.Range{Key: prefix, End: kvstore.PrefixEnd(prefix)})
	must(t, err)
	out := map[string]kvstore.KeyValue{}
	for _, kv := range r.KVs {
		out[strings.TrimPrefix(kv.Key, prefix)] = kv
	}
	return out
}

func keys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}
