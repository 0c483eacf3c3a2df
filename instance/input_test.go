package instance_test

import (
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

func TestCreateRefuses(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "taken")
	img := api.InstanceSource{Type: "image", Alias: "img"}
	root := map[string]string{"type": "disk", "path": "/", "pool": "default"}
	with := func(change func(*api.InstancesPost)) api.InstancesPost {
		req := api.InstancesPost{Name: "c1", Source: img}
		change(&req)
		return req
	}
	config := func(k, v string) api.InstancesPost {
		return with(func(r *api.InstancesPost) { r.Config = api.Config{k: v} })
	}
	device := func(opts ...string) api.InstancesPost {
		dev := map[string]string{}
		for i := 0; i < len(opts); i += 2 {
			dev[opts[i]] = opts[i+1]
		}
		return with(func(r *api.InstancesPost) { r.Devices = api.Devices{"d0": dev} })
	}
	named := func(n string) api.InstancesPost { return with(func(r *api.InstancesPost) { r.Name = n }) }
	source := func(s api.InstanceSource) api.InstancesPost {
		return with(func(r *api.InstancesPost) { r.Source = s })
	}
	const in, un = errs.InvalidInput, errs.UnsupportedClass
	for _, tt := range []struct {
		name  string
		req   api.InstancesPost
		class errs.Class
		text  string
	}{
		{"number first", named("1x"), in, "Invalid instance name: Name must not start with a number"},
		{"slash", named("a/b"), in, `The character "/" is reserved for snapshots`},
		{"dots", named(".."), in, "Invalid instance name"},
		{"newline", named("a\n"), in, "Invalid instance name"},
		{"long", named(strings.Repeat("a", 64)), in, "Name must be 1-63 characters long"},
		{"taken", named("taken"), errs.ExistsClass, `Instance "taken" already exists`},
		{"unknown key", config("foo.bar", "x"), in, "Unknown configuration key: foo.bar"},
		{"key with a newline", config("user.a\nb", "x"), in, "Unknown configuration key"},
		{"bad bool", config("boot.autostart", "maybe"), in, "allowed is true or false"},
		{"bad memory", config("limits.memory", "lots"), in, "invalid size"},
		{"tiny memory", config("limits.memory", "12"), in, "at least 1MiB"},
		{"memory overflow", config("limits.memory", "99999999999EiB"), in, "too large"},
		{"memory percent", config("limits.memory", "101%"), in, "percentage"},
		{"bad cpu", config("limits.cpu", "3-1"), in, "number of CPUs or a set"},
		{"no cpu", config("limits.cpu", "0"), in, "at least 1"},
		{"allowance", config("limits.cpu.allowance", "0%"), in, "1% to 100%"},
		{"raw", config("raw.lxc", "lxc.apparmor.profile=unconfined"), un, `"raw.lxc" is not supported yet`},
		{"syscalls", config("security.syscalls.deny", "mount"), un, "not supported yet"},
		{"nvidia", config("nvidia.runtime", "true"), un, "not supported yet"},
		{"vm key", config("security.secureboot", "false"), in, "Unknown configuration key"},
		{"volatile", config("volatile.uuid", "x"), in, "Unknown configuration key: volatile.uuid"},
		{"NUL", config("user.x", "a\x00b"), in, "without NUL"},
		{"huge", config("user.x", strings.Repeat("x", 1<<20)), errs.TooLargeClass, "a value 262144"},
		{"device without type", device("path", "/x"), in, "Missing device type"},
		{"unknown device", device("type", "floppy"), in, "Unsupported device type"},
		{"gpu", device("type", "gpu"), un, "not supported yet; supported are disk, nic and none"},
		{"second root", device("type", "disk", "path", "/", "pool", "default"), in, `path "/" is already used`},
		{"relative path", device("type", "disk", "path", "x", "source", "/tmp"), in, "must be absolute"},
		{"escaping path", device("type", "disk", "path", "/x/../../y", "source", "/tmp"), in, "without . and .."},
		{"relative source", device("type", "disk", "path", "/x", "source", "tmp"), in, "absolute path of the host"},
		{"disk option", device("type", "disk", "path", "/x", "source", "/tmp", "foo", "x"), in, `Invalid device option "foo"`},
		{"unknown network", device("type", "nic", "network", "nope"), in, `Network "nope" not found`},
		{"nictype", device("type", "nic", "nictype", "macvlan", "parent", "eth0"), un, "not supported yet"},
		{"nic without network", device("type", "nic"), in, `needs "network"`},
		{"hwaddr", device("type", "nic", "network", "br0", "hwaddr", "ff:ff:ff:ff:ff:ff"), in, "unicast"},
		{"interface name", device("type", "nic", "network", "br0", "name", "../../etc"), in, "interface name"},
		{"same interface name", device("type", "nic", "network", "br0", "name", "eth0"), in, "already used"},
		{"address of IPv6", device("type", "nic", "network", "br0", "ipv6.address", "fd00::1"), un, "not supported yet"},
		{"address", device("type", "nic", "network", "br0", "ipv4.address", "::1"), in, "must be an address"},
		{"device name", with(func(r *api.InstancesPost) { r.Devices = api.Devices{"../x": root} }), in, "Invalid device name"},
		{"no root", with(func(r *api.InstancesPost) { r.Profiles = []string{} }), in, "No root device could be found"},
		{"unknown pool", with(func(r *api.InstancesPost) {
			r.Profiles, r.Devices = []string{}, api.Devices{"root": {"type": "disk", "path": "/", "pool": "nope"}}
		}), errs.NotFoundClass, "Storage pool not found"},
		{"unknown profile", with(func(r *api.InstancesPost) { r.Profiles = []string{"nope"} }), in, `Requested profile "nope" doesn't exist`},
		{"profile twice", with(func(r *api.InstancesPost) { r.Profiles = []string{"default", "default"} }), in, "more than once"},
		{"weird source", source(api.InstanceSource{Type: "weird"}), in, "Unknown source type weird"},
		{"no source", source(api.InstanceSource{Type: "image"}), in, "Must specify one of alias, fingerprint or properties"},
		{"unknown image", source(api.InstanceSource{Type: "image", Alias: "nope"}), errs.NotFoundClass, "Image not found"},
		{"bad fingerprint", source(api.InstanceSource{Type: "image", Fingerprint: "../x"}), in, "Invalid fingerprint name"},
		{"copy", source(api.InstanceSource{Type: "copy", Source: "none"}), errs.NotFoundClass, "Instance not found"},
		{"virtual machine", with(func(r *api.InstancesPost) { r.Type = api.TypeVirtualMachine }), un, "cannot run instances of type"},
		{"type", with(func(r *api.InstancesPost) { r.Type = "x" }), un, "cannot run instances of type"},
		{"architecture", with(func(r *api.InstancesPost) { r.Architecture = "s390x" }), in, "isn't supported by this host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.Create(t.Context(), project, tt.req)
			wantErr(t, err, tt.class, tt.text)
			if n := w.Names(project); len(n) != 1 {
				t.Fatalf("names %v", n)
			}
		})
	}
	w.Check(t)
}

