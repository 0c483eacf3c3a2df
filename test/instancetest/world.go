package instancetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/fake"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/idmap"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/state"
)

// Fingerprint is that of the image "img", which every World has.
const Fingerprint = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"

// World is an instance service on a machine of doubles. Restart plays a daemon's death and start.
type World struct {
	*instance.Service
	Profiles *profile.Service
	Host     *Host
	Guests   *fake.Host
	DB       *state.DB
	Dir      string

	driver *fake.Driver
	store  *profile.Store
	change []func(*instance.Deps)
}

// New makes a world whose default profile has a root disk in the pool "default" and eth0 on "br0", and whose image "img"
// has templates. change may change what the service gets. It is checked for leftovers at the end of the test.
func New(t testing.TB, change ...func(*instance.Deps)) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{Host: NewHost(filepath.Join(dir, "host")), Guests: fake.NewHost(), DB: state.NewMemory(), Dir: filepath.Join(dir, "shoal"), change: change}
	w.Host.AddImage("img", Image{
		Image: api.Image{
			ImagePut:    api.ImagePut{Properties: map[string]string{"os": "Debian", "release": "bookworm"}},
			Fingerprint: Fingerprint, Architecture: "x86_64", Type: api.TypeContainer,
		},
		Meta: api.ImageMetadata{Templates: map[string]*api.ImageMetadataTemplate{
			"/etc/hostname": {When: []string{"create", "copy", "rename"}, Template: "hostname.tpl"},
			"/etc/started":  {When: []string{"start"}, Template: "started.tpl"},
		}},
		Templates: map[string]string{"hostname.tpl": "{{ container.name }}\n", "started.tpl": `{{ trigger }} {{ config_get("user.x", "none") }}`},
	})
	w.store = profile.NewStore(w.DB)
	w.Live(t)
	err := w.Profiles.Update(t.Context(), api.DefaultProject, "default", api.ProfilePut{Devices: api.Devices{
		"root": {"type": "disk", "path": "/", "pool": "default"},
		"eth0": {"type": "nic", "network": "br0", "name": "eth0"},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Die(t)
		w.Check(t)
	})
	return w
}

// PowerLoss plays the host's: no process is left, and nobody was told. Call it between Die and Live.
func (w *World) PowerLoss() { w.Guests = fake.NewHost() }

// Alive reports whether an instance has a process.
func (w *World) Alive(id string) bool {
	_, err := w.driver.Stats(context.Background(), id)
	return err == nil
}

// Settle waits until no instance is on its way to another status.
func (w *World) Settle(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		moving := false
		for _, i := range w.List(api.DefaultProject) {
			moving = moving || i.StatusCode == api.Stopping || i.StatusCode == api.Starting
		}
		if !moving {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an instance does not settle")
		}
		<-time.After(time.Millisecond)
	}
}

