package etcd_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// TestManyWatchesEndAtOnce ends many watches of a member in this process while events arrive. On one stream of etcd's
// client they block each other for good: its cancellations fill the little room that the way into the member has, the
// events the way out of it.
func TestManyWatchesEndAtOnce(t *testing.T) {
	m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	b := etcd.New(m.Client())
	defer b.Close()
	put := func(ctx context.Context, v int) error {
		_, err := b.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{{Type: kvstore.OpPut, Key: "watched/a", Value: fmt.Append(nil, v)}}})
		return err
	}
	for round := range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		var ready, ended sync.WaitGroup
		for range 100 {
			s := b.Watch(ctx, "watched/", 0)
			ready.Add(1)
			ended.Go(func() {
				_, err := s.Next()
				ready.Done()
				for err == nil {
					_, err = s.Next()
				}
			})
		}
		ready.Wait()
		var writer sync.WaitGroup
		stop := make(chan struct{})
		writer.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := put(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
		cancel()
		ended.Wait()
		close(stop)
		writer.Wait()

		// Whoever watches now hears of the next change.
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		s := b.Watch(ctx, "watched/", 0)
		if _, err := s.Next(); err != nil {
			t.Fatalf("round %d: a watch after them: %v", round, err)
		}
		if err := put(ctx, -1); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Next(); err != nil || len(r.Events) != 1 {
			t.Fatalf("round %d: a change after them: %+v, %v", round, r, err)
		}
		cancel()
	}
}
