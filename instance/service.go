package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/idmap"
	"github.com/shoal-project/shoal/internal/state"
)

// parallel bounds how many instances are looked at, recovered or started at a time.
const parallel = 16

// Service is the instances of this node. Safe for concurrent use.
type Service struct {
	d       Deps
	store   *store
	entries *entries
	log     *slog.Logger
	dir     *fsroot.Root // Deps.Dir
	ids     idmap.Range  // what instances' own id blocks are cut from
	idsErr  error        // why there are none
	cpus    cpuTable     // who runs where

	ctx    context.Context // ends with Close; background work runs under it
	cancel context.CancelFunc
	mu     sync.Mutex // guards closed and wg.Go against Close
	closed bool
	down   atomic.Bool // the host goes down: nothing is started any more
	wg     sync.WaitGroup
}

// New returns the service; call Recover before anything else.
func New(d Deps) (*Service, error) {
	switch {
	case d.State == nil || d.Profiles == nil || d.Volumes == nil || d.Images == nil || d.NICs == nil:
		return nil, errs.Invalid("instance service: State, Profiles, Volumes, Images and NICs are needed")
	case len(d.Drivers) == 0 || d.Dir == "" || d.Clock == nil || d.Logger == nil:
		return nil, errs.Invalid("instance service: Drivers, Dir, Clock and Logger are needed")
	}
	if d.Machine == nil {
		d.Machine = hostLimits
	}
	if d.Member == "" {
		d.Member = "none"
	}
	if g, ok := d.NICs.(Guests); ok && d.Guests == nil {
		d.Guests = g
	}
	if d.Projects == nil {
		d.Projects = unlimited{}
	}
	s := &Service{d: d, store: newStore(d.State, d.Member), entries: newEntries(), log: d.Logger}
	s.store.gate = s.gate
	if s.ids = d.IDMaps; s.ids.IsZero() {
		if s.ids, s.idsErr = hostIDRange(); s.idsErr != nil {
			s.log.Error("new instances must be privileged: no user ids can be lent to them", "err", s.idsErr)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, s.openDirs()
}

// Close ends background work and waits for it, at most until ctx ends. Instances keep running.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() { s.wg.Wait(); _ = s.dir.Close(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for instances' background work: %w", ctx.Err())
	}
}

// background runs fn until it ends; nothing is started any more once Close was called.
func (s *Service) background(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(fn)
	return true
}

func (s *Service) driverFor(typ string) (driver.Driver, error) {
	d := s.d.Drivers[typ]
	if d == nil {
		return nil, errs.Unsupported("this host cannot run instances of type %q", typ)
	}
	return d, nil
}

// Recover finishes or undoes what a dead daemon left, removes processes without a record and adopts what still runs.
// Call it once, before anything else. An instance that cannot be recovered is logged and shows the status Error; the others go on.
func (s *Service) Recover(ctx context.Context) error {
	for _, item := range s.store.list(api.ProjectName{}) {
		r, err := parseKey(item.Key)
		if err != nil {
			s.log.Error("instance record with a bad key is left alone", "key", item.Key, "err", err)
			continue
		}
		if item.Value.Phase != renaming {
			s.entries.add(r, item.Value.ID)
		}
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	g := new(errgroup.Group)
	g.SetLimit(parallel)
	for _, item := range s.store.list(api.ProjectName{}) {
		r, err := parseKey(item.Key)
		e := s.entries.get(r)
		if err != nil || e == nil {
			continue
		}
		g.Go(func() error {
			if err := s.recoverOne(ctx, e, item); err != nil {
				e.set(api.Error)
				s.log.Error("instance is not recovered", "project", r.project.String(), "instance", r.name.String(), "err", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// adopt takes over what the drivers found.
func (s *Service) adopt(ctx context.Context) error {
	for typ, d := range s.d.Drivers {
		found, err := d.Recover(ctx)
		if err != nil {
			return fmt.Errorf("recover %ss: %w", typ, err)
		}
		for _, f := range found {
			e := s.entries.byID(f.ID)
			switch {
			case e == nil || f.Running && !f.Started:
				// Nobody knows it, or its start was cut off.
				if err := errors.Join(d.Kill(ctx, f.ID), d.Cleanup(ctx, f.ID)); err != nil {
					s.log.Error("leftover process cannot be removed", "id", f.ID, "err", err)
				}
			case f.Running:
				e.mu.Lock()
				e.run, e.status = newRun(), api.Running
				e.run.pid, e.run.let = f.PID, true // created stays zero: every exit from now on is this run's
				s.tell(e.ref, slog.LevelInfo, "the daemon is back, the instance went on", "pid", f.PID)
				if f.Frozen {
					e.status = api.Frozen
				}
				e.mu.Unlock()
				s.adoptCPUs(e, d, f.CPUs)
			case s.comesBack(e, f.Exit):
				// The host took it down, and us with it. It stays recorded as running, which is what autostart goes by.
				e.set(api.Stopped)
			default:
				e.mu.Lock()
				e.run = newRun()
				e.run.let = true
				s.ended(e, e.run, f.Exit) // as if it ended now
			}
		}
	}
	return nil
}

// cutOff tells whether an instance that ended while no daemon ran did not end by itself: nobody saw it end, as when the power fails,
// or it was killed, as everything is when a host goes down.
func cutOff(exit driver.Exit) bool {
	const killed = 128 + 9
	return !exit.Reboot && (exit.Time.IsZero() || exit.Code == killed)
}

// comesBack tells whether an instance that ended while no daemon ran still counts as running. What somebody has decided
// about it (a forced stop, a shutdown of the host) counts more than the way it ended.
func (s *Service) comesBack(e *entry, exit driver.Exit) bool {
	item, err := s.store.get(e.name())
	if err != nil {
		return cutOff(exit)
	}
	switch {
	case item.Value.Ephemeral || item.Value.Intent == wantStop:
		return false
	case item.Value.Intent == wantBack:
		return true
	}
	return cutOff(exit)
}

// recoverOne finishes or undoes what was going on with one record.
func (s *Service) recoverOne(ctx context.Context, e *entry, item state.Item[record]) error {
	rec, r := item.Value, e.name()
	switch {
	case rec.Phase == creating || rec.Phase == deleting:
		s.log.Info("removing an instance that was being created or deleted", "project", r.project.String(), "instance", r.name.String(), "phase", string(rec.Phase))
		return s.destroy(ctx, e)
	case rec.RenamingTo != "":
		to, err := api.ParseInstanceName(rec.RenamingTo)
		if err != nil {
			return err
		}
		s.entries.reserve(ref{r.project, to}, e)
		return s.finishRename(ctx, e, ref{r.project, to})
	}
	if err := s.recoverSnapshots(ctx, e, rec); err != nil {
		return err
	}
	if rec.Intent != wantNothing {
		return s.recoverIntent(ctx, e)
	}
	if e.current() == nil && rec.Config["volatile.last_state.power"] == "RUNNING" {
		// It ran when the daemon or the host died. The power state stays: autostart needs it.
		return s.clean(ctx, rec, r)
	}
	return nil
}

// event publishes a lifecycle event about an instance.
func (s *Service) event(ctx context.Context, r ref, name string, details map[string]any) {
	if s.d.Events != nil {
		s.d.Events.Lifecycle(ctx, r.project, name, instanceURL(r), details)
	}
}

// detached is for work that must be finished although the operation that it belongs to was cancelled.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}
