package machine_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/oci"
)

const bareMeta = "architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: busybox}\n"

// create makes the instance without starting it.
func create(t *testing.T, m *Machine, name string, put api.InstancePut) {
	t.Helper()
	m.Run(t, &Handle{})(m.Instances.Create(t.Context(), project, api.InstancesPost{Name: name, InstancePut: put, Source: api.InstanceSource{Type: "image", Alias: "img"}}))
}

func change(t *testing.T, m *Machine, name string, cfg api.Config) {
	t.Helper()
	inst, _, err := m.Instances.Get(project, name)
	must(t, err)
	put := inst.InstancePut
	for k, v := range cfg {
		put.Config[k] = v
	}
	m.Run(t, &Handle{})(m.Instances.Update(t.Context(), project, name, put, nil))
}

// TestDiskDevices shows paths of the host inside, with and without the guest's ids, and refuses what cannot be.
func TestDiskDevices(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), bareMeta, nil)
	share := t.TempDir()
	must(t, os.WriteFile(filepath.Join(share, "mine"), []byte("of root\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(share, "open"), []byte("of all\n"), 0o644))
	disk := func(path string, opts ...string) map[string]string {
		d := map[string]string{"type": "disk", "path": path, "source": share}
		for i := 0; i < len(opts); i += 2 {
			d[opts[i]] = opts[i+1]
		}
		return d
	}
	create(t, m, "c1", api.InstancePut{Devices: api.Devices{
		"plain": disk("/plain"), "ro": disk("/mnt/ro", "readonly", "true", "shift", "true"), "shifted": disk("/mnt/rw", "shift", "true"),
		"maybe": disk("/maybe", "source", "/nonexistent/x", "required", "false"),
	}})
	power(t, m, "c1", "start", false)
	for _, tt := range []struct{ name, cmd, want string }{
		{"plain, everyone's file", "cat /plain/open", "of all"},
		{"plain, root's file", "cat /plain/mine 2>/dev/null || echo refused", "refused"},
		{"plain, writing", "echo x 2>/dev/null > /plain/new || echo refused", "refused"},
		{"shifted", "cat /mnt/rw/mine && echo x > /mnt/rw/new && echo written", "of root\nwritten"},
		{"read-only, reading", "cat /mnt/ro/mine", "of root"},
		{"read-only, writing", "echo x 2>/dev/null > /mnt/ro/y || echo refused", "refused"},
		{"optional source that is missing", "ls -d /maybe 2>/dev/null || echo none", "none"},
	} {
		if _, out := execIn(t, m, "c1", "sh", "-c", tt.cmd); out != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, out, tt.want)
		}
	}
	st, err := os.Stat(filepath.Join(share, "new"))
	must(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("what the guest's root wrote through a shifted disk belongs to %d", uid)
	}
	inst, _, err := m.Instances.Get(project, "c1")
	must(t, err)
	put := inst.InstancePut
	put.Devices["more"] = disk("/more")
	spec, err := m.Instances.Update(t.Context(), project, "c1", put, nil)
	must(t, err)
	if err := spec.Run(t.Context(), &Handle{}); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("a disk for a running instance: %v", err)
	}
	power(t, m, "c1", "stop", true)
	create(t, m, "c2", api.InstancePut{Devices: api.Devices{"gone": disk("/x", "source", "/nonexistent/x")}})
	spec, err = m.Instances.SetState(t.Context(), project, "c2", api.InstanceStatePut{Action: "start"})
	must(t, err)
	if err := spec.Run(t.Context(), &Handle{}); err == nil || !strings.Contains(err.Error(), `Missing source path "/nonexistent/x" for disk "gone"`) {
		t.Errorf("a missing source: %v", err)
	}
	m.Check(t)
	remove(t, m, "c1")
	remove(t, m, "c2")
	m.Check(t)
}

