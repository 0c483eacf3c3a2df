package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// lxdKeys are all keys of LXD 5.0 by the types that have them.
const lxdKeys = `boot.autostart boot.autostart.delay boot.autostart.priority boot.stop.priority boot.host_shutdown_timeout
	cloud-init.network-config cloud-init.user-data cloud-init.vendor-data cluster.evacuate environment.A user.a user.network-config user.user-data
	limits.cpu limits.disk.priority limits.memory limits.network.priority migration.stateful raw.apparmor raw.idmap
	security.protection.delete snapshots.schedule snapshots.schedule.stopped snapshots.pattern snapshots.expiry image.os image.requirements.secureboot
	volatile.apply_template volatile.apply_quota volatile.apply_nvram volatile.base_image volatile.cloud-init.instance-id volatile.evacuate.origin
	volatile.idmap.base volatile.idmap.current volatile.idmap.next volatile.last_state.idmap volatile.last_state.power volatile.last_state.ready
	volatile.uuid volatile.uuid.generation volatile.vsock_id volatile.eth0.hwaddr volatile.eth0.name volatile.eth0.host_name volatile.root.apply_quota
	volatile.eth0.last_state.created volatile.eth0.last_state.mtu volatile.eth0.last_state.vf.id volatile.a.b.hwaddr volatile.a.b.last_state.pci.slot.name
	volatile.d.ceph_rbd volatile.gpu0.mig.uuid volatile.gpu0.vgpu.uuid`

const containerKeys = `linux.kernel_modules linux.sysctl.net.ipv4.ip_forward limits.cpu.allowance limits.cpu.priority limits.processes
	limits.hugepages.64KB limits.hugepages.1MB limits.hugepages.2MB limits.hugepages.1GB limits.memory.enforce limits.memory.swap
	limits.memory.swap.priority limits.kernel.as limits.kernel.core limits.kernel.cpu limits.kernel.data limits.kernel.fsize limits.kernel.locks
	limits.kernel.memlock limits.kernel.nice limits.kernel.nofile limits.kernel.nproc limits.kernel.rtprio limits.kernel.sigpending
	migration.incremental.memory migration.incremental.memory.goal migration.incremental.memory.iterations
	nvidia.runtime nvidia.driver.capabilities nvidia.require.cuda nvidia.require.driver raw.lxc raw.seccomp
	security.devlxd security.devlxd.images security.idmap.base security.idmap.isolated security.idmap.size security.nesting security.privileged
	security.protection.shift security.syscalls.allow security.syscalls.deny security.syscalls.deny_compat security.syscalls.deny_default
	security.syscalls.blacklist security.syscalls.whitelist security.syscalls.blacklist_default security.syscalls.blacklist_compat
	security.syscalls.intercept.bpf security.syscalls.intercept.bpf.devices security.syscalls.intercept.mknod security.syscalls.intercept.mount
	security.syscalls.intercept.mount.allowed security.syscalls.intercept.mount.fuse security.syscalls.intercept.mount.shift
	security.syscalls.intercept.sched_setscheduler security.syscalls.intercept.setxattr`

const vmKeys = `limits.memory.hugepages security.agent.metrics security.secureboot raw.qemu raw.qemu.conf agent.nic_config`

