package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

// read collects events of a stream until n have come.
func (e *env) read(s kvstore.Stream, n int) string {
	e.Helper()
	var out []string
	for len(out) < n {
		r, err := s.Next()
		e.must(err)
		for _, ev := range r.Events {
			out = append(out, event(ev))
		}
	}
	return strings.Join(out, " ")
}

func event(ev kvstore.Event) string {
	return fmt.Sprintf("%s:%s=%s", ev.Type, ev.KV.Key, ev.KV.Value)
}

func watch(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	h, err := e.c.Head(ctx)
	e.must(err)
	s := e.c.Watch(ctx, "p/", h.Revision+1)
	e.put("p/a", "1")
	e.put("q", "no")
	e.put("p/a", "2")
	_, _, err = e.c.Remove(ctx, "p/a")
	e.must(err)
	_, err = e.c.Txn(ctx, kvstore.Txn{Then: []kvstore.Op{kvstore.Put("p/b", []byte("3")), kvstore.Put("p/c", []byte("4"))}})
	e.must(err)
	want := "create:p/a=1 modify:p/a=2 delete:p/a= create:p/b=3 create:p/c=4"
	if got := e.read(s, 5); got != want {
		e.Errorf("got  %s\nwant %s", got, want)
	}
	cancel()
	if _, err := s.Next(); !errors.Is(err, context.Canceled) {
		e.Errorf("cancelled: %v", err)
	}
}

// watchNow: the first response says after which revision the watch stands; from there on nothing is missing.
func watchNow(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	rev := e.put("p/old", "")
	s := e.c.Watch(ctx, "p/", 0)
	r, err := s.Next()
	if err != nil || len(r.Events) != 0 || r.Revision < 1 || r.Revision > rev {
		e.Fatalf("%+v %v, want a mark at %d, or before it", r, err, rev)
	}
	e.put("p/new", "1")
	n, want := 1, "create:p/new=1"
	if r.Revision < rev { // a member that is behind stands where it is
		n, want = 2, "create:p/old= "+want
	}
	if got := e.read(s, n); got != want {
		e.Errorf("after %d: %s, want %s", r.Revision, got, want)
	}
}

func watchPast(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	from := e.put("a", "1")
	last := e.put("a", "2")
	if got := e.read(e.c.Watch(ctx, "a", from), 2); got != "create:a=1 modify:a=2" {
		e.Error(got)
	}
	e.must(e.c.Compact(ctx, last))
	if _, err := e.c.Watch(ctx, "a", from).Next(); !errors.Is(err, kvstore.ErrCompacted) {
		e.Errorf("compacted: %v", err)
	}
	if got := e.read(e.c.Watch(ctx, "a", last), 1); got != "modify:a=2" {
		e.Errorf("from the compaction on: %s", got)
	}
	_, gone, err := e.c.Remove(ctx, "a")
	e.must(err)
	e.must(e.c.Compact(ctx, gone))
	if got := e.read(e.c.Watch(ctx, "a", gone), 1); got != "delete:a=" {
		e.Errorf("a deletion at the compaction: %s", got)
	}
}

func progress(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	h, err := e.c.Head(ctx)
	e.must(err)
	s := e.c.Watch(ctx, "p/", h.Revision+1)
	e.put("p/first", "") // etcd answers progress requests of watches that have caught up
	e.read(s, 1)
	rev := e.put("elsewhere", "")
	marks := make(chan int64)
	go func() {
		defer close(marks)
		for {
			r, err := s.Next()
			if err != nil || len(r.Events) > 0 {
				return
			}
			marks <- r.Revision
			if r.Revision >= rev {
				return
			}
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var got int64
	for ok := true; ok; {
		select {
		case <-tick.C:
			e.must(s.RequestProgress(ctx))
		case r, more := <-marks:
			got, ok = max(got, r), more
		}
	}
	if got < rev {
		e.Errorf("mark at %d, want %d", got, rev)
	}
}

// mirror follows a prefix and keeps what it was told.
type mirror struct {
	keys          map[string]string
	log           []string
	rev           int64
	resets, lists int
}

func (m *mirror) apply(b kvstore.Batch) error {
	if b.Reset {
		m.resets++
	}
	for _, ev := range b.Events {
		m.log = append(m.log, event(ev))
		_, known := m.keys[ev.KV.Key]
		switch {
		case known != (ev.Type != kvstore.Created):
			return fmt.Errorf("%s of a key that is known: %v", event(ev), known)
		case ev.Type == kvstore.Deleted:
			delete(m.keys, ev.KV.Key)
		default:
			m.keys[ev.KV.Key] = string(ev.KV.Value)
		}
	}
	if b.ListDone {
		m.lists++
	}
	m.rev = b.Revision
	return nil
}

var errEnough = errors.New("enough")

func listAndWatch(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	for i := range 10 {
		e.put(fmt.Sprintf("p/%d", i), "")
	}
	m := &mirror{keys: map[string]string{}}
	w := e.c.NewWatcher("p/")
	err := w.Run(ctx, func(b kvstore.Batch) error {
		if err := m.apply(b); err != nil {
			return err
		}
		if b.ListDone {
			if len(m.keys) != 10 {
				return fmt.Errorf("list done with %d keys", len(m.keys))
			}
			m.log = nil
			e.put("p/0", "new")
			e.put("q", "")
			_, _, err := e.c.Remove(ctx, "p/1")
			return err
		}
		if len(m.log) == 2 {
			return errEnough
		}
		return nil
	})
	if got := strings.Join(m.log, " "); !errors.Is(err, errEnough) || got != "modify:p/0=new delete:p/1=" || w.Lists() != 1 {
		e.Errorf("%v, %d lists: %s", err, w.Lists(), got)
	}
}

// watcherCompacted has the store forget what the watcher has not seen yet.
func watcherCompacted(e *env) {
	ctx, cancel := context.WithTimeout(e.Context(), 20*time.Second)
	defer cancel()
	f := NewFaults(e.b)
	c := kvstore.New(f, kvstore.Config{Page: 3, CheckInterval: 50 * time.Millisecond})
	for _, k := range []string{"same", "gone", "changed"} {
		e.put("p/"+k, "1")
	}
	m := &mirror{keys: map[string]string{}}
	w := c.NewWatcher("p/")
	err := w.Run(ctx, func(b kvstore.Batch) error {
		if err := m.apply(b); err != nil || !b.ListDone {
			return err
		}
		if m.lists == 2 {
			return errEnough
		}
		m.log = nil
		f.Break() // until the stream stands again, the past is gone
		_, _, err := e.c.Remove(ctx, "p/gone")
		e.must(err)
		e.put("p/changed", "2")
		return e.b.Compact(ctx, e.put("p/new", "2"))
	})
	if got := strings.Join(m.log, " "); !errors.Is(err, errEnough) || got != "modify:p/changed=2 create:p/new=2 delete:p/gone=" {
		e.Errorf("%v: %s", err, got)
	}
	if m.resets != 0 || len(m.keys) != 3 {
		e.Errorf("%d resets, %v", m.resets, m.keys)
	}
}
