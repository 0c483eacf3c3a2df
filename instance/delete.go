package instance

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/network"
)

// Delete returns the operation that removes a stopped instance and all that belongs to it ("Deleting instance").
func (s *Service) Delete(ctx context.Context, project api.ProjectName, name string) (op.Spec, error) {
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return op.Spec{}, err
	}
	if status, _ := e.now(); isRunning(status) {
		return op.Spec{}, errs.Invalid("Instance is running")
	}
	if x, err := s.expand(project, item.Value); err == nil && config.IsTrue(x.cfg["security.protection.delete"]) {
		return op.Spec{}, errs.Invalid("Instance is protected")
	}
	spec := instanceOp("Deleting instance", r)
	spec.Run = func(ctx context.Context, _ op.Handle) error { return s.delete(ctx, e) }
	return spec, nil
}

func (s *Service) delete(ctx context.Context, e *entry) error {
	return e.exclusive(ctx, actDelete, func(ctx context.Context) error {
		r := e.name()
		if err := e.want("Instance is running", api.Stopped, api.Error); err != nil {
			return err
		}
		// From the record on there is no way back: what a cancelled operation leaves, the next start finishes.
		if _, err := s.store.modify(ctx, r, func(rec *record) error { rec.Phase = deleting; return nil }); err != nil {
			return err
		}
		ctx, cancel := detached(ctx)
		defer cancel()
		if err := s.destroy(ctx, e); err != nil {
			e.set(api.Error)
			return fmt.Errorf("delete instance %q: %w", r.name, err)
		}
		s.event(ctx, r, "instance-deleted", nil)
		return nil
	})
}

// destroy removes everything that belongs to an instance, the record last. Every step is idempotent, so it undoes a
// creation that was cut off anywhere and finishes a deletion that was. The instance is gone when it returns nil.
func (s *Service) destroy(ctx context.Context, e *entry) error {
	r := e.name()
	item, err := s.store.get(r)
	if errs.IsNotFound(err) {
		s.entries.drop(r, e)
		return nil
	}
	if err != nil {
		return err
	}
	rec := item.Value
	var problems []error
	if d := s.d.Drivers[rec.Type]; d != nil {
		problems = append(problems, d.Kill(ctx, rec.ID))
	}
	problems = append(problems, s.clean(ctx, rec, r))
	// Nothing uses what follows any more, and none of it needs another's end.
	var parts []func() error
	for _, nic := range s.recordedNICs(rec, r) {
		parts = append(parts, func() error { return s.d.NICs.Forget(ctx, nic) })
	}
	if pool, err := api.ParsePoolName(rec.Pool); err == nil {
		parts = append(parts, func() error { return s.d.Volumes.DeleteRoot(ctx, pool, r.project, r.name) })
	}
	if fp, err := api.ParseFingerprint(rec.Image); err == nil {
		parts = append(parts, func() error { return s.d.Images.Release(ctx, fp, holder(rec.ID)) })
	}
	for _, it := range s.store.snapshotsOf(rec.ID) {
		parts = append(parts, func() error { return s.destroySnapshot(ctx, it) })
	}
	parts = append(parts, func() error { return s.removeDirs(rec.ID, r) })
	if err := errors.Join(append(problems, together(parts))...); err != nil {
		return err
	}
	if err := s.store.remove(ctx, r); err != nil {
		return err
	}
	s.entries.drop(r, e)
	return nil
}

// together runs all parts at the same time and returns what went wrong with any of them.
func together(parts []func() error) error {
	problems := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() { problems[i] = part() })
	}
	wg.Wait()
	return errors.Join(problems...)
}

// clean removes what a process left on the host: interfaces and what the driver keeps. Idempotent.
func (s *Service) clean(ctx context.Context, rec record, r ref) error {
	var problems []error
	for _, nic := range s.recordedNICs(rec, r) {
		if err := s.d.NICs.Detach(ctx, nic); err != nil {
			problems = append(problems, fmt.Errorf("detach %s: %w", nic.Device, err))
		}
	}
	if d := s.d.Drivers[rec.Type]; d != nil {
		problems = append(problems, d.Cleanup(ctx, rec.ID))
	}
	return errors.Join(problems...)
}

// recordedNICs returns the NICs that the record knows, with the host names that are in use.
func (s *Service) recordedNICs(rec record, r ref) []network.NIC {
	x, err := s.expand(r.project, rec)
	if err != nil {
		s.log.Warn("devices of an instance cannot be read", "instance", r.String(), "err", err)
	}
	var out []network.NIC
	for _, n := range x.devs.NICs {
		out = append(out, nicOf(n, rec, r, 0))
	}
	return out
}

// nicOf fills a NIC with what the record made up for it.
func nicOf(n config.NIC, rec record, r ref, pid int) network.NIC {
	or := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	return network.NIC{
		Project: r.project, Instance: r.name, Device: n.Device, Network: n.Network, PID: pid, MTU: n.MTU, IPv4: n.IPv4, IPv6: n.IPv6, Ingress: n.Ingress, Egress: n.Egress,
		Name:     or(n.Name, rec.Config[volatileKey(n, "name")]),
		HWAddr:   or(n.HWAddr, rec.Config[volatileKey(n, "hwaddr")]),
		HostName: or(n.Host, rec.Config[volatileKey(n, "host_name")]),
	}
}
