package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait of these tests.
const Patience = 10 * time.Second

// World is a daemon in namespaces of its own.
type World struct {
	Bin   string   // directory of our programs
	Dir   string   // everything of this world
	State string   // the daemon's directory
	Env   []string // more environment for the daemon
	// Mounts are mount points below State that the test made; Check does not ask for their records.
	Mounts []string
	Init   int // process that keeps the namespaces, in the host's numbers

	holder *exec.Cmd
	daemon *exec.Cmd
	pid    int // of the daemon, in the host's numbers
}

// holderScript keeps the namespaces and reaps orphans until its input ends, which it does with the test, also one that is
// killed. /sys has to be of the same network namespace.
const holderScript = `set -e
ip link set lo up
mkdir -p "$1/cg"
mount --rbind /sys/fs/cgroup "$1/cg"
mount -t sysfs sysfs /sys
mount --rbind "$1/cg" /sys/fs/cgroup
echo ready
cat`

// New makes a world without a daemon; it ends with the test, whatever happens.
func New(t testing.TB, bin string) *World {
	t.Helper()
	// Not in /tmp: the upper layer of an overlay cannot lie on another, which /tmp may be.
	dir, err := os.MkdirTemp("/var/tmp", "shoal-test-")
	if err != nil {
		t.Fatal(err)
	}
	w := &World{Bin: bin, Dir: dir, State: filepath.Join(dir, "state")}
	t.Cleanup(func() { w.close(t) })
	w.holder = exec.Command("unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", holderScript, "sh", dir)
	if _, err := w.holder.StdinPipe(); err != nil { // open as long as this process lives
		t.Fatal(err)
	}
	out, err := w.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	w.holder.Stderr = &stderr
	if err := w.holder.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "ready\n" {
		t.Fatalf("namespaces: %q %v %s", line[:n], err, stderr.String())
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.holder.Process.Pid, w.holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if w.Init, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		t.Fatal(err)
	}
	return w
}

// Inside makes a command that runs in the world's namespaces.
func (w *World) Inside(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(w.Init), "-n", "-m", "-p", "--"}, args...)...)
}

// Environ is what a client, or the daemon, needs to know of this world.
func (w *World) Environ() []string {
	return []string{"SHOAL_DIR=" + w.State, "LXD_DIR=" + w.State, "SHOAL_SOCKET=", "LXD_SOCKET=", "PATH=" + w.Bin + ":" + os.Getenv("PATH"), "HOME=" + w.Dir}
}

// LogFile is the daemon's log.
func (w *World) LogFile() string { return filepath.Join(w.Dir, "shoald.log") }

// Log is what the daemon has logged so far.
func (w *World) Log() string {
	b, _ := os.ReadFile(w.LogFile())
	return string(b)
}

// PID is the daemon's process, in the host's numbers.
func (w *World) PID() int { return w.pid }

// Launch starts the daemon and does not wait.
func (w *World) Launch() error {
	out, err := os.OpenFile(filepath.Join(w.Dir, "shoald.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	w.pid = 0
	w.daemon = w.Inside(filepath.Join(w.Bin, "shoald"), "--dir", w.State, "--debug", "--log-file", w.LogFile())
	w.daemon.Env = append(append(os.Environ(), w.Environ()...), w.Env...)
	w.daemon.Stdout, w.daemon.Stderr = out, out
	return w.daemon.Start()
}

// Start starts the daemon and waits until it serves everything.
func (w *World) Start() error {
	if err := w.Launch(); err != nil {
		return err
	}
	for deadline := time.Now().Add(3 * Patience); ; time.Sleep(5 * time.Millisecond) {
		r, err := w.Do("GET", "/internal/ready", nil)
		if err == nil && r.Code == 200 {
			return w.findPID()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon is not ready: %d %s, %w", r.Code, r.Error, err)
		}
	}
}

// findPID finds the daemon behind nsenter, which forks to enter the namespace of processes.
func (w *World) findPID() error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.daemon.Process.Pid, w.daemon.Process.Pid))
	if err != nil {
		return err
	}
	if w.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return fmt.Errorf("the daemon is not running: %w", err)
	}
	return nil
}

