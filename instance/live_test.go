package instance_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/idmap"
	"github.com/shoal-project/shoal/test/instancetest"
)

// withAddress gives eth0 a static address.
func withAddress(addr string) func(*api.InstancesPost) {
	return func(r *api.InstancesPost) { r.Devices = api.Devices{"eth0": nicWith(addr)} }
}

func nicWith(addr string) map[string]string {
	dev := map[string]string{"type": "nic", "network": "br0", "name": "eth0"}
	if addr != "" {
		dev["ipv4.address"] = addr
	}
	return dev
}

// An address that another instance has is refused when it is written, and the instance stays as it was.
func TestStaticAddresses(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1", withAddress("10.0.0.9"))
	if got := w.Host.Leases(); !slices.Equal(got, []string{"default/c1/eth0"}) {
		t.Fatalf("reserved: %v", got)
	}
	req := api.InstancesPost{Name: "c2", Source: api.InstanceSource{Type: "image", Alias: "img"}}
	withAddress("10.0.0.9")(&req)
	spec, err := w.Create(t.Context(), project, req)
	wantErr(t, w.Run(t, spec, err), errs.ExistsClass, `create instance "c2": device "eth0": ipv4.address 10.0.0.9`)
	if n := w.Names(project); len(n) != 1 {
		t.Fatalf("left: %v", n)
	}
	w.Check(t)

	for _, state := range []string{"stopped", "running"} {
		t.Run(state, func(t *testing.T) {
			create(t, w, "c2")
			if state == "running" {
				must(t, do(t, w, "c2", "start"))
			}
			to := func(addr string) error {
				return update(t, w, "c2", func(p *api.InstancePut) { p.Devices["eth0"] = nicWith(addr) })
			}
			wantErr(t, to("10.0.0.9"), errs.ExistsClass, "in use by default/c1/eth0")
			if _, there := get(t, w, "c2").Devices["eth0"]; there {
				t.Error("the record kept the address")
			}
			must(t, to("10.0.0.10"))
			must(t, to("10.0.0.11"))
			// What was given up is free for others.
			must(t, update(t, w, "c1", func(p *api.InstancePut) { p.Devices["eth0"] = nicWith("10.0.0.10") }))
			must(t, to("10.0.0.9"))
			must(t, to(""))
			must(t, update(t, w, "c1", func(p *api.InstancePut) { p.Devices["eth0"] = nicWith("10.0.0.9") }))
			if state == "running" {
				if nics := w.Host.Attached(project, instanceName(t, "c2")); len(nics) != 1 || nics[0].IPv4.IsValid() {
					t.Errorf("attached: %+v", nics)
				}
				must(t, do(t, w, "c2", "stop"))
			}
			must(t, update(t, w, "c2", func(p *api.InstancePut) { p.Devices["eth0"] = map[string]string{"type": "none"} }))
			if got := w.Host.Leases(); !slices.Equal(got, []string{"default/c1/eth0"}) {
				t.Errorf("leases after the device went: %v", got)
			}
			spec, err := w.Delete(t.Context(), project, "c2")
			must(t, w.Run(t, spec, err))
			w.Check(t)
		})
	}
}

func TestRootSize(t *testing.T) {
	w := instancetest.New(t)
	size := func(v string) map[string]string {
		return map[string]string{"type": "disk", "path": "/", "pool": "default", "size": v}
	}
	create(t, w, "c1", func(r *api.InstancesPost) { r.Devices = api.Devices{"root": size("1GiB")} })
	want := func(bytes int64) {
		t.Helper()
		if got := w.Host.RootSize(project, instanceName(t, "c1")); got != bytes {
			t.Fatalf("size %d, want %d", got, bytes)
		}
	}
	resize := func(v string) error {
		return update(t, w, "c1", func(p *api.InstancePut) { p.Devices["root"] = size(v) })
	}
	want(1 << 30)
	must(t, resize("2GB"))
	want(2_000_000_000)
	must(t, do(t, w, "c1", "start"))
	must(t, resize("3GiB"))
	want(3 << 30)
	w.Host.Fail("ResizeRoot", errs.NoSpace("the pool is full"))
	wantErr(t, resize("4GiB"), errs.NoSpaceClass, `update instance "c1": resize the root disk: the pool is full`)
	w.Host.Fail("ResizeRoot", nil)
	if got := get(t, w, "c1").Devices["root"]["size"]; got != "3GiB" {
		t.Errorf("the record says %s", got)
	}
	must(t, resize(""))
	want(0)
	wantErr(t, resize("x"), errs.InvalidInput, `device "root": invalid size "x"`)
	must(t, do(t, w, "c1", "stop"))
}