func update(t *testing.T, w *instancetest.World, name string, change func(*api.InstancePut)) error {
	t.Helper()
	put := get(t, w, name).InstancePut
	change(&put)
	spec, err := w.Update(t.Context(), project, name, put, nil)
	return w.Run(t, spec, err)
}

func TestUpdate(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	before := get(t, w, "c1")
	must(t, update(t, w, "c1", func(p *api.InstancePut) {
		p.Config["user.a"], p.Config["limits.memory"], p.Description = "1", "64MiB", "changed"
		p.Devices["eth1"] = map[string]string{"type": "nic", "nictype": "bridged", "parent": "br0"}
	}))
	after := get(t, w, "c1")
	if after.Description != "changed" || after.Config["user.a"] != "1" || w.Guests.Calls("setlimits") != 1 {
		t.Errorf("after update: %+v, %d limit changes", after, w.Guests.Calls("setlimits"))
	}
	for k, v := range before.Config {
		if after.Config[k] != v {
			t.Errorf("%s changed from %q to %q", k, v, after.Config[k])
		}
	}
	nics := w.Host.Attached(project, instanceName(t, "c1"))
	if len(nics) != 2 || nics[1].Name != "eth1" || nics[1].HWAddr == nics[0].HWAddr || nics[1].HostName == "" {
		t.Errorf("nics %+v", nics)
	}
	// A device of the instance hides the profile's; none removes it.
	must(t, update(t, w, "c1", func(p *api.InstancePut) { p.Devices["eth0"] = map[string]string{"type": "none"} }))
	if nics := w.Host.Attached(project, instanceName(t, "c1")); len(nics) != 1 || nics[0].Name != "eth1" {
		t.Errorf("nics %+v", nics)
	}
	w.Check(t)

	for _, tt := range []struct {
		name   string
		change func(*api.InstancePut)
		class  errs.Class
		text   string
	}{
		{"unknown key", func(p *api.InstancePut) { p.Config["foo"] = "x" }, errs.InvalidInput, "Unknown configuration key: foo"},
		{"server's key", func(p *api.InstancePut) { p.Config["volatile.uuid"] = "x" }, errs.InvalidInput, "belongs to the server"},
		{"server's key, made up", func(p *api.InstancePut) { p.Config["volatile.foo"] = "x" }, errs.InvalidInput, "Unknown configuration key: volatile.foo"},
		{"bad hwaddr", func(p *api.InstancePut) { p.Config["volatile.eth1.hwaddr"] = "x" }, errs.InvalidInput, "not a hardware address"},
		{"other pool", func(p *api.InstancePut) {
			p.Devices["root"] = map[string]string{"type": "disk", "path": "/", "pool": "other"}
		}, errs.NotFoundClass, "Storage pool not found"},
		{"no root", func(p *api.InstancePut) { p.Profiles = []string{} }, errs.InvalidInput, "No root device could be found"},
		{"architecture", func(p *api.InstancePut) { p.Architecture = "aarch64" }, errs.InvalidInput, "cannot be changed"},
		{"disk while running", func(p *api.InstancePut) {
			p.Devices["d"] = map[string]string{"type": "disk", "path": "/mnt", "source": "/tmp"}
		}, errs.UnsupportedClass, "stop it first"},
		{"restore", func(p *api.InstancePut) { p.Restore = "snap0" }, errs.NotFoundClass, "Instance snapshot not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := get(t, w, "c1")
			wantErr(t, update(t, w, "c1", tt.change), tt.class, tt.text)
			if got := get(t, w, "c1"); got.Description != want.Description || len(got.Config) != len(want.Config) || len(got.Devices) != len(want.Devices) {
				t.Errorf("changed: %+v", got)
			}
			w.Check(t)
		})
	}
	t.Run("network fails", func(t *testing.T) {
		w.Host.Fail("Attach", errs.Unavailable("no network"))
		err := update(t, w, "c1", func(p *api.InstancePut) { p.Devices["eth2"] = map[string]string{"type": "nic", "network": "br0"} })
		w.Host.Fail("Attach", nil)
		wantErr(t, err, errs.UnavailableClass, "attach eth2: no network")
		if _, there := get(t, w, "c1").Devices["eth2"]; there {
			t.Error("the record kept the device")
		}
		w.Check(t)
	})
	t.Run("etag", func(t *testing.T) {
		refuse := errs.PreconditionFailed("ETag doesn't match")
		_, err := w.Update(t.Context(), project, "c1", get(t, w, "c1").InstancePut, func(instance.ETag) error { return refuse })
		wantErr(t, err, errs.Precondition, "ETag doesn't match")
	})
	must(t, w.Patch(t.Context(), project, "c1", api.InstancePut{Config: api.Config{"user.a": "", "user.b": "2"}}, nil))
	if c := get(t, w, "c1"); c.Config["user.b"] != "2" || c.Config["user.a"] != "" || c.Description != "changed" {
		t.Errorf("after patch: %+v", c)
	}
	must(t, update(t, w, "c1", func(p *api.InstancePut) { p.Config["security.protection.delete"] = "true" }))
	must(t, do(t, w, "c1", "stop"))
	_, err := w.Delete(t.Context(), project, "c1")
	wantErr(t, err, errs.InvalidInput, "Instance is protected")
}

