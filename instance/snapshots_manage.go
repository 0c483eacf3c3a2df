package instance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/units"
)

func snapshotURL(r ref, name string) string {
	u, query, _ := strings.Cut(instanceURL(r), "?")
	u += "/snapshots/" + url.PathEscape(name)
	if query != "" {
		u += "?" + query
	}
	return u
}

func (s *Service) snapEvent(ctx context.Context, r ref, what, name string, details map[string]any) {
	if s.d.Events != nil {
		s.d.Events.Lifecycle(ctx, r.project, "instance-snapshot-"+what, snapshotURL(r, name), details)
	}
}

// snapshotsOf renders the complete snapshots of a record, by name.
func (s *Service) snapshotsOf(item state.Item[record]) []api.InstanceSnapshot {
	out := []api.InstanceSnapshot{}
	r, err := parseKey(item.Key)
	if err != nil {
		return out
	}
	for _, it := range s.store.snapshotsOf(item.Value.ID) {
		if it.Value.Phase == ready {
			out = append(out, s.renderSnapshot(r, it))
		}
	}
	return out
}

func (s *Service) renderSnapshot(r ref, it state.Item[snapshot]) api.InstanceSnapshot {
	inst, _ := s.render(state.Item[record]{Key: r.key(), Value: it.Value.Record})
	return api.InstanceSnapshot{
		ExpiresAt: it.Value.ExpiresAt, Architecture: inst.Architecture, Config: inst.Config, CreatedAt: it.Value.CreatedAt, Devices: inst.Devices,
		Ephemeral: inst.Ephemeral, ExpandedConfig: inst.ExpandedConfig, ExpandedDevices: inst.ExpandedDevices, LastUsedAt: inst.LastUsedAt,
		Name: snapName(it), Profiles: inst.Profiles, Size: -1,
	}
}

// Snapshots returns the snapshots of an instance, by name.
func (s *Service) Snapshots(project api.ProjectName, name string) ([]api.InstanceSnapshot, error) {
	item, err := s.item(project, name)
	if err != nil {
		return nil, err
	}
	return s.snapshotsOf(item), nil
}

// GetSnapshot returns one snapshot; NotFound "Instance snapshot not found".
func (s *Service) GetSnapshot(project api.ProjectName, name, snap string) (api.InstanceSnapshot, ETag, error) {
	e, it, err := s.findSnapshot(project, name, snap)
	if err != nil {
		return api.InstanceSnapshot{}, nil, err
	}
	return s.renderSnapshot(e.name(), it), ETag{it.Value.ExpiresAt}, nil
}

func (s *Service) findSnapshot(project api.ProjectName, name, snap string) (*entry, state.Item[snapshot], error) {
	e, err := s.find(project, name)
	if err != nil {
		return nil, state.Item[snapshot]{}, err
	}
	sname, err := api.ParseSnapshotName(snap)
	if err != nil {
		return nil, state.Item[snapshot]{}, errs.NotFound("Instance snapshot not found")
	}
	it, err := s.store.snapshot(e.id, sname)
	return e, it, err
}

// snapshotOp is the frame of an operation on one snapshot.
func snapshotOp(description string, r ref, snap string) op.Spec {
	spec := instanceOp(description, r)
	spec.Resources["instances_snapshots"] = []string{snapshotURL(r, snap)}
	return spec
}

// DeleteSnapshot returns the operation that removes a snapshot ("Deleting snapshot").
func (s *Service) DeleteSnapshot(project api.ProjectName, name, snap string) (op.Spec, error) {
	e, it, err := s.findSnapshot(project, name, snap)
	if err != nil {
		return op.Spec{}, err
	}
	spec := snapshotOp("Deleting snapshot", e.name(), snap)
	spec.Run = func(ctx context.Context, _ op.Handle) error {
		return e.exclusive(ctx, actSnapshot, func(ctx context.Context) error { return s.deleteSnapshot(ctx, e, it.Key) })
	}
	return spec, nil
}

