package checkworld_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/test/checkworld"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// alone gives the test's thread a network and mounts of its own; the thread ends with the test.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWNET))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// cgroupDir is where a driver would make a group for an instance.
func cgroupDir(t *testing.T, dir, id string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(filepath.Join(dir, "instances", id)))
	leaf := filepath.Join("shoal", id+"."+hex.EncodeToString(sum[:4]))
	for _, base := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		if err := os.MkdirAll(filepath.Join(base, leaf), 0o755); err == nil {
			return filepath.Join(base, leaf)
		}
	}
	t.Skip("no cgroup can be made on this host")
	return ""
}

// links returns the interfaces that the thread sees.
func links(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	must(t, err)
	out := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = true
		}
	}
	return out
}

// Whatever a daemon may leave behind is seen and named; without it, nothing is.
func TestPlantedLeftovers(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("losetup"), testring.Binary("ip"))
	const id = "7f1c"
	for _, tt := range []struct {
		name  string
		plant func(t *testing.T, dir string) (remove func())
		want  string // a part of what is reported; DIR stands for the directory
	}{
		{"mount", func(t *testing.T, dir string) func() {
			target := filepath.Join(dir, "pools/default/x")
			must(t, os.MkdirAll(target, 0o700))
			must(t, unix.Mount("tmpfs", target, "tmpfs", 0, ""))
			return func() { must(t, unix.Unmount(target, 0)) }
		}, "mount DIR/pools/default/x"},
		{"loop device", func(t *testing.T, dir string) func() {
			file := filepath.Join(dir, "pool.img")
			must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
			dev := command(t, "losetup", "-f", "--show", file)
			return func() { command(t, "losetup", "-d", dev) }
		}, "on DIR/pool.img"},
		{"process", func(t *testing.T, dir string) func() {
			c := exec.Command("sh", "-c", "read x", filepath.Join(dir, "instances", id, "shim"))
			in, err := c.StdinPipe()
			must(t, err)
			must(t, c.Start())
			return func() { _ = in.Close(); _ = c.Wait() }
		}, "process "},
		{"cgroup", func(t *testing.T, dir string) func() {
			group := cgroupDir(t, dir, id)
			return func() { must(t, os.Remove(group)); _ = os.Remove(filepath.Dir(group)) }
		}, "cgroup /sys/fs/cgroup"},
		{"interface", func(t *testing.T, _ string) func() {
			command(t, "ip", "link", "add", "vethleft", "type", "bridge")
			return func() { command(t, "ip", "link", "del", "vethleft") }
		}, "interface vethleft"},
		{"directory of no instance", func(t *testing.T, dir string) func() {
			must(t, os.Mkdir(filepath.Join(dir, "instances/other"), 0o700))
			return func() { must(t, os.Remove(filepath.Join(dir, "instances/other"))) }
		}, "directory instances/other has no record"},
		{"logs of no instance", func(t *testing.T, dir string) func() {
			must(t, os.Mkdir(filepath.Join(dir, "logs/other"), 0o700))
			return func() { must(t, os.Remove(filepath.Join(dir, "logs/other"))) }
		}, "directory logs/other has no record"},
		{"image", func(t *testing.T, dir string) func() {
			must(t, os.Mkdir(filepath.Join(dir, "images/aaaa"), 0o700))
			return func() { must(t, os.Remove(filepath.Join(dir, "images/aaaa"))) }
		}, "images/aaaa has no record"},
		{"volume", func(t *testing.T, dir string) func() {
			must(t, os.Mkdir(filepath.Join(dir, "storage-pools/default/containers/c2"), 0o700))
			return func() { must(t, os.Remove(filepath.Join(dir, "storage-pools/default/containers/c2"))) }
		}, "storage-pools/default/containers/c2 has no record"},
		{"volume that was not finished", func(t *testing.T, dir string) func() {
			must(t, os.MkdirAll(filepath.Join(dir, "storage-pools/default/.new/x"), 0o700))
			return func() { must(t, os.RemoveAll(filepath.Join(dir, "storage-pools/default/.new"))) }
		}, "storage-pools/default/.new/x has no record"},
		{"record without a directory", func(t *testing.T, dir string) func() {
			must(t, os.Remove(filepath.Join(dir, "instances", id)))
			return func() { must(t, os.Mkdir(filepath.Join(dir, "instances", id), 0o700)) }
		}, "instance c1 has no directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			alone(t)
			dir := t.TempDir()
			for _, d := range []string{"instances/" + id, "logs/c1", "images", "disks", "storage-pools/default/containers/c1"} {
				must(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
			}
			here := links(t) // tunnels that every network namespace begins with
			o := checkworld.Options{Dir: dir, Instances: map[string]checkworld.Instance{id: {LogDir: "c1"}}, Links: func(n string) bool { return here[n] },
				Images: []string{}, Pools: map[string][]string{"default": {"containers/c1"}}}
			if p := checkworld.Problems(o); len(p) != 0 {
				t.Fatalf("of a world in order: %v", p)
			}
			remove := tt.plant(t, dir)
			found := checkworld.Problems(o)
			remove()
			want := strings.ReplaceAll(tt.want, "DIR", dir)
			if len(found) != 1 || !strings.Contains(found[0], want) {
				t.Errorf("found %v, want %q", found, want)
			}
			checkworld.Check(t, o)
		})
	}
}
