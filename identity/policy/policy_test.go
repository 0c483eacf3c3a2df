package policy_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/errs"
)

func project(kv ...string) policy.Project {
	p := policy.Project{Name: "p", Config: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		p.Config[kv[i]] = kv[i+1]
	}
	return p
}

func instance(name string, cfg map[string]string, devices ...map[string]string) policy.Instance {
	x := policy.Instance{Name: name, Type: api.TypeContainer, Config: cfg, Devices: map[string]map[string]string{
		"root": {"type": "disk", "path": "/", "pool": "default", "size": "1GiB"},
	}}
	for i, d := range devices {
		x.Devices["d"+string(rune('0'+i))] = d
	}
	return x
}

func both(list ...policy.Instance) policy.Contents {
	c := policy.Contents{Instances: map[string]policy.Instance{}}
	for _, x := range list {
		c.Instances[x.Name] = x
	}
	return c
}

// dangers are the things that a restricted project refuses, each with the setting of the project that allows it.
var dangers = map[string]struct {
	config  map[string]string
	device  map[string]string
	vm      bool
	allowed []string
}{
	"privileged":     {config: map[string]string{"security.privileged": "true"}, allowed: []string{"restricted.containers.privilege", "allow"}},
	"privileged yes": {config: map[string]string{"security.privileged": "YES"}, allowed: []string{"restricted.containers.privilege", "allow"}},
	"nesting":        {config: map[string]string{"security.nesting": "1"}, allowed: []string{"restricted.containers.nesting", "allow"}},
	"raw.lxc":        {config: map[string]string{"raw.lxc": "x"}, allowed: []string{"restricted.containers.lowlevel", "allow"}},
	"raw.seccomp":    {config: map[string]string{"raw.seccomp": "x"}, allowed: []string{"restricted.containers.lowlevel", "allow"}},
	"sysctl":         {config: map[string]string{"linux.sysctl.kernel.x": "1"}, allowed: []string{"restricted.containers.lowlevel", "allow"}},
	"modules":        {config: map[string]string{"linux.kernel_modules": "x"}, allowed: []string{"restricted.containers.lowlevel", "allow"}},
	"shutdown": {config: map[string]string{"boot.host_shutdown_timeout": "1000"},
		allowed: []string{"restricted.containers.lowlevel", "allow", "restricted.virtual-machines.lowlevel", "allow"}},
	"raw.qemu":        {vm: true, config: map[string]string{"raw.qemu": "x"}, allowed: []string{"restricted.virtual-machines.lowlevel", "allow"}},
	"raw.qemu.conf":   {vm: true, config: map[string]string{"raw.qemu.conf": "x"}, allowed: []string{"restricted.virtual-machines.lowlevel", "allow"}},
	"intercept mknod": {config: map[string]string{"security.syscalls.intercept.mknod": "true"}, allowed: []string{"restricted.containers.interception", "allow"}},
	"intercept mount": {config: map[string]string{"security.syscalls.intercept.mount": "true"}, allowed: []string{"restricted.containers.interception", "full"}},
	"idmap": {config: map[string]string{"raw.idmap": "both 1000 1000"},
		allowed: []string{"restricted.idmap.uid", "1000", "restricted.idmap.gid", "0-2000"}},
	"path of the host": {device: map[string]string{"type": "disk", "path": "/x", "source": "/etc"}, allowed: []string{"restricted.devices.disk", "allow"}},
	"own bridge":       {device: map[string]string{"type": "nic", "nictype": "bridged", "parent": "br0"}, allowed: []string{"restricted.devices.nic", "allow"}},
	"schedule":         {config: map[string]string{"snapshots.schedule": "@daily"}, allowed: []string{"restricted.snapshots", "allow"}},
}