// TestSecurity shows which ids instances run with, and what nesting opens.
func TestSecurity(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), bareMeta, nil)
	launch(t, m, "plain", nil)
	launch(t, m, "other", nil)
	launch(t, m, "nested", api.Config{"security.nesting": "true"})
	launch(t, m, "priv", api.Config{"security.privileged": "true"})
	bases := map[string]string{}
	for _, name := range []string{"plain", "other", "nested", "priv"} {
		_, out := execIn(t, m, name, "cat", "/proc/self/uid_map")
		f := strings.Fields(out)
		inst, _, err := m.Instances.Get(project, name)
		must(t, err)
		if len(f) != 3 || f[0] != "0" || f[1] != inst.Config["volatile.idmap.base"] {
			t.Errorf("%s: uid_map %q, recorded %s", name, out, inst.Config["volatile.idmap.base"])
			continue
		}
		if want := map[bool]string{true: "4294967295", false: "65536"}[name == "priv"]; f[2] != want {
			t.Errorf("%s: %s ids, want %s", name, f[2], want)
		}
		if other := bases[f[1]]; other != "" {
			t.Errorf("%s and %s share their ids", name, other)
		}
		bases[f[1]] = name
	}
	const inner = "busybox unshare -U -r -m -p -f busybox mount -t proc proc /tmp 2>/dev/null && echo yes || echo no"
	for name, want := range map[string]string{"plain": "no", "nested": "yes"} {
		if _, out := execIn(t, m, name, "sh", "-c", inner); out != want {
			t.Errorf("%s: a fresh proc for a container inside: %s, want %s", name, out, want)
		}
	}
	for _, name := range []string{"plain", "other", "nested", "priv"} {
		power(t, m, name, "stop", true)
	}
	// A block stays its instance's while that is privileged, and one that is given back is free for others.
	change(t, m, "other", api.Config{"security.privileged": "true"})
	remove(t, m, "plain")
	create(t, m, "next", api.InstancePut{})
	next, _, err := m.Instances.Get(project, "next")
	must(t, err)
	if got := bases[next.Config["volatile.idmap.base"]]; got != "plain" {
		t.Errorf("the next instance got the ids of %q", got)
	}
	for _, name := range []string{"other", "nested", "priv", "next"} {
		remove(t, m, name)
	}
	m.Check(t)
}

// cgroup reads a file of the instance's cgroup: the v1 name where the host has that controller, else v2's.
func cgroup(t *testing.T, m *Machine, name, controller, v1, v2 string) string {
	t.Helper()
	st, err := m.Instances.State(t.Context(), project, name)
	must(t, err)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", st.Pid))
	must(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	_, leaf, _ := strings.Cut(string(b), "/shoal/")
	leaf, _, _ = strings.Cut(leaf, "\n")
	groups, err := oci.ParseCgroups(string(b), string(mounts), leaf)
	must(t, err)
	file := filepath.Join(groups[""], v2)
	if dir, ok := groups[controller]; ok {
		file = filepath.Join(dir, v1)
	}
	b, err = os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("this host has no controller %s", controller)
	}
	must(t, err)
	return strings.TrimSpace(string(b))
}

