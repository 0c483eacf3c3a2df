// Package btrfs keeps volumes as subvolumes of a btrfs filesystem, each with a hard size limit.
//
// A pool is one of three things, by its configuration:
//
//   - no source: a filesystem of our own in the file <dir>/disks/<pool>.img of "size" bytes, on a loop device;
//   - source is a block device: a filesystem of our own on it; a device that holds anything is refused;
//   - source is an empty directory on btrfs: the pool lives in it and the filesystem stays its owner's.
//
// The first two are mounted at <dir>/storage-pools/<pool> by Open and stay mounted when the daemon goes: instances run
// from them. The loop device has no other user than the mount, so unmounting frees it.
//
// Subvolumes, limits and usage are ioctls on the pool's directory; the only program needed is mkfs.btrfs.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/storage/driver"
)

// Sizes of loop-backed pools, in bytes.
const (
	MinSize    = 128 << 20 // below, mkfs.btrfs refuses
	minDefault = 5 << 30
	maxDefault = 30 << 30
)

// Driver makes btrfs pools.
type Driver struct {
	runner run.Runner
	logger *slog.Logger
}

// New returns the driver.
func New(runner run.Runner, logger *slog.Logger) *Driver { return &Driver{runner, logger} }

var _ driver.Driver = (*Driver)(nil)

// Info implements [driver.Driver]. The version is the kernel's: the filesystem is part of it.
func (d *Driver) Info() driver.Info {
	var u unix.Utsname
	version := "unknown"
	if unix.Uname(&u) == nil {
		version = unix.ByteSliceToString(u.Release[:])
	}
	return driver.Info{Name: "btrfs", Version: version, Quotas: true, Snapshots: true}
}

// Keys implements [driver.Driver].
func (d *Driver) Keys() []schema.Key {
	return []schema.Key{
		driver.SourceKey("a blank block device or an empty directory on btrfs; an image file when not set"),
		{Name: "size", Type: schema.Custom("size", fmt.Sprintf("a size of at least %d bytes, such as 10GiB", MinSize), checkSize), Live: true,
			Doc: "size of the image file; a fifth of the free space, 5GiB to 30GiB, when not set; it can grow"},
		{Name: "btrfs.mount_options", Type: schema.Custom("mount options", "a comma-separated list of "+strings.Join(mountOptions, ", "), checkMountOptions),
			Doc: "mount options of the pool's filesystem, used when it is mounted"},
	}
}

func checkSize(v string) error {
	n, err := driver.ParseSize(v)
	if err == nil && n < MinSize {
		err = errs.Invalid("size %q is too small", v)
	}
	return err
}

// mountOptions are the options that an administrator may set: none of them changes who may do what.
var mountOptions = []string{
	"autodefrag", "noautodefrag", "compress", "compress-force", "datacow", "nodatacow", "datasum", "nodatasum",
	"discard", "nodiscard", "noatime", "relatime", "ssd", "nossd", "ssd_spread", "space_cache", "commit", "flushoncommit",
}

func checkMountOptions(v string) error { _, err := parseMountOptions(v); return err }

func parseMountOptions(v string) ([]fsmount.Option, error) {
	var out []fsmount.Option
	for o := range strings.SplitSeq(v, ",") {
		key, value, _ := strings.Cut(o, "=")
		known := o == ""
		for _, k := range mountOptions {
			known = known || k == key
		}
		if !known || strings.ContainsAny(value, " \t\n\x00/") {
			return nil, errs.Invalid("mount option %q is not allowed; allowed are %s", o, strings.Join(mountOptions, ", "))
		}
		if o != "" {
			out = append(out, fsmount.Option{Key: key, Value: value})
		}
	}
	return out, nil
}

// backing says what a pool is made of.
type backing int

const (
	loopFile backing = iota
	device
	directory
)

func backingOf(s driver.Spec) (backing, error) {
	src := s.Config["source"]
	if src == "" || src == s.Disk {
		return loopFile, nil
	}
	st, err := os.Stat(src)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, errs.NotFound("source %q doesn't exist", src)
	case err != nil:
		return 0, fmt.Errorf("look at source: %w", err)
	case st.IsDir():
		return directory, nil
	case st.Mode()&os.ModeType == os.ModeDevice:
		return device, nil
	}
	return 0, errs.Invalid("source %q is neither a block device nor a directory; leave it out for an image file", src)
}

