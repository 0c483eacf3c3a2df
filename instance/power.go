package instance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

var stateOps = map[string]string{
	"start": "Starting instance", "stop": "Stopping instance", "restart": "Restarting instance",
	"freeze": "Freezing instance", "unfreeze": "Unfreezing instance",
}

func instanceURL(r ref) string {
	u := "/1.0/instances/" + url.PathEscape(r.name.String())
	if r.project != api.DefaultProject {
		u += "?project=" + url.QueryEscape(r.project.String())
	}
	return u
}

// instanceOp is the frame of an operation on one instance.
func instanceOp(description string, r ref) op.Spec {
	return op.Spec{
		Class: op.Task, Project: r.project, Description: description,
		Resources: map[string][]string{"instances": {instanceURL(r)}},
	}
}

// find returns the entry of an instance; NotFound "Instance not found". A bad name is not found either.
func (s *Service) find(project api.ProjectName, name string) (*entry, error) {
	n, err := api.ParseInstanceName(name)
	if err == nil {
		if e := s.entries.get(ref{project, n}); e != nil {
			return e, nil
		}
	}
	return nil, errs.NotFound("Instance not found")
}

func checkStatePut(put api.InstanceStatePut) error {
	if stateOps[put.Action] == "" {
		return errs.Invalid("Unknown state action %q; start, stop, restart, freeze and unfreeze are known", put.Action)
	}
	if put.Stateful {
		return errs.Unsupported("stateful %s is not supported on this host", put.Action)
	}
	return nil
}

// SetState returns the operation that starts, stops, restarts, freezes or unfreezes an instance.
func (s *Service) SetState(ctx context.Context, project api.ProjectName, name string, put api.InstanceStatePut) (op.Spec, error) {
	if err := checkStatePut(put); err != nil {
		return op.Spec{}, err
	}
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	r := e.name()
	spec := instanceOp(stateOps[put.Action], r)
	spec.Run = func(ctx context.Context, _ op.Handle) error { return s.power(ctx, r, put) }
	return spec, nil
}

// SetStateAll returns the operation that does the same to every instance of a project for which it makes sense: start
// the stopped ones, freeze the running ones, and so on.
func (s *Service) SetStateAll(ctx context.Context, project api.ProjectName, put api.InstanceStatePut) (op.Spec, error) {
	if err := checkStatePut(put); err != nil {
		return op.Spec{}, err
	}
	var refs []ref
	spec := op.Spec{Project: project, Description: stateOps[put.Action], Resources: map[string][]string{"instances": {}}}
	for _, name := range s.Names(project) {
		e, err := s.find(project, name)
		if err != nil {
			continue
		}
		status, _ := e.now()
		if fits(put.Action, status) {
			refs = append(refs, e.name())
			spec.Resources["instances"] = append(spec.Resources["instances"], instanceURL(e.name()))
		}
	}
	spec.Run = func(ctx context.Context, _ op.Handle) error {
		var mu sync.Mutex
		var problems []error
		g := new(errgroup.Group)
		g.SetLimit(parallel)
		for _, r := range refs {
			g.Go(func() error {
				if err := s.power(ctx, r, put); err != nil {
					mu.Lock()
					problems = append(problems, fmt.Errorf("%s: %w", r.name, err))
					mu.Unlock()
				}
				return nil
			})
		}
		_ = g.Wait()
		return errors.Join(problems...)
	}
	return spec, nil
}

func fits(action string, status api.StatusCode) bool {
	switch action {
	case "start":
		return !isRunning(status)
	case "unfreeze":
		return status == api.Frozen
	case "freeze":
		return status == api.Running
	}
	return isRunning(status)
}

// power does what a state request asks for.
func (s *Service) power(ctx context.Context, r ref, put api.InstanceStatePut) error {
	e := s.entries.get(r)
	if e == nil {
		return errs.NotFound("Instance not found")
	}
	timeout := time.Duration(put.Timeout) * time.Second
	if put.Timeout == 0 {
		timeout = defaultStopTimeout
	}
	switch put.Action {
	case "start":
		return e.exclusive(ctx, actStart, func(ctx context.Context) error {
			if err := s.start(ctx, e); err != nil {
				return err
			}
			s.event(ctx, e.name(), "instance-started", nil)
			return nil
		})
	case "stop":
		return s.powerOff(ctx, e, put.Force, timeout)
	case "restart":
		return e.exclusive(ctx, actRestart, func(ctx context.Context) error {
			if err := e.want("Instance is not running", api.Running, api.Frozen, api.Stopping); err != nil {
				return err
			}
			if err := s.intend(ctx, e, wantStart); err != nil {
				return err
			}
			if err := s.stop(ctx, e, put.Force || put.Timeout == 0, timeout); err != nil {
				s.forget(ctx, e)
				return err
			}
			if err := s.start(ctx, e); err != nil {
				return err
			}
			s.event(ctx, e.name(), "instance-restarted", nil)
			return nil
		})
	case "freeze":
		return s.freeze(ctx, e)
	}
	return s.unfreeze(ctx, e)
}

// powerOff stops an instance, and ends a restart by policy that its end brought about.
func (s *Service) powerOff(ctx context.Context, e *entry, force bool, timeout time.Duration) error {
	if err := s.endRun(ctx, e, force, timeout); err != nil {
		return err
	}
	if e.cancelComeback() {
		return s.intend(ctx, e, wantNothing)
	}
	return nil
}

func (s *Service) endRun(ctx context.Context, e *entry, force bool, timeout time.Duration) error {
	if !force {
		return e.exclusive(ctx, actStop, func(ctx context.Context) error {
			if err := s.stop(ctx, e, false, timeout); err != nil {
				return err
			}
			s.event(ctx, e.name(), "instance-shutdown", nil)
			return nil
		})
	}
	return e.forced(ctx, func() error { s.decideStop(ctx, e); return s.kill(ctx, e) }, func(ctx context.Context) error {
		if r := e.current(); r != nil {
			s.decideStop(ctx, e)
			if e.current() != r {
				s.event(ctx, e.name(), "instance-stopped", nil)
				return nil // it ended meanwhile
			}
		}
		if err := s.stop(ctx, e, true, 0); err != nil {
			s.forget(ctx, e)
			return err
		}
		s.event(ctx, e.name(), "instance-stopped", nil)
		return nil
	})
}

func (s *Service) freeze(ctx context.Context, e *entry) error {
	return e.exclusive(ctx, actFreeze, func(ctx context.Context) error {
		return s.turn(ctx, e, "The container is already frozen", api.Frozen, api.Running, api.Freezing, driver.Driver.Freeze, "instance-paused")
	})
}

func (s *Service) unfreeze(ctx context.Context, e *entry) error {
	return e.exclusive(ctx, actUnfreeze, func(ctx context.Context) error {
		return s.turn(ctx, e, "The container is already running", api.Running, api.Frozen, api.Frozen, driver.Driver.Unfreeze, "instance-resumed")
	})
}

// turn takes a running instance from one status to another by one call of the driver.
func (s *Service) turn(ctx context.Context, e *entry, already string, to, from, via api.StatusCode, call func(driver.Driver, context.Context, string) error, event string) error {
	status, _ := e.now()
	if status == to {
		return errs.Invalid("%s", already)
	}
	if status != from {
		return errs.Invalid("Instance is not running")
	}
	d, err := s.driverOf(e)
	if err != nil {
		return err
	}
	r := e.current()
	e.setFor(r, via)
	if err := call(d, ctx, e.id); err != nil {
		e.setFor(r, from)
		return err
	}
	e.setFor(r, to)
	s.event(ctx, e.name(), event, nil)
	return nil
}
