package instancetest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/network"
)

// Host plays volumes, images, networks and the event hub. Its state outlives services, as a disk outlives daemons.
type Host struct {
	mu     sync.Mutex
	dir    string
	roots  map[string]bool            // project/name
	holds  map[string]map[string]bool // fingerprint → owners
	images map[string]Image           // fingerprint or alias →
	nics   map[string]network.NIC     // project/instance/device → attached
	leases map[string]netip.Addr      // the same key → known to DHCP, with its static address
	sizes  map[string]int64           // project/name → size limit of the root
	events []string
	fail   map[string]error
	gate   map[string]chan struct{}
	snaps  map[string]bool // ids
	slow   bool            // copies are not of one moment
}

// Image is one image of the double.
type Image struct {
	api.Image
	Meta      api.ImageMetadata
	Templates map[string]string
}

// NewHost returns a host with the pool "default", the network "br0" and no image; dir is a directory for roots.
func NewHost(dir string) *Host {
	return &Host{
		dir: dir, roots: map[string]bool{}, holds: map[string]map[string]bool{}, images: map[string]Image{},
		nics: map[string]network.NIC{}, leases: map[string]netip.Addr{}, sizes: map[string]int64{}, fail: map[string]error{}, gate: map[string]chan struct{}{}, snaps: map[string]bool{},
	}
}

// AddImage makes an image known under its fingerprint and the alias.
func (h *Host) AddImage(alias string, img Image) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images[alias], h.images[img.Fingerprint] = img, img
}

// Fail makes calls of a method (for example "CreateRoot") fail with err until it is called with nil.
func (h *Host) Fail(method string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail[method] = err
}

// Block makes calls of a method wait until the returned function is called or their context ends.
func (h *Host) Block(method string) (release func()) {
	ch := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate[method] = ch
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.gate, method)
		close(ch)
	})
}

func (h *Host) enter(ctx context.Context, method string) error {
	h.mu.Lock()
	gate := h.gate[method]
	h.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock() // the caller unlocks
	if err := h.fail[method]; err != nil {
		h.mu.Unlock()
		return err
	}
	return nil
}

// Events returns the lifecycle events so far: "action source".
func (h *Host) Events() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// Lifecycle implements instance.Events.
func (h *Host) Lifecycle(_ context.Context, _ api.ProjectName, action, source string, _ map[string]any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, action+" "+source)
}

func vol(project api.ProjectName, name api.InstanceName) string {
	return project.String() + "/" + name.String()
}

// RootDir is where a root lives.
func (h *Host) RootDir(project api.ProjectName, name api.InstanceName) string {
	return filepath.Join(h.dir, project.String(), name.String())
}

