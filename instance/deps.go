package instance

import (
	"context"
	"log/slog"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/idmap"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network"
	"github.com/shoal-project/shoal/storage"
)

// Deps is everything that the service needs. All fields without "optional" must be set.
type Deps struct {
	State    *state.DB
	Profiles *profile.Store
	Drivers  map[string]driver.Driver // api.TypeContainer → oci; their OnExit must lead to [Service.Exited]
	Volumes  VolumeStore
	Images   ImageStore
	NICs     NICs
	Projects Projects                    // optional: without, every project has everything of its own and no limits
	Guests   Guests                      // optional: NICs when that can; else the state of an instance shows no network
	Events   Events                      // optional
	Dir      string                      // the daemon's state directory; instances/ and logs/ below it belong to this room
	Member   string                      // optional: this node's name in the cluster, default "none"
	IDMaps   idmap.Range                 // optional: where instances' id blocks are cut from; zero: root's in /etc/subuid and /etc/subgid
	Machine  func() (config.Host, error) // optional: the memory and CPUs that limits refer to; nil: this machine's
	Clock    clock.Clock
	Logger   *slog.Logger
}

// Projects knows what projects share and what they allow; identity/project satisfies it.
type Projects interface {
	// Effective returns the project that holds the objects of a feature for name.
	Effective(name api.ProjectName, feature string) (api.ProjectName, error)
	// Gate decides whether objects of before may make way for those of after, with their effective configurations. What it returns must be part
	// of the transaction that writes them; Conflict or Exists from it mean: ask again.
	Gate(name api.ProjectName, before, after policy.Contents) ([]state.Op, error)
}

// VolumeStore is where instance roots live; storage satisfies it.
type VolumeStore interface {
	// CreateRoot makes an empty writable layer for the instance in the pool, with a size limit in bytes (0: none)
	// where the pool's driver can keep one. Exists when there is one already.
	CreateRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error
	// RootPath makes the pool usable and returns the directory with upper/ and work/.
	RootPath(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) (string, error)
	// RootUsage returns the bytes that the instance's layer uses.
	RootUsage(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) (int64, error)
	// ResizeRoot changes the size limit in bytes (0: none) of a root, also of one that is in use.
	ResizeRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error
	// RenameRoot is idempotent: nil when from is gone and to exists.
	RenameRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, from, to api.InstanceName) error
	// DeleteRoot removes the layer; nil when there is none.
	DeleteRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName) error
	// AtomicCopies reports whether the next three copy a root as of one moment; else a running instance is frozen meanwhile.
	AtomicCopies(pool api.PoolName) (bool, error)
	// SnapshotRoot keeps a copy of a root or a snapshot under an id, a UUID; nothing is left when it fails. progress may be nil.
	SnapshotRoot(ctx context.Context, pool api.PoolName, id string, from storage.Root, progress func(bytes int64)) error
	// CopyRoot is CreateRoot, filled from a root or snapshot of any pool.
	CopyRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, size int64, from storage.Root, progress func(bytes int64)) error
	// ReplaceRoot puts a copy in the place of a root that nobody uses, in one step. Idempotent.
	ReplaceRoot(ctx context.Context, pool api.PoolName, project api.ProjectName, name api.InstanceName, from storage.Root, progress func(bytes int64)) error
	// DeleteSnapshot removes what SnapshotRoot made; nil when there is none.
	DeleteSnapshot(ctx context.Context, pool api.PoolName, id string) error
	// PoolExists reports NotFound when there is no such pool.
	PoolExists(pool api.PoolName) error
}

// ImageStore is where images live; image satisfies it.
type ImageStore interface {
	// Resolve turns an alias, a fingerprint or a unique prefix of one into the image.
	Resolve(ctx context.Context, project api.ProjectName, ref string) (*api.Image, error)
	// Hold keeps the image's content for owner (a key such as "instance/<uuid>") even when the image is deleted.
	// Idempotent. Release gives it up; content without image and holders goes.
	Hold(ctx context.Context, fp api.Fingerprint, owner string) error
	Release(ctx context.Context, fp api.Fingerprint, owner string) error
	// Mount makes the image's root file system available read-only and returns its path, the same for all instances.
	Mount(ctx context.Context, fp api.Fingerprint) (string, error)
	// Metadata returns the image's metadata.yaml.
	Metadata(ctx context.Context, fp api.Fingerprint) (*api.ImageMetadata, error)
	// Template returns the content of a file of the image's templates directory, ≤ 1 MiB.
	Template(ctx context.Context, fp api.Fingerprint, file string) ([]byte, error)
}

// NICs attaches instances to networks; network satisfies it.
type NICs interface {
	// Reserve claims the addresses that the NIC asks for, without a link, until Forget. Idempotent. Exists when an address is
	// somebody else's, InvalidInput when it does not fit the network.
	Reserve(ctx context.Context, nic network.NIC) error
	// Attach makes the pair of interfaces, puts one end into the instance and the other on the network, and knows the
	// instance's name to DNS and its address to DHCP. It returns the name of the host's end. Idempotent for the same NIC.
	Attach(ctx context.Context, nic network.NIC) (hostName string, err error)
	// Detach removes the host's end; nil when it is gone.
	Detach(ctx context.Context, nic network.NIC) error
	// Forget gives back the NIC's lease and names when the instance is deleted or loses the NIC; nil when it has none.
	Forget(ctx context.Context, nic network.NIC) error
	// NetworkExists reports NotFound when there is no such network.
	NetworkExists(project api.ProjectName, network api.NetworkName) error
}

// Guests looks into the network namespace of a running instance; network satisfies it.
type Guests interface {
	// GuestState returns the interfaces, addresses and counters that the process pid sees, lo too. HostName is empty.
	GuestState(ctx context.Context, pid int) (map[string]api.InstanceStateNetwork, error)
}

// Events receives lifecycle events; cluster/events satisfies it.
type Events interface {
	// Lifecycle publishes an event: action such as "instance-started", source such as "/1.0/instances/c1".
	Lifecycle(ctx context.Context, project api.ProjectName, action, source string, details map[string]any)
}