// Create implements [driver.Driver].
func (d *Driver) Create(ctx context.Context, s driver.Spec) (api.Config, error) {
	kind, err := backingOf(s)
	if err != nil {
		return nil, err
	}
	out := api.Config{}
	maps.Copy(out, s.Config)
	s.Config = out
	if kind == directory {
		if out["size"] != "" {
			return nil, errs.Invalid("size cannot be set for a pool in a directory")
		}
		if err := isBtrfs(out["source"]); err != nil {
			return nil, err
		}
		return out, driver.Claim(out["source"], s.Name)
	}
	if kind == loopFile {
		if err := d.makeDisk(ctx, s); err != nil {
			return nil, err
		}
		out["source"] = s.Disk
	} else if err := d.mkfs(ctx, s, out["source"]); err != nil {
		return nil, err
	}
	if err := d.mount(s, kind); err != nil {
		return nil, err
	}
	dir, err := os.Open(s.Path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := enableQuota(dir); err != nil {
		return nil, fmt.Errorf("enable quotas: %w", err)
	}
	return out, driver.Claim(s.Path, s.Name)
}

// makeDisk makes the image file with a filesystem in it; s.Config["size"] is filled in.
func (d *Driver) makeDisk(ctx context.Context, s driver.Spec) error {
	free, err := driver.Free(filepath.Dir(s.Disk))
	if err != nil {
		return err
	}
	size, err := driver.ParseSize(s.Config["size"])
	if err != nil {
		return err
	}
	if size == 0 {
		size = min(max(free/5, minDefault), maxDefault) // LXD's default: 20 % of the free space, 5 to 30 GiB
		if size > free {
			size = free / 2
		}
		size -= size % (1 << 20)
		s.Config["size"] = strconv.FormatInt(size>>20, 10) + "MiB"
	}
	if size < MinSize || size > free {
		return errs.NoSpace("not enough space: a pool of %d bytes asked for, %s has %d bytes free, a pool needs at least %d",
			size, filepath.Dir(s.Disk), free, MinSize)
	}
	// A file of this name is from a Create that was cut off: the caller knows of no pool that owns it.
	if err := os.Remove(s.Disk); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old image file: %w", err)
	}
	f, err := os.OpenFile(s.Disk, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return driver.NoSpace(fmt.Errorf("make image file: %w", err))
	}
	err = errors.Join(f.Truncate(size), f.Close())
	if err != nil {
		return driver.NoSpace(fmt.Errorf("make image file: %w", err))
	}
	return d.mkfs(ctx, s, s.Disk)
}

func (d *Driver) mkfs(ctx context.Context, s driver.Spec, target string) error {
	// Without -f it refuses what holds a filesystem or a partition table already.
	_, err := d.runner.Run(ctx, run.Command{
		Name: "mkfs.btrfs", Args: []string{"-q", "-L", "shoal-" + s.Name.String()}, Operands: []string{target}, Timeout: 5 * time.Minute,
	})
	if err != nil {
		return fmt.Errorf("make filesystem for storage pool %q: %w", s.Name, err)
	}
	return nil
}

// mount mounts the pool at s.Path; nil when it is mounted.
func (d *Driver) mount(s driver.Spec, kind backing) error {
	if kind == directory {
		return nil
	}
	if err := os.MkdirAll(s.Path, 0o711); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if mounted, err := fsmount.IsMounted(s.Path); err != nil || mounted {
		return err
	}
	opts, err := parseMountOptions(s.Config["btrfs.mount_options"])
	if err != nil {
		return err
	}
	source := s.Config["source"]
	if kind == loopFile {
		loop, err := fsmount.AttachLoop(s.Disk, false)
		if err != nil {
			return err
		}
		defer loop.Close()
		source = loop.Path
	}
	opts = append([]fsmount.Option{{Key: "source", Value: source}, {Key: "user_subvol_rm_allowed"}}, opts...)
	if err := fsmount.Mount("btrfs", opts, unix.MOUNT_ATTR_NOATIME, s.Path); err != nil {
		return fmt.Errorf("storage pool %q: %w", s.Name, err)
	}
	return os.Chmod(s.Path, 0o711)
}

