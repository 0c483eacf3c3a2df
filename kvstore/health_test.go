package kvstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

// The seed's table is rounded by hand: 4 nodes 45s/7s stand for 48s/8s.
func TestCheckEvery(t *testing.T) {
	for _, tt := range []struct {
		nodes    int
		ok, fail time.Duration
	}{
		{1, 20 * time.Second, 3 * time.Second}, {4, 45 * time.Second, 7 * time.Second}, {8, 65 * time.Second, 11 * time.Second},
		{32, 105 * time.Second, 18 * time.Second}, {128, 145 * time.Second, 24 * time.Second}, {512, 187 * time.Second, 32 * time.Second},
		{2048, 226 * time.Second, 38 * time.Second}, {8192, 270 * time.Second, 45 * time.Second},
	} {
		for ok, want := range map[bool]time.Duration{true: tt.ok, false: tt.fail} {
			if got := kvstore.CheckEvery(tt.nodes, ok); (got - want).Abs() > max(1100*time.Millisecond, want*8/100) {
				t.Errorf("%d nodes, ok %v: %v, want about %v", tt.nodes, ok, got, want)
			}
		}
	}
	if kvstore.CheckEvery(0, true) != kvstore.CheckEvery(1, true) {
		t.Error("an empty cluster")
	}
}

func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kvtest.NewFaults(mem.New())
		f.Fail(down)
		c := kvstore.New(f, kvstore.Config{})
		defer c.Close()
		h := c.NewHealth(kvstore.HealthConfig{})
		synctest.Wait()
		if s := h.Status(); s.State != kvstore.Connecting || s.Failures != 1 || !errors.Is(s.Err, kvstore.ErrNoQuorum) || !open(h.Connected()) || open(h.Disconnected()) {
			t.Errorf("before the first contact: %+v", s)
		}
		up := h.Connected()
		f.Fail(nil)
		<-up
		gone := h.Disconnected()
		if s := h.Status(); s.State != kvstore.Healthy || s.Err != nil || s.Failures != 0 || s.Header.Revision == 0 || !open(gone) {
			t.Errorf("connected: %+v", s)
		}
		f.Fail(down)
		h.Check(t.Context())
		h.Check(t.Context())
		if s := h.Status(); s.State != kvstore.Degraded || s.Failures != 2 || !open(gone) {
			t.Errorf("two errors: %+v", s)
		}
		err := <-h.Errors()
		if s := h.Status(); s.State != kvstore.Failed || open(gone) || !errors.Is(err, kvstore.ErrNoQuorum) || !errs.Is(err, errs.UnavailableClass) {
			t.Errorf("three errors: %+v, %v", s, err)
		}
		f.Fail(nil)
		<-h.Connected()
	})
}

// A writer that is gone is not a store that is gone.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := kvstore.New(mem.New(), kvstore.Config{})
		defer c.Close()
		p := c.NewPool(kvstore.PoolConfig{TTL: time.Hour})
		h := c.NewHealth(kvstore.HealthConfig{Heartbeat: "beat"})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Beat(ctx, p, "beat", time.Minute) }()
		time.Sleep(10 * time.Minute)
		if s := h.Check(t.Context()); s.State != kvstore.Healthy || s.Stale || s.Heartbeat > 2*time.Minute {
			t.Errorf("%+v", s)
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(3 * time.Minute)
		if s := h.Check(t.Context()); s.State != kvstore.Degraded || !s.Stale || s.Err != nil || !open(h.Disconnected()) {
			t.Errorf("writer gone: %+v", s)
		}
	})
}

func TestUsers(t *testing.T) {
	s := mem.New()
	s.Roles("reader")
	c := kvstore.New(s, kvstore.Config{})
	defer c.Close()
	u, ok := c.Users()
	if !ok {
		t.Fatal("no users")
	}
	if err := u.EnforceUser(t.Context(), "n1", []string{"none"}); !errors.Is(err, kvstore.ErrNotFound) {
		t.Error(err)
	}
	for _, roles := range [][]string{{"reader"}, {"reader"}, nil} {
		if err := u.EnforceUser(t.Context(), "n1", roles); err != nil {
			t.Error(err)
		}
		if got, ok := s.User("n1"); !ok || len(got) != len(roles) {
			t.Errorf("roles %v, want %v", got, roles)
		}
	}
	for range 2 {
		if err := u.EnforceNoUser(t.Context(), "n1"); err != nil {
			t.Error(err)
		}
	}
	if _, ok := s.User("n1"); ok {
		t.Error("still there")
	}
}