func (s *Service) deleteSnapshot(ctx context.Context, e *entry, key string) error {
	it, err := s.store.snaps.Modify(ctx, key, func(sn *snapshot) error { sn.Phase = deleting; return nil })
	if errs.IsNotFound(err) {
		return errs.NotFound("Instance snapshot not found")
	}
	if err != nil {
		return err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := s.destroySnapshot(ctx, it); err != nil {
		return err
	}
	s.snapEvent(ctx, e.name(), "deleted", snapName(it), nil)
	return nil
}

// RenameSnapshot returns the operation that renames a snapshot ("Renaming snapshot"): one transaction, nothing on disk.
func (s *Service) RenameSnapshot(project api.ProjectName, name, snap string, req api.InstanceSnapshotPost) (op.Spec, error) {
	if req.Migration {
		return op.Spec{}, errs.Unsupported("migration of snapshots is not supported yet")
	}
	e, it, err := s.findSnapshot(project, name, snap)
	if err != nil {
		return op.Spec{}, err
	}
	to, err := api.ParseSnapshotName(req.Name)
	if err != nil {
		return op.Spec{}, err
	}
	if _, err := s.store.snaps.Get(snapKey(e.id, to)); err == nil {
		return op.Spec{}, errs.Exists("Name %q already in use", to)
	}
	spec := snapshotOp("Renaming snapshot", e.name(), snap)
	spec.Run = func(ctx context.Context, _ op.Handle) error {
		return e.exclusive(ctx, actSnapshot, func(ctx context.Context) error {
			it, err := s.store.snaps.Get(it.Key)
			if errs.IsNotFound(err) {
				return errs.NotFound("Instance snapshot not found")
			}
			if err == nil {
				_, err = s.store.db.Txn(ctx, s.store.snaps.DeleteOp(it), s.store.snaps.CreateOp(snapKey(e.id, to), it.Value))
			}
			if errs.IsExists(err) {
				return errs.Exists("Name %q already in use", to)
			}
			if err == nil {
				s.snapEvent(ctx, e.name(), "renamed", to.String(), map[string]any{"old_name": snap})
			}
			return err
		})
	}
	return spec, nil
}

// UpdateSnapshot returns the operation that changes when a snapshot expires ("Updating snapshot"). check may be nil and decides
// on If-Match.
func (s *Service) UpdateSnapshot(project api.ProjectName, name, snap string, put api.InstanceSnapshotPut, check func(ETag) error) (op.Spec, error) {
	e, it, err := s.findSnapshot(project, name, snap)
	if err != nil {
		return op.Spec{}, err
	}
	if check != nil {
		if err := check(ETag{it.Value.ExpiresAt}); err != nil {
			return op.Spec{}, err
		}
	}
	spec := snapshotOp("Updating snapshot", e.name(), snap)
	spec.Run = func(ctx context.Context, _ op.Handle) error {
		_, err := s.store.snaps.Modify(ctx, it.Key, func(sn *snapshot) error { sn.ExpiresAt = put.ExpiresAt; return nil })
		if err == nil {
			s.snapEvent(ctx, e.name(), "updated", snap, nil)
		}
		return err
	}
	return spec, nil
}

// Restore returns the operation that puts an instance back to a snapshot, "snap" or "instance/snap" ("Restoring snapshot"): its
// disk, configuration, devices and profiles. An instance that runs is killed and started again.
func (s *Service) Restore(project api.ProjectName, name, snap string, stateful bool) (op.Spec, error) {
	if stateful {
		return op.Spec{}, errs.Invalid("Stateful snapshot restore requested but snapshot is stateless")
	}
	if inst, rest, ok := strings.Cut(snap, "/"); ok && inst == name {
		snap = rest
	}
	e, it, err := s.findSnapshot(project, name, snap)
	if err != nil {
		return op.Spec{}, err
	}
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return op.Spec{}, err
	}
	if _, err := s.restored(r, item.Value, it.Value); err != nil {
		return op.Spec{}, err
	}
	spec := snapshotOp("Restoring snapshot", r, snap)
	spec.Run = func(ctx context.Context, h op.Handle) error {
		err := e.exclusive(ctx, actRestore, func(ctx context.Context) error { return s.restore(ctx, e, it, h) })
		if err != nil {
			return fmt.Errorf("restore snapshot %q of instance %q: %w", snap, name, err)
		}
		return nil
	}
	return spec, nil
}

