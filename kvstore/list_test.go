package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// streamer sends ranges in parts of one key, each of them when wait returns, which is told how many went before.
type streamer struct {
	*mem.Store
	wait func(ctx context.Context, sent int) error
}

func (s streamer) RangeStream(ctx context.Context, r kvstore.Range, each func(kvstore.RangeResult) error) (kvstore.Header, bool, error) {
	all, err := s.Range(ctx, r)
	for i := 0; err == nil && i < len(all.KVs); i++ {
		if err = s.wait(ctx, i); err == nil {
			err = each(kvstore.RangeResult{Header: all.Header, KVs: all.KVs[i : i+1]})
		}
	}
	return all.Header, true, err
}

// newStreamer returns a client of a store with n keys.
func newStreamer(t *testing.T, n int, wait func(context.Context, int) error) *kvstore.Client {
	t.Helper()
	s := mem.New()
	var txn kvstore.Txn
	for i := range n {
		txn.Then = append(txn.Then, kvstore.Put(fmt.Sprintf("/k/%03d", i), nil))
	}
	if _, err := s.Txn(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	return kvstore.New(streamer{s, wait}, kvstore.Config{})
}

// A call may take five seconds; a list as long as it needs, if something comes every five seconds.
func TestListThatStalls(t *testing.T) {
	stalled := func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
	pause := func(d time.Duration) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		}
	}
	for _, tt := range []struct {
		name     string
		wait     func(context.Context, int) error
		consumer time.Duration // for each part
		got      int
		took     time.Duration
	}{
		{"quick", pause(0), 0, 20, 0},
		{"slow but steady", pause(4 * time.Second), 0, 20, 80 * time.Second},
		{"slow consumer", pause(0), time.Minute, 20, 20 * time.Minute},
		{"never begins", stalled, 0, 0, 5 * time.Second},
		{"stalls", func(ctx context.Context, sent int) error {
			if sent < 7 {
				return pause(4*time.Second)(ctx, sent)
			}
			return stalled(ctx, sent)
		}, 0, 7, 33 * time.Second},
		{"stalls after a slow consumer", func(ctx context.Context, sent int) error {
			if sent < 7 {
				return nil
			}
			return stalled(ctx, sent)
		}, time.Minute, 7, 7*time.Minute + 5*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStreamer(t, 20, tt.wait)
				defer c.Close()
				start, got := time.Now(), 0
				_, err := c.List(t.Context(), "/k/", func(kvs []kvstore.KeyValue) error {
					got += len(kvs)
					time.Sleep(tt.consumer)
					return nil
				})
				if got != tt.got || time.Since(start) != tt.took {
					t.Errorf("%d keys in %v, want %d in %v", got, time.Since(start), tt.got, tt.took)
				}
				if whole := tt.got == 20; whole != (err == nil) || !whole && !(errs.Is(err, errs.UnavailableClass) && errors.Is(err, context.DeadlineExceeded)) {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}

// A list that breaks off before its first part is asked for in pages; one that breaks off later is an error, as nobody knows what the
// reader has made of what it got.
func TestListThatBreaksOff(t *testing.T) {
	for at, want := range map[int]int{0: 20, 1: 1, 19: 19} {
		c := newStreamer(t, 20, func(_ context.Context, sent int) error {
			if sent == at {
				return kvstore.ErrNoQuorum
			}
			return nil
		})
		got := 0
		_, err := c.List(t.Context(), "/k/", func(kvs []kvstore.KeyValue) error { got += len(kvs); return nil })
		if got != want || (want == 20) != (err == nil) || err != nil && !errors.Is(err, kvstore.ErrNoQuorum) {
			t.Errorf("broken off after %d: %d keys, %v", at, got, err)
		}
		c.Close()
	}
}

// A watcher whose list breaks off lists again and reports every key once, what was deleted in between included.
func TestWatcherWhoseListBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := 0
		var c *kvstore.Client
		c = newStreamer(t, 20, func(ctx context.Context, sent int) error {
			if broken >= 3 || sent < 5*(broken+1) {
				return nil
			}
			// Key 0 was reported and is deleted, key 19 was not and is; key 1 was reported and changes.
			broken++
			_, err := c.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Delete("/k/000"), kvstore.Delete("/k/019"), kvstore.Put("/k/001", []byte{byte(broken)})}})
			return errors.Join(err, kvstore.ErrNoQuorum)
		})
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events := map[kvstore.EventType]int{}
		v := view{keys: map[string]string{}}
		err := c.NewWatcher("/k/").Run(ctx, func(b kvstore.Batch) error {
			for _, e := range b.Events {
				events[e.Type]++
			}
			if b.ListDone {
				cancel()
			}
			return v.apply(b)
		})
		if !errors.Is(err, context.Canceled) || v.bad != nil {
			t.Errorf("%v; %v", err, v.bad)
		}
		if broken != 3 || len(v.keys) != 18 || v.keys["/k/001"] != "\x03" || events[kvstore.Created] != 19 || events[kvstore.Deleted] != 1 || events[kvstore.Modified] != 3 {
			t.Errorf("broken off %d times; %d keys, events %v, key 1 is %q", broken, len(v.keys), events, v.keys["/k/001"])
		}
	})
}
