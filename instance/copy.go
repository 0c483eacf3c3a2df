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
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage"
)

// original is what a copy is made from: an instance with its snapshots, or one snapshot.
type original struct {
	e     *entry
	ref   ref
	rec   record // of the snapshot when it is one
	root  storage.Root
	live  bool                   // root is the instance's own: it may be running
	snaps []state.Item[snapshot] // that the copy gets, too
}

// original finds what a request of source type "copy" names: "c1" or "c1/snap0", in the project of the source or the request's.
func (s *Service) original(project api.ProjectName, src api.InstanceSource) (*original, error) {
	if src.Source == "" {
		return nil, errs.Invalid("must specify a source instance")
	}
	if src.Project != "" {
		var err error
		if project, err = api.ParseProjectName(src.Project); err != nil {
			return nil, err
		}
	}
	name, snap, isSnap := strings.Cut(src.Source, "/")
	if isSnap {
		e, it, err := s.findSnapshot(project, name, snap)
		if err != nil {
			return nil, err
		}
		root, err := it.Value.root()
		return &original{e: e, ref: e.name(), rec: it.Value.Record, root: root}, err
	}
	e, err := s.find(project, name)
	if err != nil {
		return nil, err
	}
	item, err := s.store.get(e.name())
	if err != nil {
		return nil, err
	}
	if item.Value.Phase != ready || item.Value.RenamingTo != "" || item.Value.Restoring != "" {
		return nil, errs.Busy("the instance is not complete")
	}
	o := &original{e: e, ref: e.name(), rec: item.Value, live: true}
	if o.root, err = rootOf(o.ref, item.Value); err != nil {
		return nil, err
	}
	if !src.InstanceOnly && !src.ContainerOnly {
		for _, it := range s.store.snapshotsOf(item.Value.ID) {
			if it.Value.Phase == ready {
				o.snaps = append(o.snaps, it)
			}
		}
	}
	return o, nil
}

// overlay completes a request with what the original has: a key or a device of the request wins, profiles are the request's when it
// has any. The server's own keys are made anew.
func (o *original) overlay(req *api.InstancesPost) error {
	if req.Type != "" && req.Type != o.rec.Type {
		return errs.Invalid("a copy of a %s cannot be a %s", o.rec.Type, req.Type)
	}
	req.Type, req.Architecture = o.rec.Type, o.rec.Architecture
	if req.Description == "" {
		req.Description = o.rec.Description
	}
	cfg := api.Config{}
	for k, v := range o.rec.Config {
		if !config.IsVolatile(k) {
			cfg[k] = v
		}
	}
	for k, v := range req.Config {
		if !config.IsVolatile(k) { // clients send what they got
			cfg[k] = v
		}
	}
	devices := config.CloneDevices(o.rec.Devices)
	if devices == nil {
		devices = api.Devices{}
	}
	maps.Copy(devices, req.Devices)
	req.Config, req.Devices = cfg, devices
	if req.Profiles == nil {
		req.Profiles = slices.Clone(o.rec.Profiles)
		if req.Profiles == nil {
			req.Profiles = []string{}
		}
	}
	return nil
}

// fill makes the root and the snapshots of a copy. The original's lock is held.
func (s *Service) fill(ctx context.Context, p *plan, h op.Handle) error {
	o := p.from
	freeze := false
	if o.live {
		var err error
		if freeze, err = s.mustFreeze(o.e, o.root.Pool); err != nil {
			return err
		}
		freeze = freeze || p.root.Pool != o.root.Pool && o.running()
	}
	err := s.frozen(ctx, o.e, freeze, func() error {
		return s.d.Volumes.CopyRoot(ctx, p.root.Pool, p.ref.project, p.ref.name, p.root.Size, o.root, progress(h, "fs"))
	})
	if err != nil {
		return fmt.Errorf("copy the root disk to pool %q: %w", p.root.Pool, err)
	}
	for _, it := range o.snaps {
		if err := s.copySnapshot(ctx, p.ref, p.rec, it, h); err != nil {
			return fmt.Errorf("copy snapshot %q: %w", snapName(it), err)
		}
	}
	return nil
}

func (o *original) running() bool {
	status, _ := o.e.now()
	return status == api.Running
}

