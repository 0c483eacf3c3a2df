package machine_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/network"
	"github.com/shoal-project/shoal/storage"
	"github.com/shoal-project/shoal/storage/dir"
	storagedriver "github.com/shoal-project/shoal/storage/driver"
	"github.com/shoal-project/shoal/test/checkworld"
)

const childEnv = "SHOAL_TEST_MACHINE_CHILD"

// Isolate runs the calling test in a child process with its own network and mounts. It returns true in the child; in the
// parent it reports the child's result and returns false.
func Isolate(t *testing.T) bool {
	t.Helper()
	testring.Need(t, 2, testring.Root, testring.Binary("runc"), testring.Binary("ip"), testring.Binary("mksquashfs"), testring.Binary("go"), testring.Filesystem("overlay"))
	if os.Getenv(childEnv) == t.Name() {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("in namespaces of its own:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// Machine is one daemon's rooms without its socket.
type Machine struct {
	Dir       string
	DB        *state.DB
	Storage   *storage.Service
	Images    *image.Service
	Networks  *network.Service
	Driver    *oci.Driver
	Instances *instance.Service
	Profiles  *profile.Service
	Log       *slog.Logger

	bin  string
	stop []func()
}

// newMachine builds the helpers and boots the rooms: pool "default" (plain directory), network "br0", a default profile with both.
func newMachine(t *testing.T) *Machine {
	t.Helper()
	m := &Machine{Dir: filepath.Join(t.TempDir(), "shoal"), bin: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	if testing.Verbose() && os.Getenv("SHOAL_TEST_LOG") != "" {
		m.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	// A guest's root must be able to pass the directories above its own.
	for d := m.Dir; d != "/"; d = filepath.Dir(d) {
		_ = os.MkdirAll(d, 0o711)
		if st, err := os.Stat(d); err == nil && st.Mode().Perm()&1 == 0 {
			_ = os.Chmod(d, st.Mode().Perm()|0o11)
		}
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", m.bin+"/", "github.com/shoal-project/shoal/cmd/shoal-shim", "github.com/shoal-project/shoal/cmd/shoal-agent")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.Boot(t)
	t.Cleanup(func() { m.Halt(); m.unmount(t) })
	must(t, m.Storage.CreatePool(t.Context(), api.StoragePoolsPost{Name: "default", Driver: "dir"}))
	must(t, m.Networks.Create(t.Context(), api.DefaultProject, api.NetworksPost{Name: "br0", NetworkPut: api.NetworkPut{
		Config: api.Config{"ipv4.address": "10.77.0.1/24", "ipv4.nat": "false", "ipv6.address": "none"}}}))
	must(t, m.Profiles.Update(t.Context(), api.DefaultProject, "default", api.ProfilePut{Devices: api.Devices{
		"root": {"type": "disk", "path": "/", "pool": "default"}, "eth0": {"type": "nic", "network": "br0", "name": "eth0"},
	}}, nil))
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Boot starts all rooms as a daemon does.
func (m *Machine) Boot(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = []func(){cancel}
	member, err := elastic.Start(ctx, elastic.Config{Name: "test", Dir: filepath.Join(m.Dir, "database"), Log: m.Log})
	must(t, err)
	kv := kvstore.New(etcd.New(member.Client()), kvstore.Config{Log: m.Log})
	m.DB, err = state.Open(ctx, kv, state.Options{Log: m.Log})
	must(t, err)
	m.Storage, err = storage.New(storage.Deps{Dir: m.Dir, State: m.DB, Drivers: []storagedriver.Driver{dir.New(m.Log)}, Clock: clock.Real{}, Logger: m.Log})
	must(t, err)
	must(t, m.Storage.Recover(ctx))
	m.Images, err = image.New(ctx, image.Deps{Dir: m.Dir, State: m.DB, Runner: run.Host{}, Clock: clock.Real{}, Logger: m.Log})
	must(t, err)
	m.Networks, err = network.New(network.Deps{ID: "test", State: m.DB, Clock: clock.Real{}, Logger: m.Log})
	must(t, err)
	must(t, m.Networks.Start(ctx))
	m.Driver, err = oci.New(ctx, oci.Config{
		Deps: driver.Deps{OnExit: func(id string, e driver.Exit) { m.Instances.Exited(id, e) }}, Dir: filepath.Join(m.Dir, "oci"),
		Shim: filepath.Join(m.bin, "shoal-shim"), Agent: filepath.Join(m.bin, "shoal-agent"), Runner: run.Host{}, Logger: m.Log,
	})
	must(t, err)
	profiles := profile.NewStore(m.DB)
	m.Instances, err = instance.New(instance.Deps{
		State: m.DB, Profiles: profiles, Drivers: map[string]driver.Driver{api.TypeContainer: m.Driver}, Volumes: m.Storage, Images: m.Images,
		NICs: m.Networks, Guests: m.Networks, Dir: m.Dir, Clock: clock.Real{}, Logger: m.Log,
	})
	must(t, err)
	m.Profiles, err = profile.New(profile.Deps{Store: profiles, Users: m.Instances})
	must(t, err)
	must(t, m.Instances.Recover(ctx))
	m.stop = append(m.stop, func() {
		sctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.Instances.Close(sctx)
		m.Driver.Close()
		m.Networks.Close()
		_ = m.Storage.Close()
		m.DB.Close()
		_ = kv.Close()
		_ = member.Stop(sctx)
	})
}

// Halt stops the rooms as a daemon's end does: instances go on.
func (m *Machine) Halt() {
	for i := len(m.stop) - 1; i >= 0; i-- {
		m.stop[i]()
	}
	m.stop = nil
}

// unmount removes the image's mounts, which stay as long as the image does, so that the directory can go.
func (m *Machine) unmount(t *testing.T) {
	for range 10 {
		b, _ := os.ReadFile("/proc/thread-self/mountinfo")
		left := 0
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], m.Dir+"/") {
				left++
				_ = syscall.Unmount(f[4], syscall.MNT_DETACH)
			}
		}
		if left == 0 {
			return
		}
	}
	t.Error("mounts cannot be removed")
}

// Mounts returns the mount points below the directory now; call it while no instance runs.
func (m *Machine) Mounts() []string {
	b, _ := os.ReadFile("/proc/thread-self/mountinfo")
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], m.Dir+"/") && strings.Contains(f[4], "/images/") {
			out = append(out, f[4])
		}
	}
	return out
}

// Check compares the world with the records.
func (m *Machine) Check(t *testing.T) {
	t.Helper()
	known := map[string]checkworld.Instance{}
	for _, i := range m.Instances.List(api.DefaultProject) {
		c := checkworld.Instance{LogDir: i.Name, Running: i.StatusCode != api.Stopped}
		if c.Running {
			c.Links = []string{i.Config["volatile.eth0.host_name"]}
		}
		known[i.Config["volatile.uuid"]] = c
	}
	checkworld.Check(t, checkworld.Options{Dir: m.Dir, Instances: known, Mounts: m.Mounts(), Links: func(n string) bool {
		return n == "br0" || strings.HasPrefix(n, "sit") || strings.HasPrefix(n, "tunl") || strings.HasPrefix(n, "ip6tnl") || strings.HasPrefix(n, "erspan") || strings.HasPrefix(n, "gre")
	}})
}

// Run runs an operation to its end.
func (m *Machine) Run(t *testing.T, h op.Handle) func(op.Spec, error) {
	return func(spec op.Spec, err error) {
		t.Helper()
		must(t, err)
		if err := spec.Run(t.Context(), h); err != nil {
			t.Fatalf("%s: %v", spec.Description, err)
		}
	}
}

// ImportSquashfs makes the image "img" from a directory.
func (m *Machine) ImportSquashfs(t *testing.T, root, metadata string, templates map[string]string) *api.Image {
	t.Helper()
	tmp := t.TempDir()
	fs := filepath.Join(tmp, "rootfs.squashfs")
	if out, err := exec.Command("mksquashfs", root, fs, "-noappend", "-quiet", "-no-progress", "-comp", "gzip", "-Xcompression-level", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return m.Import(t, fs, metadata, templates)
}

// Import makes the image "img" from a squashfs file.
func (m *Machine) Import(t *testing.T, squashfs, metadata string, templates map[string]string) *api.Image {
	t.Helper()
	tmp := t.TempDir()
	must(t, os.WriteFile(filepath.Join(tmp, "metadata.yaml"), []byte(metadata), 0o644))
	must(t, os.MkdirAll(filepath.Join(tmp, "templates"), 0o755))
	for name, content := range templates {
		must(t, os.WriteFile(filepath.Join(tmp, "templates", name), []byte(content), 0o644))
	}
	tar := filepath.Join(tmp, "meta.tar")
	if out, err := exec.Command("tar", "-C", tmp, "-cf", tar, "metadata.yaml", "templates").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	open := func(p string) io.Reader {
		f, err := os.Open(p)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	img, err := m.Images.Import(t.Context(), open(tar), open(squashfs), image.Rootfs, image.ImportRequest{
		Project: api.DefaultProject, Aliases: []api.ImageAlias{{Name: "img"}},
	})
	must(t, err)
	return img
}

// Handle is an operation that keeps its metadata; Buffers are what its sockets read and write.
type Handle struct {
	mu       sync.Mutex
	Metadata map[string]any
}

// ID implements op.Handle.
func (h *Handle) ID() string { return "test" }

// SetMetadata implements op.Handle.
func (h *Handle) SetMetadata(m map[string]any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Metadata == nil {
		h.Metadata = map[string]any{}
	}
	for k, v := range m {
		h.Metadata[k] = v
	}
}

// Socket implements op.Handle.
func (h *Handle) Socket(context.Context, string) (op.Socket, error) {
	return nil, fmt.Errorf("this operation has no sockets")
}