// restored is the record as it is after a restore. What identifies the instance and its host stays.
func (s *Service) restored(r ref, cur record, sn snapshot) (record, error) {
	rec, old := cur.clone(), sn.Record.clone()
	rec.Description, rec.Devices, rec.Profiles, rec.Ephemeral, rec.Image = old.Description, old.Devices, old.Profiles, old.Ephemeral, old.Image
	rec.Config = api.Config{}
	for k, v := range old.Config {
		if !config.IsVolatile(k) || k == "volatile.base_image" {
			rec.Config[k] = v
		}
	}
	for k, v := range cur.Config {
		if config.IsVolatile(k) && k != "volatile.base_image" {
			rec.Config[k] = v
		}
	}
	if cur.Pool != old.Pool {
		return rec, errs.Unsupported("the snapshot is in storage pool %q, the instance in %q", old.Pool, cur.Pool)
	}
	x, err := s.checkExpanded(r.project, rec)
	if err != nil {
		return rec, fmt.Errorf("what the snapshot was made with is not there any more: %w", err)
	}
	if x.devs.Root.Pool.String() != cur.Pool {
		return rec, errs.Invalid("Cannot update root disk device pool name to %q", x.devs.Root.Pool)
	}
	return rec, s.fillVolatile(r.project, &rec)
}

func (s *Service) restore(ctx context.Context, e *entry, it state.Item[snapshot], h op.Handle) error {
	status, _ := e.now()
	again := isRunning(status)
	if again {
		if err := s.stop(ctx, e, true, 0); err != nil {
			return err
		}
	}
	r := e.name()
	_, err := s.store.modify(ctx, r, func(rec *record) error {
		if rec.Phase != ready || rec.RenamingTo != "" {
			return errs.Busy("the instance is not complete")
		}
		rec.Restoring = it.Value.ID
		return nil
	})
	if err != nil {
		return err
	}
	// From here on the next start would finish it.
	if err := s.finishRestore(context.WithoutCancel(ctx), e, h); err != nil {
		return err
	}
	s.event(ctx, r, "instance-restored", map[string]any{"snapshot": snapName(it)})
	if again {
		return s.start(ctx, e)
	}
	return nil
}

// finishRestore replaces the root and then the record. What it cannot do leaves the instance as it was.
func (s *Service) finishRestore(ctx context.Context, e *entry, h op.Handle) error {
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return err
	}
	rec := item.Value
	it, err := s.byID(rec)
	var next record
	if err == nil {
		next, err = s.restored(r, rec, it.Value)
	}
	if err == nil {
		_, err = s.gate(r, &rec, &next)
	}
	if err == nil {
		err = s.holdImage(ctx, next.Image, holder(rec.ID))
	}
	if err == nil {
		from, ferr := it.Value.root()
		if err = ferr; err == nil {
			err = s.d.Volumes.ReplaceRoot(ctx, from.Pool, r.project, r.name, from, progress(h, "restore_snapshot"))
		}
	}
	if err != nil {
		_, undo := s.store.modify(ctx, r, func(rec *record) error { rec.Restoring = ""; return nil })
		return errors.Join(err, undo)
	}
	next.Restoring = ""
	if err := s.overwrite(ctx, r, item, next); err != nil {
		return err
	}
	if fp, bad := api.ParseFingerprint(rec.Image); bad == nil && rec.Image != next.Image {
		return s.d.Images.Release(ctx, fp, holder(rec.ID))
	}
	return nil
}

