package instance

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/state"
)

// How old numbers may be in lists: measuring a disk may have to walk a tree, addresses take a look into a network namespace.
const (
	diskFresh    = time.Minute
	networkFresh = time.Second
)

// ListFull adds the runtime state to List (recursion=2). Stopped instances cost no disk access.
func (s *Service) ListFull(ctx context.Context, project api.ProjectName) []api.InstanceFull {
	out := []api.InstanceFull{}
	var items []state.Item[record]
	for _, item := range s.store.list(project) {
		if inst, ok := s.render(item); ok {
			out = append(out, api.InstanceFull{Instance: inst, Backups: []api.InstanceBackup{}, Snapshots: s.snapshotsOf(item)})
			items = append(items, item)
		}
	}
	g := new(errgroup.Group)
	g.SetLimit(parallel)
	for i := range out {
		e := s.entries.byID(items[i].Value.ID)
		if e == nil {
			continue
		}
		if !isRunning(out[i].StatusCode) {
			st := stateOf(out[i].StatusCode)
			cachedDisk(e, out[i].ExpandedDevices, &st)
			out[i].State = &st
			continue
		}
		g.Go(func() error {
			if st, err := s.state(ctx, items[i].Value, e, out[i].ExpandedDevices, diskFresh); err == nil {
				out[i].State = &st
			}
			return nil
		})
	}
	_ = g.Wait()
	return out
}

// GetFull returns one instance with everything that hangs on it.
func (s *Service) GetFull(ctx context.Context, project api.ProjectName, name string) (api.InstanceFull, ETag, error) {
	item, err := s.item(project, name)
	if err != nil {
		return api.InstanceFull{}, nil, err
	}
	inst, _ := s.render(item)
	full := api.InstanceFull{Instance: inst, Backups: []api.InstanceBackup{}, Snapshots: s.snapshotsOf(item)}
	e, err := s.find(project, name)
	if err != nil {
		return full, nil, err
	}
	st, err := s.state(ctx, item.Value, e, inst.ExpandedDevices, 0)
	full.State = &st
	return full, item.Value.etag(), err
}

// State returns the runtime state: zero values and no network for an instance that does not run.
func (s *Service) State(ctx context.Context, project api.ProjectName, name string) (api.InstanceState, error) {
	full, _, err := s.GetFull(ctx, project, name)
	if err != nil {
		return api.InstanceState{}, err
	}
	return *full.State, nil
}

func stateOf(status api.StatusCode) api.InstanceState {
	return api.InstanceState{Status: status.String(), StatusCode: status, Disk: map[string]api.InstanceStateDisk{}}
}

// state looks at an instance; a disk use younger than maxAge is taken from memory. devs are its effective devices.
func (s *Service) state(ctx context.Context, rec record, e *entry, devs api.Devices, maxAge time.Duration) (api.InstanceState, error) {
	r := e.name()
	status, pid := e.now()
	st := stateOf(status)
	s.measureDisk(ctx, rec, r, e, maxAge)
	cachedDisk(e, devs, &st)
	if !isRunning(status) || pid == 0 {
		return st, nil
	}
	d, err := s.driverFor(rec.Type)
	if err != nil {
		return st, err
	}
	stats, err := d.Stats(ctx, rec.ID)
	if err != nil {
		// It may just have ended; the status says so next time. Numbers are not worth an error.
		s.log.Debug("no numbers of an instance", "instance", r.String(), "err", err)
		return st, nil
	}
	st.Pid, st.Processes, st.CPU.Usage = int64(pid), stats.Processes, stats.CPU.Nanoseconds()
	st.Memory = api.InstanceStateMemory{Usage: stats.Memory, UsagePeak: stats.MemoryPeak, SwapUsage: stats.Swap, SwapUsagePeak: stats.SwapPeak}
	s.guestNetwork(ctx, rec, r, e, pid, maxAge > 0, &st)
	return st, nil
}

// guestNetwork fills in the interfaces and addresses; of a list those seen a moment ago will do.
func (s *Service) guestNetwork(ctx context.Context, rec record, r ref, e *entry, pid int, list bool, st *api.InstanceState) {
	if s.d.Guests == nil {
		return
	}
	now := s.d.Clock.Now()
	e.mu.Lock()
	seenPID, at, cached := e.netPID, e.netAt, e.net
	e.mu.Unlock()
	if list && seenPID == pid && now.Sub(at) < networkFresh && now.Sub(at) >= 0 {
		st.Network = cached
		return
	}
	seen, err := s.d.Guests.GuestState(ctx, pid)
	if err != nil {
		s.log.Debug("no network state of an instance", "instance", r.String(), "err", err)
		return
	}
	for _, nic := range s.recordedNICs(rec, r) {
		if dev, ok := seen[nic.Name]; ok {
			dev.HostName = nic.HostName
			seen[nic.Name] = dev
		}
	}
	st.Network = seen
	e.mu.Lock()
	e.net, e.netPID, e.netAt = seen, pid, now
	e.mu.Unlock()
}

func (s *Service) measureDisk(ctx context.Context, rec record, r ref, e *entry, maxAge time.Duration) {
	e.mu.Lock()
	at := e.diskAt
	e.mu.Unlock()
	now := s.d.Clock.Now()
	pool, err := api.ParsePoolName(rec.Pool)
	if err != nil || !at.IsZero() && now.Sub(at) < maxAge {
		return
	}
	used, err := s.d.Volumes.RootUsage(ctx, pool, r.project, r.name)
	if err != nil {
		s.log.Debug("no disk use of an instance", "instance", r.String(), "err", err)
		return
	}
	e.mu.Lock()
	e.disk, e.diskAt = used, now
	e.mu.Unlock()
}

// cachedDisk fills in the root's use as it was last measured.
func cachedDisk(e *entry, devs api.Devices, st *api.InstanceState) {
	e.mu.Lock()
	used, at := e.disk, e.diskAt
	e.mu.Unlock()
	if at.IsZero() {
		return
	}
	for name, dev := range devs {
		if dev["type"] == "disk" && dev["path"] == "/" {
			st.Disk[name] = api.InstanceStateDisk{Usage: used}
		}
	}
}
