package instance

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

const (
	maxRestarts = 10               // in a row, then the policy gives up, as Incus' boot.autorestart
	calm        = time.Minute      // a run that lasts longer begins a new row
	maxBackOff  = 30 * time.Second // between two restarts
)

// backOff is how long to wait before the restart after so many failures in a row: at once, then 1, 2, 4 … seconds. false:
// not again.
func backOff(failures int) (time.Duration, bool) {
	switch {
	case failures >= maxRestarts:
		return 0, false
	case failures == 0:
		return 0, true
	}
	return min(time.Second<<(failures-1), maxBackOff), true
}

// restarts tells whether the policy brings back an instance that ended by itself with this exit code.
func restarts(policy string, code int) bool {
	return policy == "true" || policy == "on-failure" && code != 0
}

// nextFor decides what follows the end of a run; policy says that boot.autorestart wants it.
func (s *Service) nextFor(e *entry, r *run) (next intent, policy bool) {
	item, err := s.store.get(e.name())
	if err != nil {
		return wantNothing, false
	}
	switch {
	case item.Value.Intent == wantStart || r.exit.Reboot:
		return wantStart, false
	case item.Value.Intent != wantNothing || !e.wasLet(r) || e.held() == actStop || e.held() == actRestart || item.Value.Ephemeral || s.down.Load():
		return wantNothing, false
	}
	x, err := s.expand(e.name().project, item.Value)
	if err != nil || !restarts(x.cfg["boot.autorestart"], r.exit.Code) {
		return wantNothing, false
	}
	return wantStart, true
}

func (e *entry) wasLet(r *run) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.let
}

// comeBack starts an instance that ended by itself after a while, unless somebody stops or starts it before. The record
// says wantStart meanwhile, so the next daemon does it when this one dies. The caller holds the lock.
func (s *Service) comeBack(e *entry, r *run) {
	e.mu.Lock()
	if !r.created.IsZero() && time.Since(r.created) > calm {
		e.failures = 0
	}
	e.mu.Unlock()
	ctx := e.arm(s.ctx)
	if !s.background(func() { s.keepStarting(ctx, e) }) {
		e.cancelComeback()
	}
}

// keepStarting waits and starts, again after a longer wait when the start fails, until the policy gives up or ctx ends.
func (s *Service) keepStarting(ctx context.Context, e *entry) {
	for {
		e.mu.Lock()
		wait, again := backOff(e.failures)
		e.failures++
		e.mu.Unlock()
		if !again {
			s.tell(e.name(), slog.LevelError, "ended too often and is not restarted any more", "times", maxRestarts)
			s.log.Error("instance ends again and again and is not restarted any more", "instance", e.name().String(), "times", maxRestarts)
			if e.cancelComeback() {
				s.forget(ctx, e)
			}
			return
		}
		if !pause(ctx, wait) || s.entries.get(e.name()) != e || s.down.Load() {
			return
		}
		next, err := s.startAgain(e)
		if err == nil || next == nil && !errs.Is(err, errs.BusyClass) || errors.Is(err, errForced) {
			return
		}
		if next != nil {
			ctx = next
		}
		s.log.Error("instance is not restarted", "instance", e.name().String(), "err", err)
	}
}

// startAgain starts once. When that fails and nobody else has decided about the instance, it arms the next try.
func (s *Service) startAgain(e *entry) (next context.Context, err error) {
	ran := false
	err = e.exclusive(s.ctx, actStart, func(ctx context.Context) error {
		ran = true
		if !e.cancelComeback() {
			return errForced // somebody decided otherwise
		}
		err := s.start(ctx, e)
		if err == nil {
			s.event(ctx, e.name(), "instance-started", nil)
		} else if ctx.Err() == nil {
			next = e.arm(s.ctx)
			err = errors.Join(err, s.intend(ctx, e, wantStart))
		}
		return err
	})
	if err == nil && !ran {
		err = busy(actStart) // of the start that made the run which ended
	}
	return next, err
}

// arm makes a restart pending: its context ends when somebody decides otherwise.
func (e *entry) arm(ctx context.Context) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, e.comeback = context.WithCancel(ctx)
	return ctx
}

// cancelComeback ends the waiting of a restart policy; false when there was none.
func (e *entry) cancelComeback() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.comeback == nil {
		return false
	}
	e.comeback()
	e.comeback = nil
	return true
}
