package fault_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/harness"
)

// TestRestart ends the daemon with SIGTERM, and through its API, and starts it again: nothing that runs notices.
func TestRestart(t *testing.T) {
	w := boot(t)
	keep := w.watch("keep")
	w.run("POST", "/1.0/instances", instance("rests", nil))
	for range 2 {
		w.must(w.Signal(syscall.SIGTERM))
		w.must(w.Ended())
		w.must(w.Start())
		keep.untouched()
		if s := w.status("rests"); s != "Stopped" {
			t.Errorf("an instance that was stopped is %s", s)
		}
		w.must(w.Stop())
		w.must(w.Start())
		keep.untouched()
	}
	keep.gapless()
	w.Check(t)
}

// started is the moment, in clock ticks, at which an instance's init was started.
func (w *world) started(name string) int {
	w.t.Helper()
	// The API counts in the daemon's namespace of processes.
	b, err := w.Inside("cat", fmt.Sprintf("/proc/%d/stat", w.state(name).Pid)).Output()
	w.must(err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	n, err := strconv.Atoi(fields[19])
	w.must(err)
	return n
}

// TestReboot is what a machine's sudden end leaves: no process, but the files of all of them, and interfaces and rules that
// nobody took down. What ran comes back, the most important first.
func TestReboot(t *testing.T) {
	w := boot(t)
	prio := map[string]int{"low": 1, "high": 10, "middle": 5}
	for name, p := range prio {
		w.launch(name, map[string]string{"boot.autostart.priority": strconv.Itoa(p)})
	}
	w.launch("always", map[string]string{"boot.autostart": "true"})
	w.power("always", "stop", true)
	w.launch("never", map[string]string{"boot.autostart": "false"})
	w.run("POST", "/1.0/instances", instance("rests", nil))

	w.must(w.Kill())
	w.killProcesses()
	w.must(w.Start())
	for _, name := range []string{"low", "high", "middle", "always"} {
		harness.Eventually(t, name+" runs again", func() bool { return w.status(name) == "Running" })
	}
	for _, name := range []string{"never", "rests"} {
		if s := w.status(name); s != "Stopped" {
			t.Errorf("%s is %s", name, s)
		}
	}
	names := []string{"low", "high", "middle"}
	slices.SortFunc(names, func(a, b string) int { return w.started(a) - w.started(b) })
	if want := []string{"high", "middle", "low"}; !slices.Equal(names, want) {
		t.Errorf("started in the order %v, want %v", names, want)
	}
	w.Check(t)
	if out, err := w.exec("high", "echo", "works"); err != nil || !strings.Contains(out, "works") {
		t.Errorf("exec: %v %s", err, out)
	}
	w.address("high")
}

// killProcesses kills all that runs for instances.
func (w *world) killProcesses() {
	w.t.Helper()
	harness.Eventually(w.t, "all processes of instances are gone", func() bool {
		pids := w.Guests()
		for pid, name := range w.Processes() {
			if !slices.Contains([]string{"sh", "cat", "unshare"}, name) {
				pids = append(pids, pid)
			}
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
}

// processOf finds the process of a program whose arguments name an instance's directory.
func (w *world) processOf(name, program string) (pids []int) {
	w.t.Helper()
	var i api.Instance
	w.Get(w.t, "/1.0/instances/"+name, &i)
	for pid := range w.Processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(args), program) && strings.Contains(string(args), i.Config["volatile.uuid"]) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestShimKilled kills the monitor of a container: the container goes on, can be stopped and starts again.
func TestShimKilled(t *testing.T) {
	for _, daemon := range []string{"runs", "is away"} {
		t.Run("while the daemon "+daemon, func(t *testing.T) {
			w := boot(t)
			keep := w.watch("keep")
			shims := w.processOf("keep", "shoal-shim")
			if len(shims) != 1 {
				t.Fatalf("shims %v", shims)
			}
			if daemon == "is away" {
				w.must(w.Kill())
			}
			w.must(syscall.Kill(shims[0], syscall.SIGKILL))
			if daemon == "is away" {
				w.must(w.Start())
			}
			if st := w.state("keep"); st.Status != "Running" || st.Pid != keep.pid {
				t.Errorf("without its shim: %s, PID %d, was %d", st.Status, st.Pid, keep.pid)
			}
			if out, err := w.Inside("busybox", "ping", "-c", "1", "-W", "5", keep.addr).CombinedOutput(); err != nil {
				t.Errorf("no answer: %s", out)
			}
			harness.Eventually(t, "commands are refused with the way out", func() bool {
				out, err := w.exec("keep", "true")
				return err != nil && strings.Contains(out, "restart")
			})
			w.Check(t)
			w.power("keep", "stop", true)
			w.Check(t)
			w.power("keep", "start", false)
			if _, err := w.exec("keep", "true"); err != nil {
				t.Error(err)
			}
			w.Check(t)
		})
	}
}

// TestInitKilled kills the container itself.
func TestInitKilled(t *testing.T) {
	w := boot(t)
	w.launch("c1", nil)
	if out, err := w.Inside("kill", "-9", strconv.FormatInt(w.state("c1").Pid, 10)).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	harness.Eventually(t, "it is stopped", func() bool { return w.status("c1") == "Stopped" })
	w.Check(t)
	w.power("c1", "start", false)
	w.Check(t)
}

// TestAgentKilled kills the server of files in an instance while it works.
func TestAgentKilled(t *testing.T) {
	w := boot(t)
	w.launch("c1", nil)
	big := filepath.Join(w.Dir, "big")
	w.must(os.WriteFile(big, make([]byte, 64<<20), 0o600))
	for _, power := range []string{"running", "stopped"} {
		if power == "stopped" {
			w.power("c1", "stop", true)
		}
		done := make(chan error, 1)
		go func() { _, err := w.Client("shoal", "file", "push", big, "c1/root/big"); done <- err }()
		killed := 0
		harness.Eventually(t, "the push has ended", func() bool {
			for _, pid := range w.Guests() {
				exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
				if strings.Contains(exe, "agent") && syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed++
				}
			}
			return len(done) == 1
		})
		if err := <-done; err == nil || killed == 0 {
			t.Errorf("%s: %d agents killed, and the push says %v", power, killed, err)
		}
		if out, err := w.Client("shoal", "file", "push", "/etc/hostname", "c1/root/small"); err != nil {
			t.Errorf("%s: the next push: %v %s", power, err, out)
		}
	}
	w.Check(t)
}

// TestRuntimeMissing starts the daemon on a host without a container runtime, beside a container that was started with one.
func TestRuntimeMissing(t *testing.T) {
	w := boot(t)
	keep := w.watch("keep")
	w.must(w.Stop())

	// The world has mounts of its own: only it has a runtime that nobody can execute.
	path, err := exec.LookPath("runc")
	w.must(err)
	nothing := filepath.Join(w.Dir, "nothing")
	w.must(os.WriteFile(nothing, nil, 0o600))
	w.must(w.Inside("mount", "--bind", nothing, path).Run())
	w.must(w.Start())
	out, err := w.Client("lxc", "info")
	w.must(err)
	if !strings.Contains(out, "runc") || !strings.Contains(out, "missing") {
		t.Errorf("info does not say that runc is missing:\n%s", out)
	}
	if st := w.state("keep"); st.Status != "Running" || st.Pid != keep.pid {
		t.Errorf("%s, PID %d, was %d", st.Status, st.Pid, keep.pid)
	}
	w.run("POST", "/1.0/instances", instance("c1", nil))
	_, err = w.Run("PUT", "/1.0/instances/c1/state", object{"action": "start"})
	if err == nil || !strings.Contains(err.Error(), `install the Debian package "runc"`) {
		t.Errorf("start without a runtime: %v", err)
	}
	if s := w.status("c1"); s != "Stopped" {
		t.Errorf("it is %s", s)
	}
	w.power("keep", "stop", true)
	w.Check(t)
	// Once it is installed, all goes well without a restart.
	w.must(w.Inside("umount", path).Run())
	w.power("c1", "start", false)
	w.power("keep", "start", false)
	w.Check(t)
}