// Client runs a client, "lxc" or "shoal", and returns what it wrote on both its outputs.
func (w *World) Client(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*Patience)
	defer cancel()
	path := name
	if name == "shoal" {
		path = filepath.Join(w.Bin, name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), w.Environ()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Shoal runs our client, for the harness's own needs.
func (w *World) Shoal(args ...string) error {
	_, err := w.Client("shoal", args...)
	return err
}

// Stop ends the daemon as an administrator would.
func (w *World) Stop() error {
	if err := w.Shoal("admin", "shutdown", "--timeout", "20"); err != nil {
		return err
	}
	return w.Ended()
}

// Ended waits for the daemon's end; an error when that was not a clean one.
func (w *World) Ended() error {
	timer := time.AfterFunc(3*Patience, func() { _ = w.daemon.Process.Kill() })
	defer timer.Stop()
	return w.daemon.Wait()
}

// Signal sends the daemon a signal.
func (w *World) Signal(sig syscall.Signal) error {
	if w.pid == 0 {
		if err := w.findPID(); err != nil {
			return err
		}
	}
	return syscall.Kill(w.pid, sig)
}

// Kill ends the daemon as nobody should.
func (w *World) Kill() error {
	if err := w.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = w.daemon.Wait()
	return nil
}

// Processes are the processes in this world's namespace, in the host's numbers.
func (w *World) Processes() map[int]string {
	all := map[int]string{}
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", w.Init))
	if err != nil {
		return all
	}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range names {
		if ns, err := os.Readlink(p + "/ns/pid"); err != nil || ns != ours {
			continue
		}
		comm, _ := os.ReadFile(p + "/comm")
		pid, _ := strconv.Atoi(filepath.Base(p))
		all[pid] = strings.TrimSpace(string(comm))
	}
	return all
}

// Guests are the processes in this world's instances, in the host's numbers.
func (w *World) Guests() []int {
	var pids []int
	for _, g := range w.cgroups() {
		pids = append(pids, groupProcesses(strings.TrimPrefix(g, "control group "))...)
	}
	slices.Sort(pids) // with cgroup v1 a process is in a group of each controller
	return slices.Compact(pids)
}

// cgroups are the control groups of this world's instances: their names end with a hash of a directory of it.
func (w *World) cgroups() []string {
	hashes := map[string]bool{}
	_ = filepath.WalkDir(w.State, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			sum := sha256.Sum256([]byte(p))
			hashes[hex.EncodeToString(sum[:4])] = true
		}
		if strings.Count(strings.TrimPrefix(p, w.State), "/") > 4 {
			return fs.SkipDir
		}
		return nil
	})
	var found []string
	for _, n := range allGroups() {
		if hashes[n[strings.LastIndexByte(n, '.')+1:]] {
			found = append(found, "control group "+n)
		}
	}
	return found
}

// allGroups are the control groups of all daemons' instances on this host. The kernel's own files there have a dot too.
func allGroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/shoal/*.*", "/sys/fs/cgroup/shoal/*.*"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if st, err := os.Stat(n); err == nil && st.IsDir() {
				found = append(found, n)
			}
		}
	}
	return found
}

// staleAfter is how old a control group without processes must be to be of a test that was killed: one that is just
// being made is empty too.
const staleAfter = 10 * time.Minute

// sweepGroups removes what killed tests have left: a control group does not go with its namespaces.
func sweepGroups() {
	for _, g := range allGroups() {
		if st, err := os.Stat(g); err == nil && time.Since(st.ModTime()) > staleAfter && len(groupProcesses(g)) == 0 {
			removeGroups(g)
		}
	}
}

// groupProcesses are the processes in a control group and those below it, in the host's numbers.
func groupProcesses(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		b, _ := os.ReadFile(p)
		for line := range strings.Lines(string(b)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// close ends every process of the world, and with them its mounts and interfaces, and removes what is on disk.
func (w *World) close(t testing.TB) {
	groups := w.cgroups()
	if t.Failed() {
		for _, f := range []string{w.LogFile(), filepath.Join(w.Dir, "shoald.out")} {
			t.Logf("%s:\n%s", filepath.Base(f), tail(f))
		}
	}
	if w.Init > 0 {
		_ = syscall.Kill(w.Init, syscall.SIGKILL)
	}
	if w.daemon != nil {
		_ = w.daemon.Wait()
	}
	if w.holder.Process != nil {
		_ = w.holder.Process.Kill()
		_ = w.holder.Wait()
	}
	for _, g := range groups {
		removeGroups(strings.TrimPrefix(g, "control group "))
	}
	if err := os.RemoveAll(w.Dir); err != nil {
		t.Errorf("remove %s: %v", w.Dir, err)
	}
}

// tail is the end of a log, without what only says how the database writes.
func tail(file string) string {
	b, _ := os.ReadFile(file)
	var lines []string
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, `level=DEBUG msg="etcd: `) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// removeGroups removes an empty control group with those below it.
func removeGroups(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		_ = os.Remove(d)
	}
}
