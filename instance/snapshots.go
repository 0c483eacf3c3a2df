package instance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/units"
	"github.com/shoal-project/shoal/storage"
)

// MaxSnapshots bounds how many snapshots one instance may have.
const MaxSnapshots = 1000

// snapshot is a snapshot as it is stored, under <id of the instance>/<name>: renaming the instance changes nothing here, and renaming
// the snapshot nothing on disk, where ID names its volume.
type snapshot struct {
	ID        string
	Record    record // the instance as it was
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	Phase     phase     // creating and deleting: removed when cut off
	Thaw      bool      // the instance was frozen to make it: a cut-off one is thawed
}

func snapKey(id string, name api.SnapshotName) string { return state.Key(id, name.String()) }

func snapName(it state.Item[snapshot]) string { return state.SplitKey(it.Key)[1] }

// snapshotsOf returns an instance's snapshots in all phases, by name. Read only: the values are shared.
func (s *store) snapshotsOf(id string) []state.Item[snapshot] { return s.snaps.List(state.Prefix(id)) }

func (s *store) snapshot(id string, name api.SnapshotName) (state.Item[snapshot], error) {
	it, err := s.snaps.Get(snapKey(id, name))
	if errs.IsNotFound(err) || err == nil && it.Value.Phase == creating {
		return it, errs.NotFound("Instance snapshot not found")
	}
	return it, err
}

func snapHolder(id string) string { return "snapshot/" + id }

// root says where the data of a snapshot is.
func (sn snapshot) root() (storage.Root, error) {
	pool, err := api.ParsePoolName(sn.Record.Pool)
	return storage.Root{Pool: pool, Snapshot: sn.ID}, err
}

// rootOf says where the data of an instance is.
func rootOf(r ref, rec record) (storage.Root, error) {
	pool, err := api.ParsePoolName(rec.Pool)
	return storage.Root{Pool: pool, Project: r.project, Instance: r.name}, err
}

// Snapshot returns the operation that makes a snapshot ("Snapshotting instance"). Without a name one is made from
// snapshots.pattern. A snapshot of a running instance is what a power cut at that moment would leave on its disk.
func (s *Service) Snapshot(project api.ProjectName, name string, req api.InstanceSnapshotsPost) (op.Spec, error) {
	e, err := s.find(project, name)
	if err != nil {
		return op.Spec{}, err
	}
	if req.Stateful {
		return op.Spec{}, errs.Unsupported("stateful snapshots are not supported on this host; leave out --stateful")
	}
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return op.Spec{}, err
	}
	x, err := s.expand(project, item.Value)
	if err != nil {
		return op.Spec{}, err
	}
	sname, err := s.newSnapshotName(item.Value.ID, x, req.Name)
	if err != nil {
		return op.Spec{}, err
	}
	now := s.d.Clock.Now()
	expires := time.Time{}
	if req.ExpiresAt != nil {
		expires = *req.ExpiresAt
		if !expires.IsZero() && expires.Before(now) {
			return op.Spec{}, errs.Invalid("expires_at %s is in the past", expires.Format(time.RFC3339))
		}
	} else if expires, err = units.AddExpiry(now, x.cfg["snapshots.expiry"]); err != nil {
		return op.Spec{}, err
	}
	spec := instanceOp("Snapshotting instance", r)
	spec.Resources["instances_snapshots"] = []string{snapshotURL(r, sname.String())}
	spec.Cancellable = true
	spec.Run = func(ctx context.Context, h op.Handle) error {
		err := e.exclusive(ctx, actSnapshot, func(ctx context.Context) error { return s.snapshot(ctx, e, sname, expires, h) })
		if err != nil {
			return fmt.Errorf("create snapshot %q of instance %q: %w", sname, r.name, err)
		}
		return nil
	}
	return spec, nil
}

// newSnapshotName checks a name or makes one up.
func (s *Service) newSnapshotName(id string, x expanded, name string) (api.SnapshotName, error) {
	all := s.store.snapshotsOf(id)
	if len(all) >= MaxSnapshots {
		return api.SnapshotName{}, errs.Invalid("the instance has %d snapshots; no more are allowed", len(all))
	}
	names, taken := []string{}, map[string]bool{}
	for _, it := range all {
		names, taken[snapName(it)] = append(names, snapName(it)), true
	}
	if name == "" {
		var err error
		if name, err = config.SnapshotName(x.cfg["snapshots.pattern"], s.d.Clock.Now(), func(n string) bool { return taken[n] }, names); err != nil {
			return api.SnapshotName{}, err
		}
	}
	if taken[name] {
		return api.SnapshotName{}, errs.Exists("Snapshot %q already exists", name)
	}
	return api.ParseSnapshotName(name)
}

// snapshot makes a snapshot; the caller holds the lock. The record comes first, so that what a crash leaves is known.
func (s *Service) snapshot(ctx context.Context, e *entry, name api.SnapshotName, expires time.Time, h op.Handle) error {
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return err
	}
	if item.Value.Phase != ready || item.Value.RenamingTo != "" || item.Value.Restoring != "" {
		return errs.Busy("the instance is not complete")
	}
	from, err := rootOf(r, item.Value)
	if err != nil {
		return err
	}
	sn := snapshot{ID: newUUID(), Record: item.Value.clone(), CreatedAt: s.d.Clock.Now(), ExpiresAt: expires, Phase: creating}
	if sn.Thaw, err = s.mustFreeze(e, from.Pool); err != nil {
		return err
	}
	return s.keep(ctx, r, e.id, name, sn, func(ctx context.Context) error {
		return s.frozen(ctx, e, sn.Thaw, func() error {
			return s.d.Volumes.SnapshotRoot(ctx, from.Pool, sn.ID, from, progress(h, "create_snapshot_from_instance"))
		})
	}, func() { s.snapEvent(ctx, r, "created", name.String(), nil) })
}