// Live starts the service and a driver.
func (w *World) Live(t testing.TB) {
	t.Helper()
	var svc *instance.Service
	w.driver = fake.New(w.Guests, driver.Deps{OnExit: func(id string, e driver.Exit) { svc.Exited(id, e) }})
	deps := instance.Deps{
		State: w.DB, Profiles: w.store, Drivers: map[string]driver.Driver{api.TypeContainer: w.driver},
		Volumes: w.Host, Images: w.Host, NICs: w.Host, Events: w.Host, Dir: w.Dir, IDMaps: idmap.DefaultRange(), Clock: clock.Real{},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range w.change {
		c(&deps)
	}
	svc, err := instance.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	w.Service = svc
	if w.Profiles, err = profile.New(profile.Deps{Store: w.store, Users: svc, Events: w.Host}); err != nil {
		t.Fatal(err)
	}
	if err := svc.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Die ends the service and its driver; instances go on.
func (w *World) Die(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		t.Error(err)
	}
	w.driver.Close()
}

// Restart ends the service and its driver and starts new ones on the same machine and database.
func (w *World) Restart(t testing.TB) {
	t.Helper()
	w.Die(t)
	w.Live(t)
}

// Run runs an operation to its end.
func (w *World) Run(t testing.TB, spec op.Spec, err error) error {
	t.Helper()
	if err != nil {
		return err
	}
	return spec.Run(t.Context(), &Handle{})
}

// Handle is an operation without listeners and sockets.
type Handle struct{ Metadata map[string]any }

// ID implements op.Handle.
func (h *Handle) ID() string { return "00000000-0000-0000-0000-000000000000" }

// SetMetadata implements op.Handle.
func (h *Handle) SetMetadata(m map[string]any) {
	if h.Metadata == nil {
		h.Metadata = map[string]any{}
	}
	for k, v := range m {
		h.Metadata[k] = v
	}
}

// Socket implements op.Handle; there is none.
func (h *Handle) Socket(ctx context.Context, name string) (op.Socket, error) {
	return nil, fmt.Errorf("no socket %q", name)
}

// Check compares records and machine: nothing is there without a record, and nothing of a record is missing.
func (w *World) Check(t testing.TB) {
	t.Helper()
	want := map[string]bool{} // project/name
	ids := map[string]string{}
	claims := 0
	for _, inst := range w.List(api.ProjectName{}) {
		project, err := api.ParseProjectName(inst.Project)
		if err != nil {
			t.Fatal(err)
		}
		key := inst.Project + "/" + inst.Name
		want[key] = true
		ids[inst.Config["volatile.uuid"]] = key
		if inst.Config["volatile.idmap.base"] != "0" {
			claims++
		}
		for k := range inst.Config {
			if strings.HasSuffix(k, ".hwaddr") {
				claims++
			}
		}
		if running := len(w.Host.Attached(project, name(t, inst.Name))) > 0; running && inst.StatusCode == api.Stopped {
			t.Errorf("%s is stopped and has interfaces", key)
		}
	}
	w.Host.mu.Lock()
	defer w.Host.mu.Unlock()
	for key := range w.Host.roots {
		if !want[key] {
			t.Errorf("root of %s has no record", key)
		}
	}
	for key := range want {
		if !w.Host.roots[key] {
			t.Errorf("%s has no root", key)
		}
	}
	for _, m := range []map[string]bool{keysOf(w.Host.leases), keysOf(w.Host.nics)} {
		for key := range m {
			if !want[key[:strings.LastIndex(key, "/")]] {
				t.Errorf("interface or lease %s has no record", key)
			}
		}
	}
	for fp, owners := range w.Host.holds {
		for owner := range owners {
			if id, ok := strings.CutPrefix(owner, "snapshot/"); ok && w.Host.snaps[id] {
				continue
			}
			if ids[strings.TrimPrefix(owner, "instance/")] == "" {
				t.Errorf("image %s is held by %s, which has no record", fp, owner)
			}
		}
	}
	for _, id := range w.Guests.IDs() {
		if ids[id] == "" {
			t.Errorf("process of %s has no record", id)
		}
	}
	w.checkDirs(t, ids, want)
	if got := state.NewTable[struct{}](w.DB, "snapshots", 1).List(""); len(got) != len(w.Host.snaps) {
		t.Errorf("%d records of snapshots, %d volumes: %v", len(got), len(w.Host.snaps), got)
	}
	if got := state.NewTable[struct{}](w.DB, "claims", 1).List(""); len(got) != claims {
		t.Errorf("%d claims, want %d: %v", len(got), claims, got)
	}
}

func (w *World) checkDirs(t testing.TB, ids map[string]string, names map[string]bool) {
	t.Helper()
	list := func(dir string) []string {
		entries, err := os.ReadDir(filepath.Join(w.Dir, dir))
		if err != nil {
			t.Error(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	for _, id := range list("instances") {
		if ids[id] == "" {
			t.Errorf("directory instances/%s has no record", id)
		}
	}
	for _, n := range list("logs") {
		project, name, other := strings.Cut(n, "_")
		if !names["default/"+n] && !(other && names[project+"/"+name]) {
			t.Errorf("directory logs/%s has no record", n)
		}
	}
}

func keysOf[V any](m map[string]V) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

func name(t testing.TB, s string) api.InstanceName {
	t.Helper()
	n, err := api.ParseInstanceName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
