package instance

import (
	"context"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// recordBudget is how long a forced stop may wait for the database before it kills without having written down why.
const recordBudget = 5 * time.Second

// intend writes down what is going to happen to the power of an instance.
func (s *Service) intend(ctx context.Context, e *entry, to intent) error {
	_, err := s.store.modify(ctx, e.name(), func(rec *record) error { rec.Intent = to; return nil })
	return err
}

// decideStop writes down that the instance is stopped by force. A database that is away does not save the process: the stop is
// carried out all the same and recorded when it has ended.
func (s *Service) decideStop(ctx context.Context, e *entry) {
	ctx, cancel := context.WithTimeout(ctx, recordBudget)
	defer cancel()
	if err := s.intend(ctx, e, wantStop); err != nil {
		s.log.Warn("a forced stop could not be written down before it", "instance", e.name().String(), "err", err)
	}
}

// forget takes back a decision that was not carried out. One that was only cut off (ctx has ended, as when the daemon stops) stays:
// the next start of the daemon carries it out.
func (s *Service) forget(ctx context.Context, e *entry) {
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := s.intend(ctx, e, wantNothing); err != nil {
		s.log.Warn("a decision about an instance is not taken back", "instance", e.name().String(), "err", err)
	}
}

// recoverIntent finishes or takes back what a dead daemon had decided about an instance's power. Autostart starts what was
// meant to be started.
func (s *Service) recoverIntent(ctx context.Context, e *entry) error {
	if e.settling() {
		return nil // the end of the run decides what comes next
	}
	err := e.exclusive(ctx, actUpdate, func(ctx context.Context) error {
		item, err := s.store.get(e.name())
		if err != nil {
			return err
		}
		if e.current() == nil {
			return s.finishIntent(ctx, e, item.Value)
		}
		switch item.Value.Intent {
		case wantStop:
			s.background(func() {
				if err := s.powerOff(s.ctx, e, true, 0); err != nil {
					s.log.Error("a forced stop that was cut off is not finished", "instance", e.name().String(), "err", err)
				}
			})
			return nil
		case wantNothing:
			return nil
		}
		return s.intend(ctx, e, wantNothing) // the process goes on: nothing had been done to it
	})
	if errs.Is(err, errs.BusyClass) {
		return nil // the end of its run has the lock
	}
	return err
}

// finishIntent is recoverIntent for an instance without a process.
func (s *Service) finishIntent(ctx context.Context, e *entry, rec record) error {
	if rec.Intent == wantNothing {
		return nil
	}
	if err := s.clean(ctx, rec, e.name()); err != nil {
		return err
	}
	if rec.Intent == wantStart {
		return nil
	}
	now, err := s.store.modify(ctx, e.name(), func(r *record) error {
		if r.Intent == wantStop {
			r.Config["volatile.last_state.power"] = "STOPPED"
			if r.Ephemeral {
				r.Phase = deleting
			}
		}
		r.Intent = wantNothing
		return nil
	})
	if err == nil && now.Phase == deleting {
		return s.destroy(ctx, e)
	}
	return err
}

// settling reports whether the run has ended and is being torn down.
func (e *entry) settling() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run != nil && e.run.exited
}