func TestEveryKeyIsKnown(t *testing.T) {
	for _, set := range []struct {
		keys   string
		scopes []string
	}{
		{lxdKeys, []string{api.TypeContainer, api.TypeVirtualMachine, config.Any}},
		{containerKeys, []string{api.TypeContainer, config.Any}},
		{vmKeys, []string{api.TypeVirtualMachine, config.Any}},
	} {
		for _, name := range strings.Fields(set.keys) {
			for _, scope := range set.scopes {
				if _, ok := config.Find(name, scope); !ok {
					t.Errorf("%s is not known for %q", name, scope)
				}
			}
			for _, other := range []string{api.TypeContainer, api.TypeVirtualMachine} {
				if _, ok := config.Find(name, other); ok && len(set.scopes) == 2 && set.scopes[0] != other {
					t.Errorf("%s is known for %q", name, other)
				}
			}
		}
	}
	for _, name := range []string{"", "foo", "limits", "limits.kernel.foo", "limits.cpu.", "user.", "volatile.", "volatile.foo", "volatile.eth0.foo", "security.syscalls.foo", "boot"} {
		err := config.Check(api.Config{name: "1"}, config.Any, true)
		if err == nil || err.Error() != "Unknown configuration key: "+name {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestEveryKeyIsDescribed(t *testing.T) {
	for _, k := range config.Keys() {
		if k.Doc == "" || k.Type.Name == "" {
			t.Errorf("%s has no description", k.Name)
		}
		if k.Planned && k.Live {
			t.Errorf("%s is not implemented, but live", k.Name)
		}
		for _, v := range k.Neutral {
			if err := config.Check(api.Config{strings.ReplaceAll(k.Name, "*", "x"): v}, config.Any, false); err != nil {
				t.Errorf("neutral value: %v", err)
			}
		}
	}
}

func TestValues(t *testing.T) {
	const ok = ""
	for _, tt := range []struct{ key, value, want string }{
		{"boot.autostart", "on", ok}, {"boot.autostart", "maybe", "true or false"}, {"boot.autostart", "", ok},
		{"boot.autostart.delay", "3", ok}, {"boot.autostart.delay", "-1", "whole number from 0"},
		{"cluster.evacuate", "stop", ok}, {"cluster.evacuate", "x", "auto, migrate, live-migrate, stop"},
		{"limits.cpu", "2", ok}, {"limits.cpu", "0-3,7", ok}, {"limits.cpu", "0", "at least 1"}, {"limits.cpu", "3-1", "a set such as"}, {"limits.cpu", "99999", "a set such as"},
		{"limits.cpu.allowance", "50%", ok}, {"limits.cpu.allowance", "25ms/100ms", ok}, {"limits.cpu.allowance", "200ms/100ms", ok},
		{"limits.cpu.allowance", "0%", "1% to 100%"}, {"limits.cpu.allowance", "101%", "1% to 100%"}, {"limits.cpu.allowance", "25/100", "25ms/100ms"}, {"limits.cpu.allowance", "1ms/0ms", "period"},
		{"limits.cpu.priority", "0", ok}, {"limits.cpu.priority", "11", "from 0 to 10"},
		{"limits.memory", "512MiB", ok}, {"limits.memory", "50%", ok}, {"limits.memory", "12", "at least 1MiB"}, {"limits.memory", "lots", "invalid size"},
		{"limits.memory", "101%", "1% to 100%"}, {"limits.memory", "99999999999EiB", "too large"}, {"limits.memory", "-1", "invalid size"},
		{"limits.processes", "100", ok}, {"limits.processes", "1.5", "whole number"},
		{"snapshots.expiry", "1d 2H", ok}, {"snapshots.expiry", "soon", "invalid expiry"},
		{"snapshots.schedule", "@daily", ok},
		{"snapshots.schedule", "@often", "allowed"},
		{"snapshots.pattern", "%d%d", "may be there once"},
		{"user.x", "several\nlines", ok}, {"environment.A", "x\x00", "without NUL"}, {"user.x", "\xff", "UTF-8"},
		{"limits.memory.swap", "TRUE", ok}, {"limits.memory.swap", "false", `not supported yet (only "true"`},
		{"raw.lxc", "lxc.apparmor.profile=unconfined", "not supported yet"}, {"volatile.uuid", "x", "Unknown configuration key: volatile.uuid"},
		{"user.a b", "x", "Unknown configuration key: user.a b"}, {"environment.A=B", "x", "Unknown configuration key"},
	} {
		err := config.Check(api.Config{tt.key: tt.value}, api.TypeContainer, false)
		switch {
		case tt.want == ok && err != nil:
			t.Errorf("%s=%q: %v", tt.key, tt.value, err)
		case tt.want != ok && (err == nil || !strings.Contains(err.Error(), tt.want) || errs.ClassOf(err) == errs.Internal):
			t.Errorf("%s=%q: got %v (%v), want %q", tt.key, tt.value, err, errs.ClassOf(err), tt.want)
		}
	}
}

func TestLimits(t *testing.T) {
	host := config.Host{MemoryBytes: 8 << 30, CPUs: []int{0, 1, 2, 3}}
	for _, tt := range []struct {
		name string
		cfg  api.Config
		want driver.Limits
	}{
		{"none", nil, driver.Limits{}},
		{"memory", api.Config{"limits.memory": "1GiB"}, driver.Limits{MemoryBytes: 1 << 30}},
		{"memory, part", api.Config{"limits.memory": "25%"}, driver.Limits{MemoryBytes: 2 << 30}},
		{"share", api.Config{"limits.cpu.allowance": "50%"}, driver.Limits{CPUShares: 524}},
		{"whole share", api.Config{"limits.cpu.allowance": "100%"}, driver.Limits{CPUShares: 1024}},
		{"hard", api.Config{"limits.cpu.allowance": "25ms/100ms"}, driver.Limits{CPUShares: 1024, CPUQuota: 25 * time.Millisecond, CPUPeriod: 100 * time.Millisecond}},
		{"priority", api.Config{"limits.cpu.priority": "3"}, driver.Limits{CPUShares: 1017}},
		{"least", api.Config{"limits.cpu.priority": "0", "limits.cpu.allowance": "1%"}, driver.Limits{CPUShares: 24}},
		{"set", api.Config{"limits.cpu": "1,3"}, driver.Limits{CPUs: "1,3"}},
		{"a number", api.Config{"limits.cpu": "2"}, driver.Limits{CPUs: "0,2"}},
		{"processes", api.Config{"limits.processes": "100"}, driver.Limits{Processes: 100}},
	} {
		got, err := config.Limits(tt.cfg, []int{0, 2}, host)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v %v, want %+v", tt.name, got, err, tt.want)
		}
	}
	if l, err := config.Limits(api.Config{"limits.cpu": "9"}, host.CPUs, host); err != nil || l.CPUs != "" {
		t.Errorf("more CPUs than there are: %q %v", l.CPUs, err)
	}
	if _, err := config.Limits(api.Config{"limits.cpu": "9-10"}, nil, host); err == nil || !strings.Contains(err.Error(), "no CPU 9 (it has 0,1,2,3)") {
		t.Errorf("a CPU that is not there: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("limits.cpu", "0-3,7")
	f.Add("limits.cpu.allowance", "25ms/100ms")
	f.Add("volatile.a.b.last_state.x", "1")
	f.Fuzz(func(t *testing.T, name, value string) {
		if err := config.Check(api.Config{name: value}, config.Any, true); err != nil {
			if errs.ClassOf(err) == errs.Internal {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		if strings.HasPrefix(name, "limits.cpu") || name == "limits.memory" {
			l, err := config.Limits(api.Config{name: value}, []int{0}, config.Host{MemoryBytes: 1 << 40, CPUs: []int{0}})
			if err != nil && name != "limits.cpu" || l.MemoryBytes < 0 || l.CPUQuota < 0 {
				t.Fatalf("%s=%q was accepted: %+v %v", name, value, l, err)
			}
		}
	})
}

func FuzzParseDevices(f *testing.F) {
	f.Add("eth0", "nic", "network", "br0", "ipv4.address", "10.0.0.9")
	f.Add("root", "disk", "path", "/", "size", "10GiB")
	f.Add("d", "disk", "source", "/srv", "path", "/x/../y")
	f.Fuzz(func(t *testing.T, name, typ, k1, v1, k2, v2 string) {
		d, err := config.ParseDevices(api.Devices{name: {"type": typ, k1: v1, k2: v2, "pool": "default"}})
		if err != nil {
			if errs.ClassOf(err) == errs.Internal {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		for _, disk := range d.Disks {
			if !strings.HasPrefix(disk.Path, "/") || strings.Contains(disk.Path+"/", "/../") || strings.ContainsAny(disk.Path+disk.Source, "\x00") {
				t.Fatalf("accepted: %+v", disk)
			}
		}
		if d.Root != nil && d.Root.Size < 0 {
			t.Fatalf("accepted: %+v", *d.Root)
		}
	})
}

func FuzzParseCPUSet(f *testing.F) {
	f.Add("0-3,7")
	f.Fuzz(func(t *testing.T, v string) {
		set, err := config.ParseCPUSet(v)
		if err == nil && (len(set) == 0 || len(set) > 4096 || set[0] < 0) {
			t.Fatalf("%q: %d CPUs", v, len(set))
		}
	})
}

// TestNICRates: limits.max stands for both directions.
func TestNICRates(t *testing.T) {
	for _, tt := range []struct {
		opts            []string
		ingress, egress int64
		want            string
	}{
		{nil, 0, 0, ""},
		{[]string{"limits.ingress", "100Mbit"}, 100e6, 0, ""},
		{[]string{"limits.egress", "1Gbit", "limits.ingress", "1000"}, 1000, 1e9, ""},
		{[]string{"limits.max", "20Mbit", "limits.egress", "1Gbit"}, 20e6, 20e6, ""},
		{[]string{"limits.ingress", "100MB"}, 0, 0, `device "eth0": limits.ingress: invalid rate "100MB": allowed is`},
		{[]string{"limits.egress", "-1"}, 0, 0, `limits.egress: invalid rate "-1"`},
		{[]string{"limits.max", "0"}, 0, 0, `limits.max "0" must be 1kbit–400Gbit`},
		{[]string{"limits.max", "9Tbit"}, 0, 0, `limits.max "9Tbit" must be 1kbit–400Gbit`},
		{[]string{"limits.priority", "3"}, 0, 0, `option "limits.priority" is not supported yet`},
	} {
		dev := map[string]string{"type": "nic", "network": "br0"}
		for i := 0; i < len(tt.opts); i += 2 {
			dev[tt.opts[i]] = tt.opts[i+1]
		}
		d, err := config.ParseDevices(api.Devices{"eth0": dev})
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) || errs.ClassOf(err) == errs.Internal {
				t.Errorf("%v: %v, want %q", tt.opts, err, tt.want)
			}
			continue
		}
		if err != nil || d.NICs[0].Ingress != tt.ingress || d.NICs[0].Egress != tt.egress {
			t.Errorf("%v: %+v %v", tt.opts, d.NICs, err)
		}
	}
}