// What `info --show-log` shows says when the instance started, why it did not, and how it ended.
func TestStory(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	read := func(file string) string {
		t.Helper()
		f, err := w.Log(project, "c1", file)
		must(t, err)
		defer f.Close()
		b, err := io.ReadAll(f)
		must(t, err)
		return string(b)
	}
	if got := read("lxc.log"); got != "" {
		t.Errorf("before the first start: %q", got)
	}
	w.Host.Fail("Attach", errs.Unavailable("no bridge"))
	if err := do(t, w, "c1", "start"); err == nil {
		t.Fatal("started")
	}
	w.Host.Fail("Attach", nil)
	must(t, do(t, w, "c1", "start"))
	dir := filepath.Join(w.Dir, "logs/c1")
	must(t, os.WriteFile(filepath.Join(dir, "shim.log"), []byte("shim: cannot do it\n"), 0o600))
	w.Restart(t)
	must(t, do(t, w, "c1", "stop"))
	lines := []string{`level=ERROR msg="the start failed" err="attach eth0: no bridge"`, "msg=started pid=", "the instance went on", "msg=\"stop asked for\" force=false", "msg=ended code=", "shim.log of the last start:", "shim: cannot do it"}
	rest := read("lxc.log")
	for _, want := range lines {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("no %q in\n%s", want, read("lxc.log"))
		}
		rest = after
	}

	// A link that somebody put there leads nowhere, other files are not found, and a long story begins anew.
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "runtime.log")))
	if f, err := w.Log(project, "c1", "runtime.log"); err == nil {
		t.Errorf("a link was opened: %v", f)
	}
	must(t, os.Remove(filepath.Join(dir, "runtime.log")))
	_, err := w.Log(project, "c1", "../c1/shim.log")
	wantErr(t, err, errs.NotFoundClass, "not found")
	must(t, os.WriteFile(filepath.Join(dir, "lxc.log"), make([]byte, 300<<10), 0o600))
	must(t, do(t, w, "c1", "start"))
	if got := read("lxc.log"); len(got) > 1000 || !strings.Contains(got, "msg=started") {
		t.Errorf("after a long story: %d bytes", len(got))
	}
	must(t, do(t, w, "c1", "stop"))
	names, err := w.Logs(project, "c1")
	must(t, err)
	if !slices.Equal(names, []string{"lxc.log", "lxc.log.old", "shim.log"}) {
		t.Errorf("logs %v", names)
	}
}

// Blocks of user ids never overlap, and when all are lent the error says so and leaves nothing.
func TestUserIDs(t *testing.T) {
	w := instancetest.New(t, func(d *instance.Deps) { d.IDMaps = idmap.Range{Base: 200_000, Size: 2*idmap.BlockSize + 1} })
	create(t, w, "c1")
	create(t, w, "c2")
	if a, b := get(t, w, "c1").Config["volatile.idmap.base"], get(t, w, "c2").Config["volatile.idmap.base"]; a != "200000" || b != "265536" {
		t.Errorf("blocks at %s and %s", a, b)
	}
	spec, err := w.Create(t.Context(), project, api.InstancesPost{Name: "c3", Source: api.InstanceSource{Type: "image", Alias: "img"}})
	wantErr(t, w.Run(t, spec, err), errs.NoSpaceClass, "all 2 blocks of 65536 ids in 200000:131073 are in use")
	create(t, w, "c4", func(r *api.InstancesPost) { r.Config = api.Config{"security.privileged": "true"} })
	spec, err = w.Delete(t.Context(), project, "c1")
	must(t, w.Run(t, spec, err))
	create(t, w, "c3")
	if got := get(t, w, "c3").Config["volatile.idmap.base"]; got != "200000" {
		t.Errorf("block at %s", got)
	}
}

// Other limits of a NIC change the link that is there: connections go on. A change that fails is taken back.
func TestNICLimitsLive(t *testing.T) {
	w := instancetest.New(t)
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	host := get(t, w, "c1").Config["volatile.eth0.host_name"]
	set := func(rate string) error {
		return update(t, w, "c1", func(p *api.InstancePut) {
			p.Devices["eth0"] = nicWith("")
			p.Devices["eth0"]["limits.max"] = rate
		})
	}
	w.Host.Fail("Detach", errs.Unavailable("the link must stay"))
	must(t, set("10Mbit"))
	must(t, set("20Mbit"))
	nics := w.Host.Attached(project, instanceName(t, "c1"))
	if len(nics) != 1 || nics[0].Ingress != 20e6 || nics[0].Egress != 20e6 || nics[0].HostName != host {
		t.Errorf("attached: %+v", nics)
	}
	wantErr(t, set("20MB"), errs.InvalidInput, `limits.max: invalid rate "20MB"`)
	if got := get(t, w, "c1").Devices["eth0"]["limits.max"]; got != "20Mbit" {
		t.Errorf("the record has %q", got)
	}
	w.Host.Fail("Detach", nil)
}
