package etcd_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// TestRoom has a disk without space for a while: what is there can be read and removed, nothing can be added.
func TestRoom(t *testing.T) {
	m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Stop(context.Background()) }()
	var full atomic.Bool
	b := etcd.New(m.Client(), func() error {
		if full.Load() {
			return errs.NoSpace("the disk is full")
		}
		return nil
	})
	defer func() { _ = b.Close() }()
	ctx := t.Context()
	txn := func(ops ...kvstore.Op) error {
		_, err := b.Txn(ctx, kvstore.Txn{Then: ops})
		return err
	}
	for _, is := range []bool{false, true, false} {
		full.Store(is)
		if err := txn(kvstore.Put("a", []byte("1"))); errs.Is(err, errs.NoSpaceClass) != is || !is && err != nil {
			t.Errorf("full: %v; put: %v", is, err)
		}
		if _, err := b.Grant(ctx, time.Minute); errs.Is(err, errs.NoSpaceClass) != is {
			t.Errorf("full: %v; grant: %v", is, err)
		}
		if err := txn(kvstore.Get("a")); err != nil {
			t.Errorf("full: %v; get: %v", is, err)
		}
		if err := txn(kvstore.Delete("a")); err != nil {
			t.Errorf("full: %v; delete: %v", is, err)
		}
	}
}
