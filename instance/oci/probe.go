package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
)

// minimum is the oldest runtime that is accepted; older ones have known ways out of the container.
var minimum = [3]int{1, 1, 5}

// probe finds out what this host can do and fills info, facts and missing.
func (d *Driver) probe(ctx context.Context) error {
	var seccomp bool
	version, missing := d.runtimeVersion(ctx)
	if missing == nil {
		seccomp, missing = d.runtimeSeccomp(ctx)
	}
	name := d.cfg.Runtime + " " + version
	if missing != nil {
		// What runs already goes on, is watched and can be ended without a runtime.
		name = missing.Error()
	}
	layout, err := cgroupLayout()
	if err != nil {
		return err
	}
	kernel, err := d.probeKernel(ctx)
	if err != nil {
		return err
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.missing = missing
	d.facts = Facts{
		Layout: layout, Seccomp: seccomp, Caps: boundingSet(), NoFile: lim.Max, OOMAdjust: oomAdjust(), Arch: runtime.GOARCH,
		Devices: present("/dev/fuse", "/dev/net/tun"),
	}
	features := map[string]string{
		"cgroup":           layout,
		"seccomp":          strconv.FormatBool(seccomp),
		"user_namespaces":  strconv.FormatBool(userNamespaces()),
		"idmapped_overlay": kernel["idmapped_overlay"],
		"erofs":            kernel["erofs"],
		"erofs_file":       strconv.FormatBool(kernel["erofs"] == "true" && kernelAtLeast(6, 12)),
		"runtime":          name,
	}
	d.info = driver.Info{Name: "oci", Version: name, Type: api.TypeContainer, Features: features}
	return nil
}

// usable returns the facts, or [errs.Unsupported] when there is no runtime that could make a container. Whoever has installed
// one need not restart the daemon: it is looked for again.
func (d *Driver) usable(ctx context.Context) (Facts, error) {
	d.mu.Lock()
	facts, missing := d.facts, d.missing
	d.mu.Unlock()
	if missing == nil {
		return facts, nil
	}
	if err := d.probe(ctx); err != nil {
		return facts, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.facts, d.missing
}

func (d *Driver) runtimeVersion(ctx context.Context) (string, error) {
	res, err := d.cfg.Runner.Run(ctx, run.Command{Name: d.cfg.Runtime, Args: []string{"--version"}, Timeout: 10 * time.Second})
	if err != nil {
		return "", fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	version, err := ParseVersion(res.Stdout)
	if err != nil {
		return "", err
	}
	return version, CheckVersion(d.cfg.Runtime, version)
}

// ParseVersion reads the first line that a runtime prints for --version, such as "runc version 1.1.5+ds1".
func ParseVersion(out []byte) (string, error) {
	line, _, _ := bytes.Cut(out, []byte("\n"))
	f := strings.Fields(string(line))
	if len(f) < 3 || f[1] != "version" {
		return "", errs.Unsupported("the container runtime gives its version as %.80q", line)
	}
	return f[2], nil
}

// CheckVersion refuses a runtime older than the minimum. Runtimes other than runc count for themselves and are not judged.
func CheckVersion(name, version string) error {
	if !strings.HasSuffix(name, "runc") {
		return nil
	}
	core, _, _ := strings.Cut(version, "+")
	core, _, _ = strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	for i, want := range minimum {
		have := 0
		if i < len(parts) {
			n, err := strconv.Atoi(parts[i])
			if err != nil {
				return errs.Unsupported("%s has the version %.40q, which is not a number", name, version)
			}
			have = n
		}
		if have != want {
			if have > want {
				return nil
			}
			return errs.Unsupported("%s %s is too old: at least %d.%d.%d is needed; install the Debian package \"runc\"",
				name, version, minimum[0], minimum[1], minimum[2])
		}
	}
	return nil
}

func (d *Driver) runtimeSeccomp(ctx context.Context) (bool, error) {
	res, err := d.cfg.Runner.Run(ctx, run.Command{Name: d.cfg.Runtime, Args: []string{"features"}, Timeout: 10 * time.Second})
	if err != nil {
		return false, fmt.Errorf("ask the container runtime for its features: %w", err)
	}
	var f struct {
		Linux struct {
			Seccomp struct {
				Enabled bool `json:"enabled"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(res.Stdout, &f); err != nil {
		return false, errs.Unsupported("features of %s: %v", d.cfg.Runtime, err)
	}
	return f.Linux.Seccomp.Enabled, nil
}

// probeKernel has a shim try what a root needs, in its own mount namespace.
func (d *Driver) probeKernel(ctx context.Context) (map[string]string, error) {
	dir, err := os.MkdirTemp(d.cfg.Dir, "probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	res, err := d.cfg.Runner.Run(ctx, run.Command{
		Name: d.cfg.Shim, Args: []string{"probe", dir}, Timeout: 10 * time.Second,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS},
	})
	if err != nil {
		return nil, fmt.Errorf("try out mounts: %w", err)
	}
	out := map[string]string{}
	if err := json.Unmarshal(res.Stdout, &out); err != nil {
		return nil, fmt.Errorf("answer of the mount probe: %w", err)
	}
	return out, nil
}

func cgroupLayout() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	return Layout(string(b))
}

// Layout tells the cgroup layout from a mountinfo.
func Layout(mountinfo string) (string, error) {
	var v1, v2 bool
	for line := range strings.Lines(mountinfo) {
		_, after, ok := strings.Cut(line, " - ")
		if !ok {
			continue
		}
		switch typ, _, _ := strings.Cut(after, " "); typ {
		case "cgroup":
			v1 = true
		case "cgroup2":
			v2 = true
		}
	}
	switch {
	case v1 && v2:
		return LayoutHybrid, nil
	case v2:
		return LayoutV2, nil
	case v1:
		return LayoutV1, nil
	}
	return "", errs.Unsupported("no cgroup hierarchy is mounted on this host")
}

func boundingSet() uint64 {
	return statusMask("self", "CapBnd:")
}

// statusMask reads a hexadecimal mask from /proc/PID/status; 0 when there is none.
func statusMask(pid, field string) uint64 {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return n
		}
	}
	return 0
}

func oomAdjust() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func present(paths ...string) []string {
	var out []string
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func userNamespaces() bool {
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// inotifyInstances is how many inotify instances all containers of a host together may need: they are charged to the host's root, and
// with the kernel's default of 128 the twentieth systemd container comes up broken.
const inotifyInstances = 4096

func raiseInotify(log *slog.Logger) {
	const path = "/proc/sys/fs/inotify/max_user_instances"
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n >= inotifyInstances {
		return
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(inotifyInstances)), 0o644); err != nil {
		log.Warn("cannot raise the number of inotify instances; many containers will fail to boot", "sysctl", "fs.inotify.max_user_instances", "value", n, "err", err)
		return
	}
	log.Info("raised the number of inotify instances", "sysctl", "fs.inotify.max_user_instances", "from", n, "to", inotifyInstances)
}