func isBtrfs(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("look at source: %w", err)
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return errs.Invalid("source %q is not on a btrfs filesystem", path)
	}
	return nil
}

// home is the directory of a pool.
func home(s driver.Spec, kind backing) string {
	if kind == directory {
		return s.Config["source"]
	}
	return s.Path
}

// Open implements [driver.Driver].
func (d *Driver) Open(_ context.Context, s driver.Spec) (driver.Pool, error) {
	kind, err := backingOf(s)
	if err != nil {
		return nil, err
	}
	if err := d.mount(s, kind); err != nil {
		return nil, err
	}
	path := home(s, kind)
	if err := driver.CheckClaim(path, s.Name); err != nil {
		return nil, err
	}
	if err := isBtrfs(path); err != nil {
		return nil, err
	}
	return openPool(path, d)
}

// Resize implements [driver.Driver]: image files grow, while in use too. They never shrink.
func (d *Driver) Resize(_ context.Context, s driver.Spec, size int64) error {
	kind, err := backingOf(s)
	if err != nil {
		return err
	}
	if kind != loopFile {
		return errs.Unsupported("only a pool in an image file can be resized")
	}
	st, err := os.Stat(s.Disk)
	if err != nil {
		return fmt.Errorf("resize pool: %w", err)
	}
	if size < st.Size() {
		return errs.Invalid("a pool cannot shrink: it has %d bytes", st.Size())
	}
	free, err := driver.Free(filepath.Dir(s.Disk))
	if err != nil {
		return err
	}
	if size-st.Size() > free {
		return errs.NoSpace("not enough space: the pool would need %d more bytes, %d are free", size-st.Size(), free)
	}
	if err := os.Truncate(s.Disk, size); err != nil {
		return driver.NoSpace(fmt.Errorf("resize pool: %w", err))
	}
	return growMounted(s)
}

// Destroy implements [driver.Driver].
func (d *Driver) Destroy(ctx context.Context, s driver.Spec) error {
	kind, err := backingOf(s)
	if errs.IsNotFound(err) {
		kind, err = device, nil // the device has gone: what is left is here
	}
	if err != nil {
		return err
	}
	if kind == directory {
		return d.destroyIn(ctx, s)
	}
	if err := fsmount.Unmount(s.Path); err != nil {
		return fmt.Errorf("destroy storage pool %q: %w", s.Name, err)
	}
	if kind == loopFile {
		if err := os.Remove(s.Disk); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("destroy storage pool %q: %w", s.Name, err)
		}
	} else if err := wipe(s.Config["source"]); err != nil {
		return err
	}
	return driver.RemoveOwnDir(s.Path)
}

// destroyIn removes a pool from a directory that is not ours; the subvolumes first, which no unlink removes quickly.
func (d *Driver) destroyIn(ctx context.Context, s driver.Spec) error {
	path := s.Config["source"]
	if driver.CheckClaim(path, s.Name) == nil {
		p, err := openPool(path, d)
		if err != nil {
			return err
		}
		volumes, err := p.Volumes(ctx)
		for _, v := range volumes {
			if err == nil {
				err = p.DeleteVolume(ctx, v)
			}
		}
		if err = errors.Join(err, p.EmptyTrash(ctx), p.Close()); err != nil {
			return fmt.Errorf("destroy storage pool %q: %w", s.Name, err)
		}
	}
	if err := driver.Unclaim(ctx, path, s.Name); err != nil {
		return err
	}
	return driver.RemoveOwnDir(s.Path)
}

// wipe makes a device blank for whoever looks for a filesystem: the superblock's magic number is zeroed.
func wipe(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0) // exclusive: never a device that is in use
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wipe %s: %w", dev, err)
	}
	_, err = f.WriteAt(make([]byte, 8), 64<<10+64)
	return errors.Join(err, f.Sync(), f.Close())
}