// keep writes the record of a snapshot, has make fill it, and removes both when that fails.
func (s *Service) keep(ctx context.Context, r ref, id string, name api.SnapshotName, sn snapshot, make func(context.Context) error, made func()) error {
	it, err := s.createSnapshot(ctx, r, snapKey(id, name), sn)
	if err != nil {
		return err
	}
	err = s.holdImage(ctx, sn.Record.Image, snapHolder(sn.ID))
	if err == nil {
		err = make(ctx)
	}
	if err == nil {
		it.Value.Phase, it.Value.Thaw = ready, false
		_, err = s.store.snaps.Update(ctx, it)
	}
	if err == nil {
		made()
		return nil
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if undo := s.destroySnapshot(ctx, it); undo != nil {
		s.log.Error("half-made snapshot is removed at the next start", "snapshot", it.Key, "err", undo)
	}
	return err
}

// createSnapshot writes the record of a new snapshot of r if its project lets it.
func (s *Service) createSnapshot(ctx context.Context, r ref, key string, sn snapshot) (state.Item[snapshot], error) {
	name := state.SplitKey(key)[1]
	for {
		if _, err := s.store.snaps.Get(key); err == nil {
			return state.Item[snapshot]{}, errs.Exists("Snapshot %q already exists", name)
		}
		gate, err := s.d.Projects.Gate(r.project, policy.Contents{}, policy.OneCopy(policy.Copy{Of: r.name.String(), Name: name}))
		if err != nil {
			return state.Item[snapshot]{}, err
		}
		rev, err := s.store.db.Txn(ctx, append(gate, s.store.snaps.CreateOp(key, sn))...)
		if !faster(err) {
			return state.Item[snapshot]{Key: key, Value: sn, Rev: rev}, err
		}
	}
}

func (s *Service) holdImage(ctx context.Context, image, owner string) error {
	if image == "" {
		return nil
	}
	fp, err := api.ParseFingerprint(image)
	if err != nil {
		return err
	}
	return s.d.Images.Hold(ctx, fp, owner)
}

// mustFreeze says whether an instance has to stand still while its root is copied.
func (s *Service) mustFreeze(e *entry, pool api.PoolName) (bool, error) {
	if status, _ := e.now(); status != api.Running {
		return false, nil
	}
	atomic, err := s.d.Volumes.AtomicCopies(pool)
	return !atomic, err
}

// frozen runs f while the instance stands still, when it has to.
func (s *Service) frozen(ctx context.Context, e *entry, freeze bool, f func() error) error {
	if !freeze {
		return f()
	}
	d, err := s.driverOf(e)
	if err != nil {
		return err
	}
	if err := d.Freeze(ctx, e.id); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	err = f()
	ctx, cancel := detached(ctx)
	defer cancel()
	if thaw := d.Unfreeze(ctx, e.id); thaw != nil && !errs.IsNotFound(thaw) {
		e.set(api.Frozen) // as it is, so that it can be unfrozen by hand
		err = errors.Join(err, fmt.Errorf("unfreeze: %w", thaw))
	}
	return err
}

// destroySnapshot removes a snapshot, its record last. Idempotent.
func (s *Service) destroySnapshot(ctx context.Context, it state.Item[snapshot]) error {
	from, err := it.Value.root()
	if err == nil {
		err = s.d.Volumes.DeleteSnapshot(ctx, from.Pool, it.Value.ID)
	}
	if fp, bad := api.ParseFingerprint(it.Value.Record.Image); bad == nil {
		err = errors.Join(err, s.d.Images.Release(ctx, fp, snapHolder(it.Value.ID)))
	}
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if err := s.store.snaps.Delete(ctx, it.Key); !errs.IsNotFound(err) {
		return err
	}
	return nil
}

// recoverSnapshots removes snapshots that were being made or deleted and finishes a restore.
func (s *Service) recoverSnapshots(ctx context.Context, e *entry, rec record) error {
	var problems []error
	for _, it := range s.store.snapshotsOf(rec.ID) {
		if it.Value.Phase == ready {
			continue
		}
		if status, _ := e.now(); it.Value.Thaw && status == api.Frozen {
			d, err := s.driverFor(rec.Type)
			if err == nil {
				err = d.Unfreeze(ctx, rec.ID)
			}
			if err == nil {
				e.set(api.Running)
			}
			problems = append(problems, err)
		}
		problems = append(problems, s.destroySnapshot(ctx, it))
	}
	if rec.Restoring != "" {
		problems = append(problems, s.finishRestore(ctx, e, nil))
	}
	return errors.Join(problems...)
}

// progress returns a function that tells the operation's listeners how much was copied, at most about ten times a second.
func progress(h op.Handle, key string) func(int64) {
	var told time.Time
	return func(n int64) {
		if h == nil || time.Since(told) < 100*time.Millisecond {
			return
		}
		told = time.Now()
		h.SetMetadata(map[string]any{key + "_progress": units.FormatBytesIEC(n, 2)})
	}
}
