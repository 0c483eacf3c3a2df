package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// Update returns the operation that replaces what can be written ("Updating instance"). check may be nil; it gets the
// current ETag and decides on If-Match, here and again when the operation writes.
func (s *Service) Update(ctx context.Context, project api.ProjectName, name string, put api.InstancePut, check func(ETag) error) (op.Spec, error) {
	if put.Restore != "" {
		return s.Restore(project, name, put.Restore, put.Stateful)
	}
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	r := e.name()
	replace := func(record) api.InstancePut { return put }
	item, err := s.store.get(r)
	if err != nil {
		return op.Spec{}, err
	}
	if _, err := s.next(r, item.Value, put, check); err != nil {
		return op.Spec{}, err
	}
	spec := instanceOp("Updating instance", r)
	spec.Run = func(ctx context.Context, _ op.Handle) error { return s.update(ctx, e, replace, check) }
	return spec, nil
}

// Patch merges config and devices key by key into the instance, at once. An empty value removes a key; other fields
// are taken over when they are not empty.
func (s *Service) Patch(ctx context.Context, project api.ProjectName, name string, put api.InstancePut, check func(ETag) error) error {
	e, err := s.find(project, name)
	if err != nil {
		return err
	}
	return s.update(ctx, e, func(cur record) api.InstancePut {
		out := api.InstancePut{
			Architecture: cur.Architecture, Description: cur.Description, Ephemeral: cur.Ephemeral || put.Ephemeral,
			Config: maps.Clone(cur.Config), Devices: config.CloneDevices(cur.Devices), Profiles: cur.Profiles,
		}
		maps.Copy(out.Config, put.Config)
		maps.Copy(out.Devices, put.Devices)
		if put.Profiles != nil {
			out.Profiles = put.Profiles
		}
		if put.Description != "" {
			out.Description = put.Description
		}
		return out
	}, check)
}

// update writes the record and then changes what runs. When that fails, the old record comes back.
func (s *Service) update(ctx context.Context, e *entry, change func(record) api.InstancePut, check func(ETag) error) error {
	return e.exclusive(ctx, actUpdate, func(ctx context.Context) error {
		r := e.name()
		var old record
		now, err := s.store.modify(ctx, r, func(rec *record) error {
			old = rec.clone()
			next, err := s.next(r, *rec, change(*rec), check)
			*rec = next
			return err
		})
		if err != nil {
			return err
		}
		if err := s.applyLive(ctx, e, r, old, now); err != nil {
			ctx, cancel := detached(ctx)
			defer cancel()
			if _, undo := s.store.modify(ctx, r, func(rec *record) error { *rec = old; return nil }); undo != nil {
				s.log.Error("failed update is not taken back", "instance", r.String(), "err", undo)
			}
			if undo := s.applyLive(ctx, e, r, now, old); undo != nil {
				s.log.Error("failed update is not taken back on the running instance", "instance", r.String(), "err", undo)
			}
			return fmt.Errorf("update instance %q: %w", r.name, err)
		}
		s.event(ctx, r, "instance-updated", nil)
		return nil
	})
}

// next is the record as it would be after a PUT; it validates everything and writes nothing.
func (s *Service) next(r ref, cur record, put api.InstancePut, check func(ETag) error) (record, error) {
	if check != nil {
		if err := check(cur.etag()); err != nil {
			return cur, err
		}
	}
	if cur.Phase != ready || cur.RenamingTo != "" || cur.Restoring != "" {
		return cur, errs.Busy("the instance is not complete")
	}
	if put.Architecture != "" && put.Architecture != cur.Architecture {
		return cur, errs.Invalid("the architecture of an instance cannot be changed from %q to %q", cur.Architecture, put.Architecture)
	}
	if put.Stateful {
		return cur, errs.Unsupported("stateful instances are not supported on this host")
	}
	rec := cur.clone()
	rec.Description, rec.Ephemeral = put.Description, put.Ephemeral
	rec.Config, rec.Devices, rec.Profiles = config.Clean(put.Config), config.CloneDevices(put.Devices), slices.Clone(put.Profiles)
	if err := config.Check(rec.Config, rec.Type, true); err != nil {
		return cur, err
	}
	if err := keepVolatile(cur.Config, rec.Config); err != nil {
		return cur, err
	}
	x, err := s.checkExpanded(r.project, rec)
	if err != nil {
		return cur, err
	}
	if x.devs.Root.Pool.String() != cur.Pool {
		return cur, errs.Invalid("Cannot update root disk device pool name to %q", x.devs.Root.Pool)
	}
	if _, err := s.gate(r, &cur, &rec); err != nil {
		return cur, err
	}
	if err := s.fillVolatile(r.project, &rec); err != nil {
		return cur, err
	}
	if x.cfg["cloud-init.user-data"]+x.cfg["cloud-init.vendor-data"]+x.cfg["cloud-init.network-config"] != cloudInit(s, r, cur) {
		rec.Config["volatile.cloud-init.instance-id"] = newUUID()
	}
	return rec, nil
}

func cloudInit(s *Service, r ref, rec record) string {
	x, err := s.expand(r.project, rec)
	if err != nil {
		return ""
	}
	return x.cfg["cloud-init.user-data"] + x.cfg["cloud-init.vendor-data"] + x.cfg["cloud-init.network-config"]
}

// keepVolatile carries the server's own keys over into a configuration that a client sent. Hardware addresses may be
// removed (a new one is made) and changed; of the rest a client may send only what it got. What changes by itself while
// an instance runs is kept whatever the client sends.
func keepVolatile(cur, now api.Config) error {
	for k, v := range now {
		if !config.IsVolatile(k) || cur[k] == v || changesByItself(k) {
			continue
		}
		if strings.HasSuffix(k, ".hwaddr") {
			probe := api.Devices{"nic": {"type": "nic", "network": "br0", "hwaddr": v}}
			if _, err := config.ParseDevices(probe); err != nil {
				return errs.Invalid("%s: %q is not a hardware address", k, v)
			}
			continue
		}
		return errs.Invalid("configuration key %q belongs to the server and cannot be changed", k)
	}
	for k, v := range cur {
		if config.IsVolatile(k) && !strings.HasSuffix(k, ".hwaddr") {
			now[k] = v
		}
	}
	for k := range now {
		if _, known := cur[k]; changesByItself(k) && !known {
			delete(now, k)
		}
	}
	return nil
}

func changesByItself(key string) bool {
	return strings.HasPrefix(key, "volatile.last_state.") || strings.HasSuffix(key, ".host_name") || key == "volatile.apply_template" ||
		strings.HasPrefix(key, "volatile.idmap.") || key == "volatile.cloud-init.instance-id"
}
