package machine_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/testring"
)

const meta = `architecture: x86_64
creation_date: 1700000000
properties: {os: busybox, release: test}
templates:
  /etc/hostname: {when: [create, copy, rename], template: hostname.tpl}
`

// busyboxRoot is a system of busybox alone: init starts a script that asks DHCP for an address and counts.
func busyboxRoot(t *testing.T) string {
	t.Helper()
	testring.Need(t, 2, testring.Binary("busybox"))
	root := t.TempDir()
	must(t, os.Chmod(root, 0o755))
	for _, d := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "usr/share/udhcpc"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	bb, err := exec.LookPath("busybox")
	must(t, err)
	b, err := os.ReadFile(bb)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	for _, a := range []string{"sh", "ip", "udhcpc", "sleep", "cat", "echo", "ls", "id", "hostname", "kill", "touch", "wc"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", a)))
	}
	must(t, os.WriteFile(filepath.Join(root, "usr/share/udhcpc/default.script"), []byte("#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "sbin/init"), []byte(`#!/bin/sh
trap 'exit 0' PWR
hostname > /dev/console
ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -q -s /usr/share/udhcpc/default.script >/dev/null 2>&1 &
echo started > /dev/console
while :; do echo tick >> /counter; sleep 0.05; done
`), 0o755))
	return root
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s does not happen", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

var project = api.DefaultProject

func launch(t *testing.T, m *Machine, name string, cfg api.Config) {
	t.Helper()
	do := m.Run(t, &Handle{})
	do(m.Instances.Create(t.Context(), project, api.InstancesPost{Name: name, InstancePut: api.InstancePut{Config: cfg}, Source: api.InstanceSource{Type: "image", Alias: "img"}}))
	do(m.Instances.SetState(t.Context(), project, name, api.InstanceStatePut{Action: "start"}))
}

func power(t *testing.T, m *Machine, name, action string, force bool) {
	t.Helper()
	m.Run(t, &Handle{})(m.Instances.SetState(t.Context(), project, name, api.InstanceStatePut{Action: action, Timeout: 20, Force: force}))
}

// exec runs a command in the instance and returns its exit code and output.
func execIn(t *testing.T, m *Machine, name string, cmd ...string) (int, string) {
	t.Helper()
	h := &Handle{}
	spec, err := m.Instances.Exec(t.Context(), project, name, api.InstanceExecPost{Command: cmd, RecordOutput: true})
	must(t, err)
	_ = spec.Run(t.Context(), h)
	code, _ := h.Metadata["return"].(int)
	out := h.Metadata["output"].(map[string]string)
	r, err := m.Instances.Log(project, name, filepath.Base(out["1"]))
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	return code, strings.TrimSpace(string(b))
}

func remove(t *testing.T, m *Machine, name string) {
	t.Helper()
	m.Run(t, &Handle{})(m.Instances.Delete(t.Context(), project, name))
}

// TestContainer is the life of real containers on real storage, images and networks.
func TestContainer(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), meta, map[string]string{"hostname.tpl": "{{ container.name }}\n"})
	launch(t, m, "c1", nil)
	inst, _, err := m.Instances.Get(project, "c1")
	must(t, err)
	if inst.StatusCode != api.Running {
		t.Fatalf("status %v", inst.Status)
	}
	m.Check(t)

	if code, out := execIn(t, m, "c1", "sh", "-c", "cat /etc/hostname; hostname; id -u; exit 7"); code != 7 || out != "c1\nc1\n0" {
		t.Errorf("exec: %d %q", code, out)
	}
	eventually(t, "an address from DHCP", func() bool {
		st, err := m.Instances.State(t.Context(), project, "c1")
		must(t, err)
		return slices.ContainsFunc(st.Network["eth0"].Addresses, func(a api.InstanceStateNetworkAddress) bool {
			return a.Family == "inet" && strings.HasPrefix(a.Address, "10.77.0.")
		})
	})
	st, err := m.Instances.State(t.Context(), project, "c1")
	must(t, err)
	if st.Pid == 0 || st.Processes == 0 || st.Memory.Usage == 0 || st.CPU.Usage == 0 || st.Network["eth0"].HostName == "" || st.Disk["root"].Usage == 0 {
		t.Errorf("state %+v", st)
	}
	log, err := m.Instances.ConsoleLog(t.Context(), project, "c1")
	if err != nil || !strings.Contains(string(log), "started") {
		t.Errorf("console log %q %v", log, err)
	}
	files(t, m, "c1")

	// A daemon that ends and starts again leaves the guest alone.
	_, before := execIn(t, m, "c1", "wc", "-l", "/counter")
	m.Halt()
	m.Boot(t)
	after, _, err := m.Instances.GetFull(t.Context(), project, "c1")
	must(t, err)
	if after.StatusCode != api.Running || after.State.Pid != st.Pid {
		t.Fatalf("after a restart of the daemon: %s, pid %d, want %d", after.Status, after.State.Pid, st.Pid)
	}
	if _, now := execIn(t, m, "c1", "wc", "-l", "/counter"); now == before {
		t.Errorf("the counter stands still: %s", now)
	}
	m.Check(t)

	power(t, m, "c1", "freeze", false)
	power(t, m, "c1", "unfreeze", false)
	power(t, m, "c1", "restart", true)
	eventually(t, "the second start", func() bool { // before that init does not listen
		log, err := m.Instances.ConsoleLog(t.Context(), project, "c1")
		must(t, err)
		return strings.Count(string(log), "started") == 2
	})
	power(t, m, "c1", "stop", false)
	m.Check(t)
	files(t, m, "c1") // of a stopped instance
	m.Run(t, &Handle{})(m.Instances.Rename(t.Context(), project, "c1", api.InstancePost{Name: "c2"}))
	power(t, m, "c2", "start", false)
	if _, out := execIn(t, m, "c2", "cat", "/etc/hostname"); out != "c2" {
		t.Errorf("hostname after rename %q", out)
	}
	power(t, m, "c2", "stop", true)
	remove(t, m, "c2")
	m.Check(t)
}

// files pushes, reads and deletes, and meets what a guest may have planted.
func files(t *testing.T, m *Machine, name string) {
	t.Helper()
	f, err := m.Instances.Files(t.Context(), project, name)
	must(t, err)
	defer f.Close()
	mode, uid := uint32(0o4750), int64(33)
	must(t, f.Put(t.Context(), "/root/x", instance.FilePut{Content: strings.NewReader("hello"), Mode: &mode, UID: &uid}))
	must(t, f.Put(t.Context(), "root/x", instance.FilePut{Content: strings.NewReader(" world"), Append: true}))
	info, r, err := f.Get(t.Context(), "/root/../root/x")
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err)
	must(t, r.Close())
	if string(b) != "hello world" || info.UID != 33 || info.GID != 0 || info.Mode&0o777 != 0o750 || info.Type != "file" {
		t.Errorf("file %q %+v", b, info)
	}
	must(t, f.Put(t.Context(), "/root/evil", instance.FilePut{Type: "symlink", Content: strings.NewReader("/proc/sys/kernel/core_pattern")}))
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	if err := f.Put(t.Context(), "/root/evil", instance.FilePut{Content: strings.NewReader("|/bin/evil")}); err == nil {
		t.Error("the daemon wrote through a link to a setting of the host")
	}
	if after, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(after) != string(before) {
		t.Errorf("core_pattern is %q now", after)
	}
	must(t, f.Put(t.Context(), "/root/d", instance.FilePut{Type: "directory"}))
	must(t, f.Put(t.Context(), "/root/d", instance.FilePut{Type: "directory"}))
	if info, _, err := f.Get(t.Context(), "/root"); err != nil || !slices.Equal(info.Entries, []string{"d", "evil", "x"}) {
		t.Errorf("listing %v %v", info.Entries, err)
	}
	for _, p := range []string{"/root/d", "/root/evil", "/root/x"} {
		must(t, f.Delete(t.Context(), p))
	}
}

// TestLaunchTime prints how long a launch takes, from the request to init running, with the real database.
func TestLaunchTime(t *testing.T) {
	if !Isolate(t) {
		return
	}
	m := newMachine(t)
	m.ImportSquashfs(t, busyboxRoot(t), meta, map[string]string{"hostname.tpl": "{{ container.name }}\n"})
	launch(t, m, "warm", nil)
	var create, start, stop, del []time.Duration
	for range 10 {
		do := m.Run(t, &Handle{})
		t0 := time.Now()
		do(m.Instances.Create(t.Context(), project, api.InstancesPost{Name: "c1", Source: api.InstanceSource{Type: "image", Alias: "img"}}))
		t1 := time.Now()
		power(t, m, "c1", "start", false)
		t2 := time.Now()
		power(t, m, "c1", "stop", true)
		t3 := time.Now()
		remove(t, m, "c1")
		create, start = append(create, t1.Sub(t0)), append(start, t2.Sub(t1))
		stop, del = append(stop, t3.Sub(t2)), append(del, time.Since(t3))
	}
	for name, d := range map[string][]time.Duration{"create": create, "start": start, "stop --force": stop, "delete": del} {
		slices.Sort(d)
		t.Logf("%s: median %v, fastest %v", name, d[len(d)/2].Round(100*time.Microsecond), d[0].Round(100*time.Microsecond))
	}
	power(t, m, "warm", "stop", true)
	remove(t, m, "warm")
	m.Check(t)
}
