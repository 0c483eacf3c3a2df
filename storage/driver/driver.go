// Package driver declares what keeps the volumes of a pool: the interface that dir and btrfs implement and that
// drivertest proves.
//
// # Terms
//
// A pool is a directory tree of one driver, described by a [Spec]. A volume is a directory in it, named by a
// [Volume]; that of an instance holds upper/ and work/, the writable layer of an overlay, owned unshifted (uid 0 is 0).
// Everything below a volume belongs to a guest and is hostile: drivers never follow a link in it.
//
// # Order of calls
//
// Create once → Open after each start of the daemon → any methods of [Pool] → Close → Destroy once. One handle
// is open at a time.
//
// # Crash
//
// The daemon may die between any two steps. A volume is made in a hidden place and appears under its name in
// one step, complete; deleting moves it out of sight first and removes it in the background. So a volume that is there is
// whole, and what was cut off is swept by the next Open. Create and Destroy that were cut off are undone and finished by
// Destroy, which takes whatever state it finds.
package driver

import (
	"context"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// Driver makes and opens pools of one kind. Safe for concurrent use for different pools.
type Driver interface {
	Info() Info
	// Keys are the pool configuration keys that this driver knows beside the common ones.
	Keys() []schema.Key
	// Create makes the pool and returns its configuration with what was chosen filled in (size, source). It refuses,
	// before touching anything, a source that is in use or not empty, and a size that is not there (errs.NoSpace).
	Create(ctx context.Context, s Spec) (api.Config, error)
	// Open makes the pool usable. Its error becomes the reason for which the pool is listed as unavailable.
	Open(ctx context.Context, s Spec) (Pool, error)
	// Resize applies a changed size; errs.Unsupported where pools have none or cannot shrink.
	Resize(ctx context.Context, s Spec, size int64) error
	// Destroy closes the pool and removes all that Create made, and nothing else; nil when nothing is left.
	Destroy(ctx context.Context, s Spec) error
}

// Info describes a driver.
type Info struct {
	Name    string
	Version string
	Quotas  bool // CreateVolume and SetSize enforce limits in every pool of this driver
	// Snapshots says that CopyVolume and ReplaceVolume take what they copy as it is at one moment. Where it is false, whoever
	// writes to the volume must be stopped or frozen meanwhile.
	Snapshots bool
}

// Spec is a pool as its driver needs it.
type Spec struct {
	Name   api.PoolName
	Config api.Config
	// Path is the pool's own directory, <dir>/storage-pools/<pool>; the pool is found there unless its source is
	// another directory.
	Path string
	// Disk is the image file of a loop-backed pool, <dir>/disks/<pool>.img.
	Disk string
}

// Pool is an open pool. Safe for concurrent use; the caller serialises calls that change one volume.
type Pool interface {
	// Path returns the directory of a volume, whether it exists or not.
	Path(v Volume) string
	// Exists reports whether the volume is there; then it is whole.
	Exists(v Volume) (bool, error)
	// CreateVolume makes an empty volume, with a limit in bytes where the driver keeps one (0: none).
	// errs.Exists when there is one. enforced says whether the limit holds.
	CreateVolume(ctx context.Context, v Volume, size int64) (enforced bool, err error)
	// SetSize changes the limit in bytes (0: none).
	SetSize(ctx context.Context, v Volume, size int64) (enforced bool, err error)
	// Usage returns the bytes that a volume uses. It may lag behind by some seconds.
	Usage(ctx context.Context, v Volume) (int64, error)
	// FillVolume makes a volume like CreateVolume and calls fill with its open directory before the volume has its name. When fill
	// fails or the daemon dies, there is no volume.
	FillVolume(ctx context.Context, v Volume, size int64, fill func(dir *os.File) error) (enforced bool, err error)
	// CopyVolume makes to a copy of from, of which it is independent: a snapshot is a copy that nobody writes to. size is the
	// limit of the copy in bytes (0: none). errs.Exists when there is a volume to. progress may be nil; it gets the
	// bytes copied so far, where copying takes time.
	CopyVolume(ctx context.Context, from, to Volume, size int64, progress func(int64)) (enforced bool, err error)
	// ReplaceVolume puts a copy of from in the place of the volume to, in one step; the copy has the limit of size bytes.
	// Nothing may use to. After a crash it is the old volume or the new one, whole.
	ReplaceVolume(ctx context.Context, from, to Volume, size int64, progress func(int64)) (enforced bool, err error)
	// RenameVolume moves a volume; nil when only the new name exists, errs.Exists when both do.
	RenameVolume(ctx context.Context, from, to Volume) error
	// DeleteVolume makes a volume disappear at once and gives its space back in the background; nil when there is none.
	DeleteVolume(ctx context.Context, v Volume) error
	// Volumes lists what is there, sorted by kind and name.
	Volumes(ctx context.Context) ([]Volume, error)
	// Resources returns the space and inodes of the filesystem below.
	Resources(ctx context.Context) (api.ResourcesStoragePool, error)
	// Close ends background work. What is mounted stays mounted: instances run on.
	Close() error
}

// Kind is a kind of volume, with the name of its directory in the pool.
type Kind string

// The kinds of volumes.
const (
	Containers      Kind = "containers"
	VirtualMachines Kind = "virtual-machines"
	Custom          Kind = "custom"
	Snapshots       Kind = "snapshots" // of volumes of every kind, by their own ids
)

// Kinds are all kinds.
var kinds = []Kind{Containers, Custom, Snapshots, VirtualMachines}

// Kinds returns all kinds in the order of their names.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// Volume names a volume within a pool. Only the functions below make one, from parsed names, so it
// is always safe as two path components.
type Volume struct {
	kind Kind
	name string
}

// InstanceVolume names the root of a container. Those of the default project have the instance's name, others
// "project_name": neither name can contain an underscore.
func InstanceVolume(project api.ProjectName, name api.InstanceName) Volume {
	if project == api.DefaultProject {
		return Volume{Containers, name.String()}
	}
	return Volume{Containers, project.String() + "_" + name.String()}
}

// CustomVolume names a custom volume; always "project_name", since volume names may contain underscores.
func CustomVolume(project api.ProjectName, name api.VolumeName) Volume {
	return Volume{Custom, project.String() + "_" + name.String()}
}

// SnapshotVolume names a snapshot by its id, a UUID that lasts as long as the snapshot: renaming or moving what it is a
// snapshot of touches no file. Invalid when the id is none.
func SnapshotVolume(id string) (Volume, error) {
	if u, err := uuid.Parse(id); err != nil || u.String() != id {
		return Volume{}, errs.Invalid("%q is not the id of a snapshot", id)
	}
	return Volume{Snapshots, id}, nil
}

// Kind returns the kind of the volume.
func (v Volume) Kind() Kind { return v.kind }

// Dir returns the name of the volume's directory.
func (v Volume) Dir() string { return v.name }

// String returns kind/name, for messages.
func (v Volume) String() string { return string(v.kind) + "/" + v.name }

// Listed returns the volume that a directory found in a pool stands for.
func Listed(kind Kind, dir string) (Volume, error) {
	if kind == Snapshots {
		return SnapshotVolume(dir)
	}
	project, name := "", dir
	if i := strings.IndexByte(dir, '_'); i >= 0 {
		project, name = dir[:i], dir[i+1:]
	}
	p, err := api.ParseProjectName(project)
	if err != nil {
		return Volume{}, errs.Invalid("%q is not the directory of a volume: %v", dir, err)
	}
	var v Volume
	if kind == Custom {
		n, e := api.ParseVolumeName(name)
		v, err = CustomVolume(p, n), e
	} else {
		n, e := api.ParseInstanceName(name)
		v, err = InstanceVolume(p, n), e
		v.kind = kind
	}
	if err == nil && v.name != dir {
		err = errs.Invalid("its name would be %q", v.name)
	}
	if err != nil {
		return Volume{}, errs.Invalid("%q is not the directory of a volume: %v", dir, err)
	}
	return v, nil
}
