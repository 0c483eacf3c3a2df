package instance_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	projects "github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

// governed is a world with projects.
type governed struct {
	*instancetest.World
	projects *projects.Service
}

func newGoverned(t *testing.T) *governed {
	t.Helper()
	g := &governed{}
	g.World = instancetest.New(t, func(d *instance.Deps) {
		if g.projects == nil {
			var err error
			g.projects, err = projects.New(projects.Deps{State: d.State, Contents: func(p api.ProjectName) (policy.Contents, error) {
				all, err := g.Contents(p)
				return policy.Contents{Instances: all}, err
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		d.Projects = g.projects
	})
	return g
}

// project makes a project whose default profile can be used.
func (g *governed) project(t *testing.T, name string, cfg api.Config) api.ProjectName {
	t.Helper()
	p, err := g.projects.Create(t.Context(), name, api.ProjectPut{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if holder, err := g.projects.Effective(p, policy.Profiles); err != nil || holder == p {
		g.setProfile(t, p, "default", rootOnly())
	}
	return p
}

func (g *governed) setProfile(t *testing.T, p api.ProjectName, name string, put api.ProfilePut) {
	t.Helper()
	if err := g.Profiles.Update(t.Context(), p, name, put, nil); err != nil {
		t.Fatal(err)
	}
}

func rootOnly() api.ProfilePut {
	return api.ProfilePut{Devices: api.Devices{"root": {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"}}}
}

func (g *governed) create(t *testing.T, p api.ProjectName, name string, put api.InstancePut) error {
	t.Helper()
	spec, err := g.Create(t.Context(), p, api.InstancesPost{InstancePut: put, Name: name, Source: api.InstanceSource{Type: "none"}})
	return g.Run(t, spec, err)
}

func (g *governed) put(t *testing.T, p api.ProjectName, name string, change func(*api.InstancePut)) error {
	t.Helper()
	cur, _, err := g.Get(p, name)
	if err != nil {
		t.Fatal(err)
	}
	next := cur.InstancePut
	next.Config = maps.Clone(next.Config)
	change(&next)
	spec, err := g.Update(t.Context(), p, name, next, nil)
	return g.Run(t, spec, err)
}

// danger is something that a restricted project refuses, in an instance or in a profile.
type danger struct {
	config  api.Config
	devices api.Devices
}

// everyDanger makes one of each key that has a restriction and each type of device that has one. Keys and devices that are not implemented are
// refused by their own check; as soon as they are, they are part of the matrix.
func everyDanger() map[string]danger {
	samples := map[string]string{"boot.host_shutdown_timeout": "1000", "raw.idmap": "both 1000 1000", "security.syscalls.intercept.mount.allowed": "ext4",
		"snapshots.schedule": "@daily", "security.idmap.isolated": "false",
		"security.syscalls.deny_default": "false", "security.syscalls.blacklist_default": "false"}
	out := map[string]danger{}
	for _, k := range config.Keys() {
		name := strings.ReplaceAll(k.Name, "*", "x")
		if policy.Governs(name, api.TypeContainer) == "" {
			continue
		}
		tries := []string{"true", "1", "x"}
		if v := samples[name]; v != "" {
			tries = []string{v}
		}
		for _, try := range tries {
			if config.Check(api.Config{name: try}, api.TypeContainer, false) == nil {
				out[name] = danger{config: api.Config{name: try}}
				break
			}
		}
	}
	for name, dev := range map[string]map[string]string{
		"disk": {"type": "disk", "path": "/mnt", "source": "/etc"}, "nic": {"type": "nic", "nictype": "bridged", "parent": "br0", "name": "eth7"},
		"gpu": {"type": "gpu"}, "infiniband": {"type": "infiniband", "nictype": "physical", "parent": "ib0"}, "pci": {"type": "pci", "address": "0000:00:01.0"},
		"proxy": {"type": "proxy", "listen": "tcp:127.0.0.1:80", "connect": "tcp:127.0.0.1:80"}, "tpm": {"type": "tpm", "path": "/dev/tpm0", "pathrm": "/dev/tpmrm0"},
		"unix-block": {"type": "unix-block", "source": "/dev/loop0", "path": "/dev/loop0", "required": "false"}, "unix-char": {"type": "unix-char", "source": "/dev/null", "path": "/dev/n"},
		"unix-hotplug": {"type": "unix-hotplug", "vendorid": "1234"}, "usb": {"type": "usb", "vendorid": "1234"},
	} {
		if _, err := config.ParseDevices(api.Devices{"d": dev}); err == nil {
			out["device "+name] = danger{devices: api.Devices{"d": dev}}
		}
	}
	return out
}

func TestEveryRestrictionHoldsOnEveryWayIn(t *testing.T) {
	dangers := everyDanger()
	for _, must := range []string{"security.privileged", "security.nesting", "boot.host_shutdown_timeout", "device disk", "device nic"} {
		if _, ok := dangers[must]; !ok {
			t.Errorf("the matrix has no %s", must)
		}
	}
	g := newGoverned(t)
	strict := g.project(t, "strict", api.Config{"restricted": "true"})
	sharing := g.project(t, "sharing", api.Config{"restricted": "true", policy.Profiles: "false"})
	open := g.project(t, "open", nil)
	for _, p := range []api.ProjectName{strict, sharing} {
		if err := g.create(t, p, "c1", api.InstancePut{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Profiles.Create(t.Context(), strict, api.ProfilesPost{Name: "empty"}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, d := range dangers {
		put := api.InstancePut{Config: d.config, Devices: d.devices}
		bad := api.ProfilePut{Config: d.config, Devices: d.devices}
		n++
		shared := fmt.Sprint("shared", n)
		if err := g.Profiles.Create(t.Context(), api.DefaultProject, api.ProfilesPost{Name: shared, ProfilePut: bad}); err != nil {
			t.Fatalf("%s in a profile of the default project: %v", name, err)
		}
		merged := rootOnly()
		merged.Config = d.config
		maps.Copy(merged.Devices, d.devices)
		inner := g.project(t, fmt.Sprint("later", n), nil)
		if err := g.create(t, inner, "c1", put); err != nil {
			t.Fatalf("%s is refused without restrictions: %v", name, err)
		}
		for way, try := range map[string]func() error{
			"create": func() error { return g.create(t, strict, "bad", put) },
			"put": func() error {
				return g.put(t, strict, "c1", func(p *api.InstancePut) { maps.Copy(p.Config, d.config); p.Devices = d.devices })
			},
			"patch": func() error { return g.Patch(t.Context(), strict, "c1", put, nil) },
			"new profile": func() error {
				return g.Profiles.Create(t.Context(), strict, api.ProfilesPost{Name: "bad", ProfilePut: bad})
			},
			"profile put":   func() error { return g.Profiles.Update(t.Context(), strict, "default", merged, nil) },
			"profile patch": func() error { return g.Profiles.Patch(t.Context(), strict, "empty", bad, nil) },
			"shared profile": func() error {
				return g.create(t, sharing, "bad", api.InstancePut{Profiles: []string{"default", shared}})
			},
			"shared profile put": func() error {
				return g.put(t, sharing, "c1", func(p *api.InstancePut) { p.Profiles = []string{"default", shared} })
			},
			"shared profile edit": func() error { return g.editShared(t, merged) },
			"the project": func() error {
				return updateProject(t, g.projects, inner, api.ProjectPut{Config: api.Config{"restricted": "true"}})
			},
		} {
			err := try()
			want := errs.Denied
			if way == "the project" {
				want = errs.InvalidInput
			}
			if !errs.Is(err, want) {
				t.Errorf("%s by %s: %v", name, way, err)
			}
		}
		if err := g.create(t, open, fmt.Sprint("c", n), put); err != nil {
			t.Errorf("%s in an open project: %v", name, err)
		}
	}
	for _, p := range []api.ProjectName{strict, sharing} {
		if names := g.Names(p); len(names) != 1 {
			t.Errorf("%s has %v", p, names)
		}
		if c1, _, err := g.Get(p, "c1"); err != nil || len(c1.Devices) != 0 || c1.ExpandedConfig["security.privileged"] != "" {
			t.Errorf("c1 of %s became %+v, %v", p, c1, err)
		}
	}
}

// editShared edits the default profile of the default project, which instances of a restricted project have.
func (g *governed) editShared(t *testing.T, put api.ProfilePut) error {
	t.Helper()
	return g.Profiles.Update(t.Context(), api.DefaultProject, "default", put, nil)
}

func updateProject(t *testing.T, s *projects.Service, p api.ProjectName, put api.ProjectPut) error {
	t.Helper()
	return s.Update(t.Context(), p, func(api.ProjectPut) (api.ProjectPut, error) { return put, nil })
}

func TestProjectsShareProfilesAndImages(t *testing.T) {
	g := newGoverned(t)
	sharing := g.project(t, "sharing", api.Config{policy.Profiles: "false", policy.Images: "false"})
	spec, err := g.Create(t.Context(), sharing, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"}})
	if err := g.Run(t, spec, err); err != nil {
		t.Fatal(err)
	}
	p, err := g.Profiles.Get(api.DefaultProject, "default")
	if err != nil || len(p.UsedBy) != 1 || p.UsedBy[0] != "/1.0/instances/c1?project=sharing" {
		t.Errorf("the default profile is used by %v, %v", p.UsedBy, err)
	}
	if err := g.Profiles.Patch(t.Context(), api.DefaultProject, "default", api.ProfilePut{Config: api.Config{"user.x": "y"}}, nil); err != nil {
		t.Fatal(err)
	}
	if c1, _, err := g.Get(sharing, "c1"); err != nil || c1.ExpandedConfig["user.x"] != "y" || c1.ExpandedDevices["eth0"] == nil {
		t.Errorf("got %+v, %v", c1, err)
	}
}

func TestRacingInstancesDoNotExceedTheirProject(t *testing.T) {
	g := newGoverned(t)
	p := g.project(t, "p", api.Config{"limits.instances": "3", "limits.memory": "3GiB"})
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			spec, err := g.Create(t.Context(), p, api.InstancesPost{Name: fmt.Sprint("c", i), Source: api.InstanceSource{Type: "none"},
				InstancePut: api.InstancePut{Config: api.Config{"limits.memory": "1GiB"}}})
			if err := g.Run(t, spec, err); err != nil && !errs.Is(err, errs.Denied) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(g.Names(p)); n != 3 {
		t.Errorf("%d instances", n)
	}
	for name, c := range map[string]string{g.Names(p)[0]: "2GiB", g.Names(p)[1]: "", g.Names(p)[2]: "50%"} {
		if err := g.Patch(t.Context(), p, name, api.InstancePut{Config: api.Config{"limits.memory": c}}, nil); !errs.Is(err, errs.Denied) {
			t.Errorf("limits.memory=%q: %v", c, err)
		}
	}
	if err := g.Patch(t.Context(), p, g.Names(p)[0], api.InstancePut{Config: api.Config{"limits.memory": "512MiB"}}, nil); err != nil {
		t.Error(err)
	}
	st, err := g.projects.State(p)
	if err != nil || st.Resources["memory"] != (api.ProjectStateResource{Limit: 3 << 30, Usage: 5 << 29}) {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestSnapshotsAskTheGate(t *testing.T) {
	g := newGoverned(t)
	snapshot := func(p api.ProjectName) error {
		spec, err := g.Snapshot(p, "c1", api.InstanceSnapshotsPost{Name: "s"})
		return g.Run(t, spec, err)
	}
	strict := g.project(t, "strict", api.Config{"restricted": "true"})
	must(t, g.create(t, strict, "c1", api.InstancePut{}))
	if err := snapshot(strict); !errs.Is(err, errs.Denied) {
		t.Errorf("a snapshot where they are restricted: %v", err)
	}
	if names := snapshotNames(t, g, strict); len(names) != 0 {
		t.Errorf("there are %v", names)
	}
	must(t, updateProject(t, g.projects, strict, api.ProjectPut{Config: api.Config{"restricted": "true", "restricted.snapshots": "allow"}}))
	must(t, snapshot(strict))

	// What a snapshot was made with comes back by the same door.
	later := g.project(t, "later", nil)
	must(t, g.create(t, later, "c1", api.InstancePut{Config: api.Config{"security.privileged": "true"}}))
	must(t, snapshot(later))
	must(t, g.put(t, later, "c1", func(p *api.InstancePut) { delete(p.Config, "security.privileged") }))
	must(t, updateProject(t, g.projects, later, api.ProjectPut{Config: api.Config{"restricted": "true"}}))
	if err := g.put(t, later, "c1", func(p *api.InstancePut) { p.Restore = "s" }); !errs.Is(err, errs.Denied) {
		t.Errorf("a restore of what the project forbids: %v", err)
	}
	if c1, _, err := g.Get(later, "c1"); err != nil || c1.Config["security.privileged"] != "" {
		t.Errorf("c1 became %+v, %v", c1.Config, err)
	}
	must(t, updateProject(t, g.projects, later, api.ProjectPut{}))
	must(t, g.put(t, later, "c1", func(p *api.InstancePut) { p.Restore = "s" }))
	if c1, _, err := g.Get(later, "c1"); err != nil || c1.Config["security.privileged"] != "true" {
		t.Errorf("c1 became %+v, %v", c1.Config, err)
	}
	// The oracle counts no block of ids for who does not use it now.
	must(t, g.put(t, later, "c1", func(p *api.InstancePut) { delete(p.Config, "security.privileged") }))
}

func snapshotNames(t *testing.T, g *governed, p api.ProjectName) (names []string) {
	t.Helper()
	list, err := g.Snapshots(p, "c1")
	must(t, err)
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}
