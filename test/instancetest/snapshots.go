package instancetest

import (
	"context"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage"
)

// CopiesTakeTime makes copies of roots such that a running instance must stand still meanwhile.
func (h *Host) CopiesTakeTime() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = true
}

// AtomicCopies implements instance.VolumeStore.
func (h *Host) AtomicCopies(api.PoolName) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.slow, nil
}

func (h *Host) snapDir(id string) string { return filepath.Join(h.dir, "snapshots", id) }

// from is the directory that a copy is made from; h.mu is held.
func (h *Host) from(r storage.Root) (string, error) {
	if r.Snapshot != "" && h.snaps[r.Snapshot] {
		return h.snapDir(r.Snapshot), nil
	}
	if r.Snapshot == "" && h.roots[vol(r.Project, r.Instance)] {
		return h.RootDir(r.Project, r.Instance), nil
	}
	return "", errs.NotFound("volume %v not found", r)
}

// SnapshotRoot implements instance.VolumeStore.
func (h *Host) SnapshotRoot(ctx context.Context, _ api.PoolName, id string, from storage.Root, _ func(int64)) error {
	if err := h.enter(ctx, "SnapshotRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	dir, err := h.from(from)
	if err != nil {
		return err
	}
	h.snaps[id] = true
	return os.CopyFS(h.snapDir(id), os.DirFS(dir))
}

// CopyRoot implements instance.VolumeStore.
func (h *Host) CopyRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64, from storage.Root, _ func(int64)) error {
	if err := h.enter(ctx, "CopyRoot"); err != nil {
		return err
	}
	dir, err := h.from(from)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	if err := h.CreateRoot(ctx, pool, project, name, size); err != nil {
		return err
	}
	return os.CopyFS(h.RootDir(project, name), os.DirFS(dir))
}

// ReplaceRoot implements instance.VolumeStore.
func (h *Host) ReplaceRoot(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName, from storage.Root, _ func(int64)) error {
	if err := h.enter(ctx, "ReplaceRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	dir, err := h.from(from)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(h.RootDir(project, name)); err != nil {
		return err
	}
	return os.CopyFS(h.RootDir(project, name), os.DirFS(dir))
}

// DeleteSnapshot implements instance.VolumeStore.
func (h *Host) DeleteSnapshot(ctx context.Context, _ api.PoolName, id string) error {
	if err := h.enter(ctx, "DeleteSnapshot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	delete(h.snaps, id)
	return os.RemoveAll(h.snapDir(id))
}