// CreateRoot implements instance.VolumeStore.
func (h *Host) CreateRoot(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error {
	if err := h.enter(ctx, "CreateRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	if h.roots[vol(project, name)] {
		return errs.Exists("volume %q exists", vol(project, name))
	}
	h.roots[vol(project, name)], h.sizes[vol(project, name)] = true, size
	for _, d := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(h.RootDir(project, name), d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// RootPath implements instance.VolumeStore.
func (h *Host) RootPath(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName) (string, error) {
	if err := h.enter(ctx, "RootPath"); err != nil {
		return "", err
	}
	defer h.mu.Unlock()
	if !h.roots[vol(project, name)] {
		return "", errs.NotFound("volume %q not found", vol(project, name))
	}
	return h.RootDir(project, name), nil
}

// RootUsage implements instance.VolumeStore.
func (h *Host) RootUsage(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName) (int64, error) {
	if err := h.enter(ctx, "RootUsage"); err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	return 4096, nil
}

// ResizeRoot implements instance.VolumeStore.
func (h *Host) ResizeRoot(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName, size int64) error {
	if err := h.enter(ctx, "ResizeRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	if !h.roots[vol(project, name)] {
		return errs.NotFound("volume %q not found", vol(project, name))
	}
	h.sizes[vol(project, name)] = size
	return nil
}

// RootSize returns the size limit of a root, 0 when it has none.
func (h *Host) RootSize(project api.ProjectName, name api.InstanceName) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sizes[vol(project, name)]
}

// RenameRoot implements instance.VolumeStore.
func (h *Host) RenameRoot(ctx context.Context, _ api.PoolName, project api.ProjectName, from, to api.InstanceName) error {
	if err := h.enter(ctx, "RenameRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	if !h.roots[vol(project, from)] {
		if h.roots[vol(project, to)] {
			return nil
		}
		return errs.NotFound("volume %q not found", vol(project, from))
	}
	delete(h.roots, vol(project, from))
	h.roots[vol(project, to)] = true
	return os.Rename(h.RootDir(project, from), h.RootDir(project, to))
}

// DeleteRoot implements instance.VolumeStore.
func (h *Host) DeleteRoot(ctx context.Context, _ api.PoolName, project api.ProjectName, name api.InstanceName) error {
	if err := h.enter(ctx, "DeleteRoot"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	delete(h.roots, vol(project, name))
	return os.RemoveAll(h.RootDir(project, name))
}

// PoolExists implements instance.VolumeStore.
func (h *Host) PoolExists(pool api.PoolName) error {
	if pool.String() != "default" {
		return errs.NotFound("Storage pool not found")
	}
	return nil
}

// Resolve implements instance.ImageStore.
func (h *Host) Resolve(ctx context.Context, _ api.ProjectName, ref string) (*api.Image, error) {
	if err := h.enter(ctx, "Resolve"); err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(h.images)) {
		if name == ref || len(ref) >= 3 && strings.HasPrefix(name, ref) {
			img := h.images[name].Image
			return &img, nil
		}
	}
	return nil, errs.NotFound("Image not found")
}

// Hold implements instance.ImageStore.
func (h *Host) Hold(ctx context.Context, fp api.Fingerprint, owner string) error {
	if err := h.enter(ctx, "Hold"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	if h.holds[fp.String()] == nil {
		h.holds[fp.String()] = map[string]bool{}
	}
	h.holds[fp.String()][owner] = true
	return nil
}

// Release implements instance.ImageStore.
func (h *Host) Release(ctx context.Context, fp api.Fingerprint, owner string) error {
	if err := h.enter(ctx, "Release"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	delete(h.holds[fp.String()], owner)
	return nil
}

// Mount implements instance.ImageStore.
func (h *Host) Mount(ctx context.Context, fp api.Fingerprint) (string, error) {
	if err := h.enter(ctx, "Mount"); err != nil {
		return "", err
	}
	defer h.mu.Unlock()
	dir := filepath.Join(h.dir, "image-"+fp.Short())
	return dir, os.MkdirAll(filepath.Join(dir, "etc"), 0o755)
}

// Metadata implements instance.ImageStore.
func (h *Host) Metadata(ctx context.Context, fp api.Fingerprint) (*api.ImageMetadata, error) {
	if err := h.enter(ctx, "Metadata"); err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	meta := h.images[fp.String()].Meta
	return &meta, nil
}

// Template implements instance.ImageStore.
func (h *Host) Template(ctx context.Context, fp api.Fingerprint, file string) ([]byte, error) {
	if err := h.enter(ctx, "Template"); err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	t, ok := h.images[fp.String()].Templates[file]
	if !ok {
		return nil, errs.NotFound("template %q not found", file)
	}
	return []byte(t), nil
}

func nicKey(n network.NIC) string { return vol(n.Project, n.Instance) + "/" + n.Device.String() }

// Attach implements instance.NICs.
func (h *Host) Attach(ctx context.Context, nic network.NIC) (string, error) {
	if err := h.enter(ctx, "Attach"); err != nil {
		return "", err
	}
	defer h.mu.Unlock()
	for key, other := range h.nics {
		if key != nicKey(nic) && (other.HWAddr == nic.HWAddr || other.HostName == nic.HostName) {
			return "", fmt.Errorf("%s and %s share an address or a name", key, nicKey(nic))
		}
	}
	if err := h.lease(nic); err != nil {
		return "", err
	}
	h.nics[nicKey(nic)] = nic
	return nic.HostName, nil
}

// lease gives the NIC its lease; h.mu is held.
func (h *Host) lease(nic network.NIC) error {
	for key, addr := range h.leases {
		if key != nicKey(nic) && addr.IsValid() && addr == nic.IPv4 {
			return errs.Exists("ipv4.address %s of device %q: in use by %s", nic.IPv4, nic.Device, key)
		}
	}
	h.leases[nicKey(nic)] = nic.IPv4
	return nil
}

// Reserve implements instance.NICs.
func (h *Host) Reserve(ctx context.Context, nic network.NIC) error {
	if err := h.enter(ctx, "Reserve"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	return h.lease(nic)
}

// Leases returns the keys (project/instance/device) of what DHCP knows, sorted.
func (h *Host) Leases() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.leases))
}

// Detach implements instance.NICs.
func (h *Host) Detach(ctx context.Context, nic network.NIC) error {
	if err := h.enter(ctx, "Detach"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	delete(h.nics, nicKey(nic))
	return nil
}

// Forget implements instance.NICs.
func (h *Host) Forget(ctx context.Context, nic network.NIC) error {
	if err := h.enter(ctx, "Forget"); err != nil {
		return err
	}
	defer h.mu.Unlock()
	delete(h.leases, nicKey(nic))
	return nil
}

// NetworkExists implements instance.NICs.
func (h *Host) NetworkExists(_ api.ProjectName, name api.NetworkName) error {
	if name.String() != "br0" {
		return errs.NotFound("Network not found")
	}
	return nil
}

// Attached returns the attached NICs of an instance, sorted by device.
func (h *Host) Attached(project api.ProjectName, name api.InstanceName) []network.NIC {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []network.NIC
	for _, key := range slices.Sorted(maps.Keys(h.nics)) {
		if strings.HasPrefix(key, vol(project, name)+"/") {
			out = append(out, h.nics[key])
		}
	}
	return out
}