func TestProfiles(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	p, err := w.Profiles.Get(project, "default")
	must(t, err)
	if len(p.UsedBy) != 1 || p.UsedBy[0] != "/1.0/instances/c1" {
		t.Errorf("used by %v", p.UsedBy)
	}
	wantErr(t, w.Profiles.Delete(t.Context(), project, "default"), errs.Denied, `The "default" profile cannot be deleted`)
	wantErr(t, w.Profiles.Rename(t.Context(), project, "default", "x"), errs.Denied, `The "default" profile cannot be renamed`)
	wantErr(t, w.Profiles.Create(t.Context(), project, api.ProfilesPost{Name: "default"}), errs.ExistsClass, "already exists")
	_, err = w.Profiles.Get(project, "nope")
	wantErr(t, err, errs.NotFoundClass, "Profile not found")

	// What changes live reaches running instances, what would break one is refused.
	must(t, w.Profiles.Patch(t.Context(), project, "default", api.ProfilePut{
		Config: api.Config{"limits.memory": "64MiB"}, Devices: api.Devices{"eth1": {"type": "nic", "network": "br0"}}}, nil))
	if n := len(w.Host.Attached(project, instanceName(t, "c1"))); n != 2 || w.Guests.Calls("setlimits") != 1 {
		t.Errorf("%d nics, %d limit changes", n, w.Guests.Calls("setlimits"))
	}
	err = w.Profiles.Update(t.Context(), project, "default", api.ProfilePut{}, nil)
	wantErr(t, err, errs.InvalidInput, "No root device could be found")
	must(t, w.Profiles.Create(t.Context(), project, api.ProfilesPost{Name: "p1", ProfilePut: api.ProfilePut{Config: api.Config{"user.p": "1"}}}))
	wantErr(t, w.Profiles.Create(t.Context(), project, api.ProfilesPost{Name: "p2", ProfilePut: api.ProfilePut{Config: api.Config{"nope": "1"}}}), errs.InvalidInput, "Unknown configuration key: nope")
	must(t, update(t, w, "c1", func(p *api.InstancePut) { p.Profiles = []string{"default", "p1"} }))
	if get(t, w, "c1").ExpandedConfig["user.p"] != "1" {
		t.Error("the second profile has no effect")
	}
	wantErr(t, w.Profiles.Delete(t.Context(), project, "p1"), errs.InvalidInput, "Profile is currently in use")
	must(t, w.Profiles.Rename(t.Context(), project, "p1", "p9"))
	if c := get(t, w, "c1"); c.Profiles[1] != "p9" || c.ExpandedConfig["user.p"] != "1" {
		t.Errorf("after rename: %v", c.Profiles)
	}
	must(t, do(t, w, "c1", "stop"))
}