// TestLimits reads from the kernel what limits.* asked for, at the start and after changes of the running instance.
func TestLimits(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), bareMeta, nil)
	launch(t, m, "c1", api.Config{"limits.memory": "96MiB", "limits.processes": "77", "limits.cpu": "0-0", "limits.cpu.allowance": "20ms/40ms"})
	var sys syscall.Sysinfo_t
	must(t, syscall.Sysinfo(&sys))
	total := int64(sys.Totalram) * int64(sys.Unit)
	page := int64(os.Getpagesize())
	check := func(when string, want map[string]string) {
		t.Helper()
		got := map[string]string{
			"memory": cgroup(t, m, "c1", "memory", "memory.limit_in_bytes", "memory.max"), "pids": cgroup(t, m, "c1", "pids", "pids.max", "pids.max"),
			"shares": cgroup(t, m, "c1", "cpu", "cpu.shares", "cpu.weight"), "cpus": cgroup(t, m, "c1", "cpuset", "cpuset.cpus", "cpuset.cpus"),
			"quota": cgroup(t, m, "c1", "cpu", "cpu.cfs_quota_us", "cpu.max"),
		}
		for k, v := range want {
			if got[k] != v && !(k == "quota" && strings.HasPrefix(got[k], v+" ")) {
				t.Errorf("%s: %s is %s, want %s", when, k, got[k], v)
			}
		}
	}
	shares := func(n uint64) string { // runc's conversion on v2
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
			return strconv.FormatUint(1+((n-2)*9999)/262142, 10)
		}
		return strconv.FormatUint(n, 10)
	}
	check("at the start", map[string]string{"memory": strconv.Itoa(96 << 20), "pids": "77", "cpus": "0", "quota": "20000", "shares": shares(1024)})
	change(t, m, "c1", api.Config{"limits.memory": "25%", "limits.processes": "55", "limits.cpu.allowance": "50%", "limits.cpu.priority": "4"})
	check("changed", map[string]string{"memory": strconv.FormatInt((total/100*25+total%100*25/100)/page*page, 10), "pids": "55", "shares": shares(518)})
	if q := cgroup(t, m, "c1", "cpu", "cpu.cfs_quota_us", "cpu.max"); q != "-1" && !strings.HasPrefix(q, "max") {
		t.Errorf("the hard limit that became a share is still %s", q)
	}
	change(t, m, "c1", api.Config{"limits.processes": "", "limits.cpu.allowance": "", "limits.cpu.priority": ""})
	check("taken away", map[string]string{"pids": "max", "shares": shares(1024)})
	power(t, m, "c1", "stop", true)
	remove(t, m, "c1")
	m.Check(t)
}

// TestRlimits asks init and a command what limits.kernel.* gave them; a change counts from the next start on.
func TestRlimits(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), bareMeta, nil)
	launch(t, m, "c1", api.Config{"limits.kernel.nofile": "300:400", "limits.kernel.core": "0", "limits.kernel.nproc": "77"})
	check := func(when string, want ...string) {
		t.Helper()
		for _, proc := range []string{"1", "self"} {
			_, out := execIn(t, m, "c1", "cat", "/proc/"+proc+"/limits")
			out = strings.Join(strings.Fields(out), " ")
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("%s: process %s has not %q: %s", when, proc, w, out)
				}
			}
		}
	}
	check("at the start", "Max open files 300 400 files", "Max core file size 0 0 bytes", "Max processes 77 77 processes")
	change(t, m, "c1", api.Config{"limits.kernel.nofile": "500"})
	check("changed", "Max open files 300 400 files")
	power(t, m, "c1", "stop", true)
	power(t, m, "c1", "start", false)
	check("started again", "Max open files 500 500 files")
	power(t, m, "c1", "stop", true)
	remove(t, m, "c1")
	m.Check(t)
}

// TestStaticAddress refuses addresses that cannot be had when they are written, and gives them free with their owner.
func TestStaticAddress(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), bareMeta, nil)
	with := func(addr string) api.InstancePut {
		return api.InstancePut{Devices: api.Devices{"eth0": {"type": "nic", "network": "br0", "name": "eth0", "ipv4.address": addr}}}
	}
	create(t, m, "c1", with("10.77.0.50"))
	for addr, want := range map[string]string{
		"10.77.0.50": "in use by br0/default/c1/eth0", "10.77.0.1": "is the router", "10.78.0.5": "not an address for hosts of network",
	} {
		spec, err := m.Instances.Create(t.Context(), project, api.InstancesPost{Name: "c2", InstancePut: with(addr), Source: api.InstanceSource{Type: "image", Alias: "img"}})
		must(t, err)
		if err := spec.Run(t.Context(), &Handle{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
	if n := m.Instances.Names(project); len(n) != 1 {
		t.Errorf("left: %v", n)
	}
	m.Check(t)
	power(t, m, "c1", "start", false)
	eventually(t, "the static address", func() bool {
		_, out := execIn(t, m, "c1", "ip", "-4", "addr", "show", "eth0")
		return strings.Contains(out, "10.77.0.50/")
	})
	power(t, m, "c1", "stop", true)
	remove(t, m, "c1")
	create(t, m, "c2", with("10.77.0.50"))
	remove(t, m, "c2")
	m.Check(t)
}
