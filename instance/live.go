package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/network"
)

// applyLive takes what is on the host from one record to another: addresses and the size of the root always, limits and
// NICs while the instance runs. Other keys count from the next start on. Disks of a running instance cannot be changed.
func (s *Service) applyLive(ctx context.Context, e *entry, r ref, old, now record) error {
	profilesOld, err := s.profilesOf(r.project, old.Profiles)
	if err != nil {
		return err
	}
	profilesNow, err := s.profilesOf(r.project, now.Profiles)
	if err != nil {
		return err
	}
	return s.applyExpanded(ctx, e, r, old, now, profilesOld, profilesNow)
}

func (s *Service) applyExpanded(ctx context.Context, e *entry, r ref, old, now record, profilesOld, profilesNow []api.ProfilePut) error {
	before, err := expandWith(profilesOld, old)
	if err != nil {
		return err
	}
	after, err := expandWith(profilesNow, now)
	if err != nil {
		return err
	}
	status, pid := e.now()
	runs := isRunning(status) && pid != 0
	if runs && !reflect.DeepEqual(before.devs.Disks, after.devs.Disks) {
		return errs.Unsupported("changing disk devices of a running instance is not supported yet: stop it first")
	}
	if err := s.applyLeases(ctx, r, old, now, before.devs.NICs, after.devs.NICs); err != nil {
		return err
	}
	if err := s.applySize(ctx, r, before.devs.Root, after.devs.Root); err != nil || !runs {
		return err
	}
	if err := s.changeLimits(ctx, e, now.Type, after.cfg); err != nil {
		return err
	}
	return s.applyNICs(ctx, r, pid, old, now, before.devs.NICs, after.devs.NICs)
}

func (s *Service) applySize(ctx context.Context, r ref, before, after *config.Disk) error {
	if before == nil || after == nil || before.Size == after.Size {
		return nil
	}
	if err := s.d.Volumes.ResizeRoot(ctx, after.Pool, r.project, r.name, after.Size); err != nil {
		return fmt.Errorf("resize the root disk: %w", err)
	}
	return nil
}

// applyLeases gives back the addresses of NICs that went and claims the static ones of those that came or changed, also of
// a stopped instance: a conflict is found when it is written, not at the next start.
func (s *Service) applyLeases(ctx context.Context, r ref, old, now record, before, after []config.NIC) error {
	is := map[string]config.NIC{}
	for _, n := range after {
		is[n.Device.String()] = n
	}
	was := map[string]network.NIC{}
	for _, n := range before {
		nic := nicOf(n, old, r, 0)
		was[n.Device.String()] = nic
		if to, stays := is[n.Device.String()]; !stays || to.Network != n.Network || n.IPv4.IsValid() && to.IPv4 != n.IPv4 {
			if err := s.d.NICs.Forget(ctx, nic); err != nil {
				return fmt.Errorf("give back the addresses of %s: %w", n.Device, err)
			}
		}
	}
	for _, n := range after {
		nic := nicOf(n, now, r, 0)
		if nic == was[n.Device.String()] {
			continue
		}
		if err := s.reserve(ctx, nic); err != nil {
			return err
		}
	}
	return nil
}

// reserve claims a NIC's static address; others are chosen when the instance starts.
func (s *Service) reserve(ctx context.Context, nic network.NIC) error {
	if !nic.IPv4.IsValid() {
		return nil
	}
	if err := s.d.NICs.Reserve(ctx, nic); err != nil {
		return fmt.Errorf("device %q: %w", nic.Device, err)
	}
	return nil
}

// applyNICs detaches what went or changed and attaches what came or changed. Where only limits changed the link stays.
func (s *Service) applyNICs(ctx context.Context, r ref, pid int, old, now record, before, after []config.NIC) error {
	was, is := map[string]config.NIC{}, map[string]config.NIC{}
	for _, n := range before {
		was[n.Device.String()] = n
	}
	for _, n := range after {
		is[n.Device.String()] = n
	}
	same := func(dev string) bool {
		a, b := was[dev], is[dev]
		return a == b && nicOf(a, old, r, 0) == nicOf(b, now, r, 0)
	}
	var problems []error
	for _, dev := range sorted(was) {
		if _, stays := is[dev]; stays && same(dev) {
			continue
		}
		if is[dev].SameLink(was[dev]) && nicOf(was[dev], old, r, 0).SameLink(nicOf(is[dev], now, r, 0)) {
			continue
		}
		nic := nicOf(was[dev], old, r, pid)
		if err := s.d.NICs.Detach(ctx, nic); err != nil {
			problems = append(problems, fmt.Errorf("detach %s: %w", dev, err))
		}
		if _, stays := is[dev]; !stays {
			problems = append(problems, s.d.NICs.Forget(ctx, nic))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	for _, dev := range sorted(is) {
		if _, had := was[dev]; had && same(dev) {
			continue
		}
		n := is[dev]
		key := volatileKey(n, "host_name")
		if n.Host == "" && now.Config[key] == "" {
			// State before effect: the next start must know the interface's name.
			name := newHostName()
			rec, err := s.store.modify(ctx, r, func(rec *record) error { rec.Config[key] = name; return nil })
			if err != nil {
				return err
			}
			now.Config = maps.Clone(rec.Config)
		}
		if _, err := s.d.NICs.Attach(ctx, nicOf(n, now, r, pid)); err != nil {
			return fmt.Errorf("attach %s: %w", dev, err)
		}
	}
	return nil
}
