package kvstore

import (
	"context"
	"errors"
	"strings"
	"time"
)

// A path for which processes contend is watched as a whole for as long as they do: a waiter that enters the queue while the watch stands learns from
// the answer who is before it and from the watch when they have gone, so that a lock changes hands with one event and no further question.
// Where more than crowd wait that would be an event for each of them at each change of hands: there each watches the one before it.
const crowd = 8

// linger is for how long a path stays watched after somebody waited.
const linger = time.Second

// vigil watches one path. Its fields are under locks.mu.
type vigil struct {
	s       *locks
	path    string
	stands  chan struct{} // closed when it stands, or is over
	up      bool
	err     error // why it is over
	waiters map[*waiter]struct{}
	used    time.Time // when last somebody waited
	cancel  context.CancelFunc
}

// waiter is a lock that is queued, or about to be.
type waiter struct {
	v    *vigil
	key  string
	gone map[string]bool // deleted since the waiter is there
	need map[string]bool // what is before it; nil before that is known
	wake chan struct{}   // gets one when nothing is needed any more, the own key has gone or the vigil is over
}

// errVigil says that the watch ended: the queue must be read.
var errVigil = errors.New("the watch of the lock's queue ended")

// attend returns a waiter if the path is watched, nil otherwise.
func (s *locks) attend(path, key string) *waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.vigils[path]; v != nil && v.up {
		return v.add(key)
	}
	return nil
}

func (v *vigil) add(key string) *waiter {
	w := &waiter{v: v, key: key, gone: map[string]bool{}, wake: make(chan struct{}, 1)}
	v.waiters[w] = struct{}{}
	return w
}

// watch returns a waiter when the path is watched.
func (s *locks) watch(ctx context.Context, path, key string) (*waiter, error) {
	s.mu.Lock()
	v := s.vigils[path]
	if v == nil {
		v = &vigil{s: s, path: path, stands: make(chan struct{}), waiters: map[*waiter]struct{}{}, used: time.Now()}
		var wctx context.Context
		wctx, v.cancel = context.WithCancel(s.c.ctx)
		if !s.c.spawn(func() { v.run(wctx) }) {
			s.mu.Unlock()
			v.cancel()
			return nil, ErrClosed
		}
		s.vigils[path] = v
	}
	s.mu.Unlock()
	select {
	case <-v.stands:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.err != nil {
		return nil, v.err
	}
	return v.add(key), nil
}

// run follows the deletions below the path until it is cancelled or the stream ends.
func (v *vigil) run(ctx context.Context) {
	defer v.cancel()
	idle := time.NewTicker(linger)
	defer idle.Stop()
	v.s.c.spawn(func() {
		for !v.idle() {
			select {
			case <-idle.C:
			case <-ctx.Done():
				return
			}
		}
		v.cancel()
	})
	s := v.s.c.Watch(ctx, v.path+"/", 0)
	var at Header
	for {
		r, err := s.Next()
		if err == nil && at.Cluster != 0 && (r.Cluster != at.Cluster || r.Revision < at.Revision) {
			err = errStale // what was queued may not be there
		}
		at = r.Header
		v.s.mu.Lock()
		if err != nil {
			v.end(err)
			v.s.mu.Unlock()
			return
		}
		if !v.up {
			v.up = true
			close(v.stands)
		}
		for _, e := range r.Events {
			if e.Type == Deleted {
				for w := range v.waiters {
					w.saw(e.KV.Key)
				}
			}
		}
		v.s.mu.Unlock()
	}
}

// idle says whether nobody has waited for a while.
func (v *vigil) idle() bool {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return len(v.waiters) == 0 && time.Since(v.used) >= linger
}

// end tells all waiters. The caller holds locks.mu.
func (v *vigil) end(err error) {
	v.err = err
	if !v.up {
		close(v.stands)
	}
	delete(v.s.vigils, v.path)
	for w := range v.waiters {
		w.poke()
	}
}

func (w *waiter) saw(key string) {
	if key == w.key || w.need == nil {
		w.gone[key] = true
	}
	delete(w.need, key)
	if key == w.key || w.need != nil && len(w.need) == 0 {
		w.poke()
	}
}

func (w *waiter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wait waits until all of before have gone. Nobody can come before a key that is queued, so then the lock is its own.
func (w *waiter) wait(ctx context.Context, lost <-chan struct{}, before []string) error {
	s := w.v.s
	s.mu.Lock()
	w.v.used = time.Now()
	w.need = map[string]bool{}
	for _, k := range before {
		if !w.gone[k] {
			w.need[k] = true
		}
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		own, left, err := w.gone[w.key], len(w.need), w.v.err
		s.mu.Unlock()
		switch {
		case own:
			return ErrLockLost
		case left == 0:
			return nil
		case err != nil:
			return errVigil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return ErrLockLost
		}
	}
}

// leave ends a waiter; nil is none.
func (w *waiter) leave() {
	if w == nil {
		return
	}
	w.v.s.mu.Lock()
	delete(w.v.waiters, w)
	w.v.s.mu.Unlock()
}

// before returns the names of the keys that are queued before this one, and whether this one is there.
func (l *Lock) before(queue []KeyValue) (names []string, own bool) {
	for _, kv := range queue {
		if strings.Contains(kv.Key[len(l.path)+1:], "/") {
			continue // of a lock whose path begins with this one's
		}
		own = own || kv.Key == l.key && kv.CreateRevision == l.rev
		if kv.CreateRevision < l.rev {
			names = append(names, kv.Key)
		}
	}
	return names, own
}