func TestRestrictions(t *testing.T) {
	for _, d := range []string{"gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb"} {
		c := dangers["own bridge"]
		c.device, c.allowed = map[string]string{"type": d}, []string{"restricted.devices." + d, "allow"}
		dangers[d] = c
	}
	for name, c := range dangers {
		t.Run(name, func(t *testing.T) {
			bad := instance("c1", c.config)
			if c.vm {
				bad.Type = api.TypeVirtualMachine
			}
			if c.device != nil {
				bad.Devices["d"] = c.device
			}
			strict, open := project("restricted", "true"), project(append([]string{"restricted", "true"}, c.allowed...)...)
			plain := instance("c1", nil)
			// The ways in: a new instance, a changed one, a profile without users, and restrictions that come later.
			profile := policy.Contents{Profiles: map[string]policy.Profile{"x": {Name: "x", Config: bad.Config, Devices: bad.Devices}}}
			ways := map[string]func(policy.Project) error{
				"new":     func(p policy.Project) error { return policy.Check(p, policy.Contents{}, both(bad)) },
				"changed": func(p policy.Project) error { return policy.Check(p, both(plain), both(bad)) },
				"profile": func(p policy.Project) error { return policy.Check(p, policy.Contents{}, profile) },
				"project": func(p policy.Project) error { return policy.CheckProject(project(), p, both(bad)) },
			}
			for way, try := range ways {
				if err := try(strict); err == nil || !strings.Contains(err.Error(), `"p"`) {
					t.Errorf("%s: let in, or without saying where: %v", way, err)
				}
				if err := try(open); err != nil {
					t.Errorf("%s: refused although it is allowed: %v", way, err)
				}
				if err := try(project()); err != nil {
					t.Errorf("%s: refused in a project without restrictions: %v", way, err)
				}
			}
			if err := policy.Check(strict, both(bad), both(bad)); err != nil {
				t.Errorf("what does not change is refused: %v", err)
			}
		})
	}
	for _, c := range []policy.Copy{{Of: "c1", Name: "s"}, {Of: "c1", Name: "b", Backup: true}} {
		if err := policy.Check(project("restricted", "true"), policy.Contents{}, policy.OneCopy(c)); !errs.Is(err, errs.Denied) {
			t.Errorf("%+v: %v", c, err)
		}
		open := project("restricted", "true", "restricted.snapshots", "allow", "restricted.backups", "allow")
		if err := policy.Check(open, policy.Contents{}, policy.OneCopy(c)); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestWhatIsHarmlessStaysAllowed(t *testing.T) {
	p := project("restricted", "true")
	ok := instance("c1", map[string]string{"limits.memory": "1GiB", "user.a": "b", "security.nesting": "false", "security.privileged": "0",
		"security.syscalls.intercept.mknod": "no", "environment.A": "b", "security.protection.delete": "true"},
		map[string]string{"type": "nic", "network": "br0"}, map[string]string{"type": "disk", "pool": "default", "source": "vol", "path": "/x"}, map[string]string{"type": "none"})
	if err := policy.Check(p, policy.Contents{}, both(ok)); err != nil {
		t.Error(err)
	}
}

func TestPathsAndNetworksAndIDs(t *testing.T) {
	disk := func(source string) policy.Instance {
		return instance("c1", nil, map[string]string{"type": "disk", "path": "/x", "source": source})
	}
	nic := func(n string) policy.Instance {
		return instance("c1", nil, map[string]string{"type": "nic", "network": n})
	}
	idmap := func(v string) policy.Instance { return instance("c1", map[string]string{"raw.idmap": v}) }
	paths := project("restricted", "true", "restricted.devices.disk", "allow", "restricted.devices.disk.paths", "/srv/a,/srv/b")
	nets := project("restricted", "true", "restricted.networks.access", "br0, br1")
	ids := project("restricted", "true", "restricted.idmap.uid", "1000-1999,5000", "restricted.idmap.gid", "1000")
	isolated := project("restricted", "true", "restricted.containers.privilege", "isolated")
	for name, c := range map[string]struct {
		p  policy.Project
		x  policy.Instance
		ok bool
	}{
		"the path itself":  {paths, disk("/srv/a"), true},
		"below it":         {paths, disk("/srv/b/c/d"), true},
		"its neighbour":    {paths, disk("/srv/ab"), false},
		"above it":         {paths, disk("/srv"), false},
		"the root":         {paths, disk("/"), false},
		"around it":        {paths, disk("/srv/a/../../etc"), false},
		"relative":         {paths, disk("srv/a"), false},
		"special source":   {paths, disk("cloud-init:config"), false},
		"listed network":   {nets, nic("br1"), true},
		"other network":    {nets, nic("br2"), false},
		"both":             {ids, idmap("both 1000 0"), true},
		"uid range":        {ids, idmap("uid 1000-1500 0-500\ngid 1000 0"), true},
		"partly outside":   {ids, idmap("uid 1900-2000 0-100"), false},
		"gid of uid range": {ids, idmap("both 1500 0"), false},
		"root":             {ids, idmap("uid 0 0"), false},
		"nonsense":         {ids, idmap("uid"), false},
		"nobody said so":   {isolated, instance("c1", nil), true},
		"said so":          {isolated, instance("c1", map[string]string{"security.idmap.isolated": "true"}), true},
		"said not so":      {isolated, instance("c1", map[string]string{"security.idmap.isolated": "false"}), false},
	} {
		if err := policy.Check(c.p, policy.Contents{}, both(c.x)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	sized := map[string]string{"limits.memory": "1GiB", "limits.cpu": "2", "limits.processes": "100"}
	one, two := instance("c1", sized), instance("c2", sized)
	pinned, percent := instance("c2", map[string]string{"limits.cpu": "0-3"}), instance("c2", map[string]string{"limits.memory": "50%"})
	rootless := instance("c2", sized)
	rootless.Devices = map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": "default"}}
	machine := two
	machine.Type = api.TypeVirtualMachine
	volume := both(one).Apply(policy.Contents{}, policy.OneVolume(policy.Volume{Pool: "default", Name: "v", Size: 1 << 30}))
	sizeless := both(one).Apply(policy.Contents{}, policy.OneVolume(policy.Volume{Pool: "default", Name: "v"}))
	network := both(one).Apply(policy.Contents{}, policy.OneNetwork("br0"))
	for name, c := range map[string]struct {
		key, value string
		after      policy.Contents
		ok         bool
	}{
		"instances":          {"limits.instances", "2", both(one, two), true},
		"too many":           {"limits.instances", "1", both(one, two), false},
		"containers":         {"limits.containers", "1", both(one, machine), true},
		"too many of them":   {"limits.containers", "1", both(one, two), false},
		"no machines":        {"limits.virtual-machines", "0", both(one, machine), false},
		"memory":             {"limits.memory", "2GiB", both(one, two), true},
		"too much memory":    {"limits.memory", "2GB", both(one, two), false},
		"memory in percent":  {"limits.memory", "10GiB", both(one, percent), false},
		"memory not set":     {"limits.memory", "10GiB", both(one, instance("c2", nil)), false},
		"cpu":                {"limits.cpu", "4", both(one, two), true},
		"too many cpus":      {"limits.cpu", "3", both(one, two), false},
		"pinned cpus":        {"limits.cpu", "30", both(one, pinned), false},
		"processes":          {"limits.processes", "199", both(one, two), false},
		"disk":               {"limits.disk", "2GiB", both(one, two), true},
		"too much disk":      {"limits.disk", "2GB", both(one, two), false},
		"root without size":  {"limits.disk", "20GiB", both(one, rootless), false},
		"volume":             {"limits.disk", "2GiB", volume, true},
		"too large a volume": {"limits.disk", "1GiB", volume, false},
		"volume, no size":    {"limits.disk", "20GiB", sizeless, false},
		"pool":               {"limits.disk.pool.default", "1GiB", both(one, two), false},
		"other pool":         {"limits.disk.pool.other", "0", both(one, two), true},
		"networks":           {"limits.networks", "1", network, true},
		"no networks":        {"limits.networks", "0", network, false},
	} {
		err := policy.Check(project(c.key, c.value), both(one), c.after)
		if (err == nil) != c.ok || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	over := project("limits.instances", "1", "limits.memory", "1GiB")
	smaller := both(one, instance("c2", map[string]string{"limits.memory": "512MiB"}))
	if err := policy.Check(over, both(one, two), smaller); err != nil {
		t.Errorf("a project that is over its limits cannot shrink: %v", err)
	}
	if err := policy.CheckProject(project(), over, both(one, two)); !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), "limits.instances") {
		t.Errorf("a limit below what is used: %v", err)
	}
	changed := maps.Clone(over.Config)
	changed["user.note"] = "x"
	if err := policy.CheckProject(over, policy.Project{Name: "p", Config: changed}, both(one, two)); err != nil {
		t.Errorf("a note on a project that is over its limits: %v", err)
	}
	st := policy.Usage(project("limits.memory", "3GiB"), both(one, two))
	if st["memory"] != (api.ProjectStateResource{Limit: 3 << 30, Usage: 2 << 30}) || st["instances"].Limit != -1 || st["instances"].Usage != 2 {
		t.Errorf("got %+v", st)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("raw.idmap", "both 1000 0", "/srv/a", "1000-2000")
	f.Add("limits.memory", "9EiB", "/srv/../etc", "0-")
	f.Fuzz(func(t *testing.T, key, value, source, ids string) {
		p := project("restricted", "true", "restricted.devices.disk", "allow", "restricted.devices.disk.paths", "/srv", "restricted.idmap.uid", ids, "limits.memory", "1GiB")
		if policy.CheckConfig(p.Config) != nil {
			return
		}
		x := instance("c1", map[string]string{"limits.memory": "1MiB", key: value}, map[string]string{"type": "disk", "path": "/x", "source": source})
		if policy.Check(p, policy.Contents{}, both(x)) == nil && source != "/srv" && !strings.HasPrefix(source, "/srv/") {
			t.Errorf("source %q was let in", source)
		}
	})
}