// copySnapshot gives an instance a copy of another's snapshot, with its name and times.
func (s *Service) copySnapshot(ctx context.Context, r ref, to record, it state.Item[snapshot], h op.Handle) error {
	name, err := api.ParseSnapshotName(snapName(it))
	if err != nil {
		return err
	}
	from, err := it.Value.root()
	if err != nil {
		return err
	}
	pool, err := api.ParsePoolName(to.Pool)
	if err != nil {
		return err
	}
	sn := it.Value
	sn.ID, sn.Record, sn.Phase, sn.Thaw = newUUID(), sn.Record.clone(), creating, false
	if sn.Record.Pool != to.Pool {
		// A restore must not lead back to the pool that the original is in.
		for dev, opts := range to.Devices {
			if opts["type"] == "disk" && opts["path"] == "/" {
				sn.Record.Devices[dev] = maps.Clone(opts)
			}
		}
	}
	sn.Record.ID, sn.Record.Pool = to.ID, to.Pool
	return s.keep(ctx, r, to.ID, name, sn, func(ctx context.Context) error {
		return s.d.Volumes.SnapshotRoot(ctx, pool, sn.ID, from, progress(h, "fs"))
	}, func() {})
}

// refresh brings an existing copy up to date: snapshots that only it has go, those that it lacks come, and its root is replaced
// in one step. Its configuration stays. Each part is whole after a crash, and a second refresh does the rest.
func (s *Service) refresh(project api.ProjectName, req api.InstancesPost) (op.Spec, error) {
	e, err := s.find(project, req.Name)
	if err != nil {
		return op.Spec{}, err
	}
	o, err := s.original(project, req.Source)
	if err != nil {
		return op.Spec{}, err
	}
	if o.e == e {
		return op.Spec{}, errs.Invalid("an instance cannot be refreshed from itself")
	}
	if status, _ := e.now(); isRunning(status) {
		return op.Spec{}, errs.Invalid("Cannot refresh a running instance")
	}
	item, err := s.store.get(e.name())
	if err != nil {
		return op.Spec{}, err
	}
	if item.Value.Image != o.rec.Image {
		return op.Spec{}, errs.Invalid("instance %q was made from another image than %q and cannot be refreshed from it; copy it anew", req.Name, req.Source.Source)
	}
	spec := instanceOp("Creating instance", e.name())
	spec.Cancellable = true
	spec.Run = func(ctx context.Context, h op.Handle) error {
		err := e.exclusive(ctx, actCopy, func(ctx context.Context) error {
			if err := e.want("Cannot refresh a running instance", api.Stopped); err != nil {
				return err
			}
			return o.e.exclusive(ctx, actCopy, func(ctx context.Context) error { return s.bringUp(ctx, e, o, h) })
		})
		if err != nil {
			return fmt.Errorf("refresh instance %q: %w", req.Name, err)
		}
		return nil
	}
	return spec, nil
}

func (s *Service) bringUp(ctx context.Context, e *entry, o *original, h op.Handle) error {
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return err
	}
	theirs := map[string]state.Item[snapshot]{}
	for _, it := range o.snaps {
		theirs[snapName(it)] = it
	}
	for _, mine := range s.store.snapshotsOf(item.Value.ID) {
		if it, ok := theirs[snapName(mine)]; ok && it.Value.CreatedAt.Equal(mine.Value.CreatedAt) {
			delete(theirs, snapName(mine))
			continue
		}
		if err := s.deleteSnapshot(ctx, e, mine.Key); err != nil {
			return err
		}
	}
	for _, name := range sorted(theirs) {
		if err := s.copySnapshot(ctx, r, item.Value, theirs[name], h); err != nil {
			return fmt.Errorf("copy snapshot %q: %w", name, err)
		}
	}
	to, err := rootOf(r, item.Value)
	if err != nil {
		return err
	}
	freeze := false
	if o.live {
		if freeze, err = s.mustFreeze(o.e, o.root.Pool); err != nil {
			return err
		}
	}
	return s.frozen(ctx, o.e, freeze, func() error {
		return s.d.Volumes.ReplaceRoot(ctx, to.Pool, r.project, r.name, o.root, progress(h, "fs"))
	})
}
