package world_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/world"
)

// cluster is a membership that the test decides.
type cluster struct {
	mu      sync.Mutex
	list    []world.Member
	err     error
	changed chan struct{}
}

func (c *cluster) set(err error, list ...world.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list, c.err = list, err
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) Members(context.Context) ([]world.Member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list, c.err
}

// notifying tells of changes at once.
type notifying struct{ *cluster }

func (c notifying) MembersChanged() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// One event for each change, whether the source tells of changes or has to be looked at.
func TestWatchMembers(t *testing.T) {
	for _, name := range []string{"looked at", "telling"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cluster{changed: make(chan struct{})}
				var src world.MemberSource = c
				if name == "telling" {
					src = notifying{c}
				}
				watchMembers(t, c, src)
			})
		})
	}
}

func watchMembers(t *testing.T, c *cluster, src world.MemberSource) {
	kv := kvstore.New(mem.New(), kvstore.Config{})
	defer func() { _ = kv.Close() }()
	w, err := world.New(t.Context(), world.Options{Machine: "h1", KV: kv, Members: src})
	must(t, err)
	a := world.Member{ID: 1, Name: "a", Leader: true}
	b := world.Member{ID: 2, Name: "b", Learner: true}
	voter, moved := b, b
	voter.Learner = false
	moved.Learner, moved.ClientURLs = false, []string{"https://b:1"}
	c.set(nil, a)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := w.WatchMembers(ctx)
	must(t, err)
	var got []string
	read := func() string {
		got = nil
		time.Sleep(3 * time.Second) // of the bubble: several looks
		for {
			synctest.Wait()
			select {
			case e := <-events:
				s := fmt.Sprintf("%s %s/%d", e.Change, e.Member.Name, len(e.Members))
				if e.Err != nil {
					s = "error"
				}
				got = append(got, strings.TrimSpace(s))
			default:
				return strings.Join(got, ", ")
			}
		}
	}
	follower, leader := a, moved
	follower.Leader, leader.Leader = false, true
	for i, tt := range []struct {
		err  error
		list []world.Member
		want string
	}{
		{nil, []world.Member{a}, "/1"},
		{nil, []world.Member{b, a}, "joined b/2"},
		{nil, []world.Member{a, b}, ""},
		{nil, []world.Member{a, voter}, "promoted b/2"},
		{nil, []world.Member{a, moved}, "updated b/2"},
		{nil, []world.Member{follower, leader}, "leader b/2"},
		{errors.New("no quorum"), nil, "error"},
		{errors.New("no quorum"), nil, ""},
		{nil, []world.Member{follower, leader}, "/2"},
		{nil, []world.Member{a}, "left b/1, leader a/1"},
	} {
		c.set(tt.err, tt.list...)
		if s := read(); s != tt.want {
			t.Errorf("step %d: %q, want %q", i, s, tt.want)
		}
	}
	cancel()
	for range events { // it is closed
	}
}

func TestNoMembers(t *testing.T) {
	kv := kvstore.New(mem.New(), kvstore.Config{})
	defer func() { _ = kv.Close() }()
	w, err := world.New(t.Context(), world.Options{Machine: "h1", KV: kv})
	must(t, err)
	if _, err := w.WatchMembers(t.Context()); !errs.Is(err, errs.UnsupportedClass) {
		t.Error(err)
	}
}
