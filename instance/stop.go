package instance

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// defaultStopTimeout applies to a clean stop without a timeout; the lxc client sends -1, which waits for ever.
const defaultStopTimeout = 10 * time.Minute

func (s *Service) driverOf(e *entry) (driver.Driver, error) {
	item, err := s.store.get(e.name())
	if err != nil {
		return nil, err
	}
	return s.driverFor(item.Value.Type)
}

// kill ends the process, whatever it does. The run is torn down by settle.
func (s *Service) kill(ctx context.Context, e *entry) error {
	d, err := s.driverOf(e)
	if err != nil {
		return err
	}
	return d.Kill(ctx, e.id)
}

// stop ends the instance and waits until nothing of the run is left. The caller holds the lock.
func (s *Service) stop(ctx context.Context, e *entry, force bool, timeout time.Duration) error {
	if e.cancelComeback() {
		return s.intend(ctx, e, wantNothing) // it was about to be restarted
	}
	r := e.current()
	status, _ := e.now()
	if r == nil || !isRunning(status) {
		return errs.Invalid("The instance is already stopped")
	}
	d, err := s.driverOf(e)
	if err != nil {
		return err
	}
	s.tell(e.name(), slog.LevelInfo, "stop asked for", "force", force, "timeout", timeout)
	if force {
		e.setFor(r, api.Stopping)
		if err := d.Kill(ctx, e.id); err != nil {
			e.setFor(r, status)
			return fmt.Errorf("kill instance %q: %w", e.name().name, err)
		}
		return s.await(ctx, r.done)
	}
	if status == api.Frozen {
		if err := d.Unfreeze(ctx, e.id); err != nil {
			return err
		}
		status = api.Running
	}
	e.setFor(r, api.Stopping)
	if err := d.Shutdown(ctx, e.id); err != nil && !errs.IsNotFound(err) {
		e.setFor(r, status)
		return fmt.Errorf("shut down instance %q: %w", e.name().name, err)
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if err := s.awaitShutdown(ctx, d, e, r); err != nil {
		e.setFor(r, status)
		return fmt.Errorf("Failed shutting down instance, status is %q: %w", status, err) //nolint:staticcheck // LXD's text
	}
	return nil
}

// askAgain is how often a guest that has been asked to stop is asked once more.
const askAgain = time.Second

// awaitShutdown waits for the end of a run that was asked to stop, and repeats the question: an init that has only just
// been started has no ear for signals yet, and one that has heard the first takes the others for the same.
func (s *Service) awaitShutdown(ctx context.Context, d driver.Driver, e *entry, r *run) error {
	t := time.NewTicker(askAgain)
	defer t.Stop()
	for {
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if err := d.Shutdown(ctx, e.id); err != nil && !errs.IsNotFound(err) {
				s.log.Debug("ask once more to stop", "instance", e.name().name.String(), "err", err)
			}
		}
	}
}

func (s *Service) await(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Exited is what drivers' OnExit must lead to. It returns at once; what follows happens in the background.
func (s *Service) Exited(id string, exit driver.Exit) {
	e := s.entries.byID(id)
	if e == nil {
		return // being deleted, or never ours
	}
	e.mu.Lock()
	r := e.run
	if r == nil || r.exited || !r.isOf(exit) {
		e.mu.Unlock()
		return
	}
	s.ended(e, r, exit)
}

// ended begins the end of a run; e.mu is held and given back.
func (s *Service) ended(e *entry, r *run, exit driver.Exit) {
	r.exited, r.exit, e.status = true, exit, api.Stopping
	close(r.gone)
	e.mu.Unlock()
	s.background(func() { s.settle(e, r) })
}

// settle ends a run: it tears down, then restarts (the guest asked for a reboot) or deletes (ephemeral), unless an
// operation that holds the lock decides what happens next.
func (s *Service) settle(e *entry, r *run) {
	ctx := s.ctx
	name := e.name()
	s.tell(name, slog.LevelInfo, "ended", "code", r.exit.Code, "reboot", r.exit.Reboot, "at", r.exit.Time)
	next, policy := s.nextFor(e, r)
	err := s.tearDownNow(ctx, e, r, next)
	if err != nil {
		s.log.Error("stopped instance cannot be cleaned up", "instance", name.String(), "err", err)
		s.tell(name, slog.LevelError, "what it left on the host cannot be removed", "err", err)
	}
	act := actStop
	if r.exit.Reboot {
		act = actRestart
	}
	item, rerr := s.store.get(name)
	hctx, h, holder := e.take(ctx, act, false)
	drop := rerr == nil && item.Value.Ephemeral && (h != nil && !r.exit.Reboot || h == nil && holder.action == actStop)
	e.mu.Lock()
	mine := e.run == r
	if mine {
		e.run, e.status = nil, api.Stopped
		switch {
		case drop:
			e.status = api.Stopping // until it is deleted
		case err != nil:
			e.status = api.Error
		}
	}
	e.mu.Unlock()
	if h == nil {
		// Somebody else's operation, a stop or a restart mostly, waits for done.
		if mine && drop {
			s.dropEphemeral(ctx, e)
		}
		if mine && policy {
			s.comeBack(e, r)
		}
		if mine {
			close(r.done)
		}
		return
	}
	if mine {
		defer close(r.done)
	}
	err = e.under(hctx, h, func(ctx context.Context) error {
		if !mine {
			return nil // abandon was here first
		}
		if next != wantStart || policy {
			s.event(ctx, name, "instance-shutdown", nil)
			switch {
			case drop:
				s.dropEphemeral(ctx, e)
			case policy:
				s.comeBack(e, r)
			}
			return nil
		}
		err := s.start(ctx, e)
		if err == nil {
			s.event(ctx, name, "instance-restarted", nil)
		}
		return err
	})
	if err != nil {
		s.log.Error("instance is not restarted after its reboot", "instance", name.String(), "err", err)
		s.tell(name, slog.LevelError, "not restarted after its reboot", "err", err)
	}
}

// tearDownNow tears down even when the daemon is being stopped: else the instance would be started with the next one.
func (s *Service) tearDownNow(ctx context.Context, e *entry, r *run, next intent) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	return s.tearDown(ctx, e, r, next)
}

// dropEphemeral deletes an instance that lives only as long as it runs. The lock is held by whoever stops it.
func (s *Service) dropEphemeral(ctx context.Context, e *entry) {
	ctx, cancel := detached(ctx)
	defer cancel()
	r := e.name()
	_, err := s.store.modify(ctx, r, func(rec *record) error { rec.Phase = deleting; return nil })
	if err == nil {
		err = s.destroy(ctx, e)
	}
	if err != nil {
		e.set(api.Error)
		s.log.Error("ephemeral instance is not deleted", "instance", r.String(), "err", err)
		return
	}
	s.event(ctx, r, "instance-deleted", nil)
}