// byID finds the snapshot that a record is being restored from.
func (s *Service) byID(rec record) (state.Item[snapshot], error) {
	for _, it := range s.store.snapshotsOf(rec.ID) {
		if it.Value.ID == rec.Restoring {
			return it, nil
		}
	}
	return state.Item[snapshot]{}, errs.NotFound("Instance snapshot not found")
}

// Minutely calls [Service.Tick] at once and at the beginning of each minute, until ctx ends.
func (s *Service) Minutely(ctx context.Context) {
	s.Tick(ctx, s.d.Clock.Now(), true)
	for {
		now := s.d.Clock.Now()
		t := time.NewTimer(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
			s.Tick(ctx, s.d.Clock.Now(), false)
		}
	}
}

// Tick does what is due in the minute of now: snapshots by snapshots.schedule, and the end of those that have expired. Call it once a
// minute; what was missed is not made up for. start is true for the first call, which @startup is for.
func (s *Service) Tick(ctx context.Context, now time.Time, start bool) {
	for _, item := range s.store.list(api.ProjectName{}) {
		r, err := parseKey(item.Key)
		if err != nil || item.Value.Phase != ready || ctx.Err() != nil {
			continue
		}
		s.expireSnapshots(ctx, r, item.Value, now)
		if err := s.scheduled(ctx, r, item.Value, now, start); err != nil {
			s.log.Error("scheduled snapshot", "project", r.project.String(), "instance", r.name.String(), "err", err)
		}
	}
}

func (s *Service) expireSnapshots(ctx context.Context, r ref, rec record, now time.Time) {
	e := s.entries.byID(rec.ID)
	for _, it := range s.store.snapshotsOf(rec.ID) {
		if at := it.Value.ExpiresAt; e == nil || at.IsZero() || at.After(now) || it.Value.Phase == creating {
			continue
		}
		err := e.exclusive(ctx, actSnapshot, func(ctx context.Context) error { return s.deleteSnapshot(ctx, e, it.Key) })
		if err != nil && !errs.IsNotFound(err) && !errs.Is(err, errs.BusyClass) {
			s.log.Error("expired snapshot is not deleted", "project", r.project.String(), "instance", r.name.String(), "snapshot", snapName(it), "err", err)
		}
	}
}

func (s *Service) scheduled(ctx context.Context, r ref, rec record, now time.Time, start bool) error {
	x, err := s.expand(r.project, rec)
	if err != nil || x.cfg["snapshots.schedule"] == "" {
		return err
	}
	plan, err := config.ParseSchedule(x.cfg["snapshots.schedule"], rec.ID)
	if err != nil || !(plan.Due(now) || start && plan.OnStart) {
		return err
	}
	e := s.entries.byID(rec.ID)
	if e == nil {
		return nil
	}
	if status, _ := e.now(); !isRunning(status) && !config.IsTrue(x.cfg["snapshots.schedule.stopped"]) {
		return nil
	}
	expires, err := units.AddExpiry(now, x.cfg["snapshots.expiry"])
	if err != nil {
		return err
	}
	name, err := s.newSnapshotName(rec.ID, x, "")
	if err != nil {
		return err
	}
	return e.exclusive(ctx, actSnapshot, func(ctx context.Context) error { return s.snapshot(ctx, e, name, expires, nil) })
}

// overwrite writes a record whose instance is locked, again when only something else in its project changed meanwhile.
func (s *Service) overwrite(ctx context.Context, r ref, item state.Item[record], next record) error {
	for {
		err := s.store.write(ctx, item, next)
		if !faster(err) {
			return err
		}
		if cur, gone := s.store.get(r); gone != nil || cur.Rev != item.Rev {
			return errors.Join(err, gone)
		}
	}
}
