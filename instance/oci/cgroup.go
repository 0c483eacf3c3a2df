package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// Cgroups are an instance's directories by controller ("memory", "freezer", …, "" for v2).
type Cgroups map[string]string

// ParseCgroups joins a process's /proc/PID/cgroup with the host's mountinfo. leaf is the name of the instance's own group: the
// process may have gone further down, as systemd does, and what it finds there is not the instance's.
func ParseCgroups(procCgroup, mountinfo, leaf string) (Cgroups, error) {
	mounts := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 3 || b[3] != "/" {
			continue
		}
		switch a[0] {
		case "cgroup2":
			mounts[""] = b[4]
		case "cgroup":
			for o := range strings.SplitSeq(a[2], ",") {
				mounts[o] = b[4]
			}
		}
	}
	out := Cgroups{}
	for line := range strings.Lines(procCgroup) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("line %.80q of a process's cgroups", line)
		}
		path, ok := upTo(f[2], leaf)
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			if m, ok := mounts[name]; ok {
				out[name] = filepath.Join(m, path)
			}
		}
	}
	if len(out) == 0 {
		return nil, errs.NotFound("no cgroup with the name %q", leaf)
	}
	return out, nil
}

// upTo cuts path after the component leaf.
func upTo(path, leaf string) (string, bool) {
	parts := strings.Split(path, "/")
	i := slices.Index(parts, leaf)
	if i < 0 || slices.Contains(parts, "..") {
		return "", false
	}
	return strings.Join(parts[:i+1], "/"), true
}

// cgroups finds the instance's groups from its init, once.
func (r *record) cgroups() (Cgroups, error) {
	r.groupsMu.Lock()
	defer r.groupsMu.Unlock()
	if r.groups == nil {
		c, err := r.findCgroups()
		if err != nil {
			return nil, err
		}
		r.groups = c
	}
	return r.groups, nil
}

func (r *record) findCgroups() (Cgroups, error) {
	proc, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.init.PID))
	if err != nil {
		return nil, errs.Invalid("Instance is not running")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return ParseCgroups(string(proc), string(mounts), cgroupLeaf(r.spec))
}

// removeCgroups removes what is left of an instance's groups when no process is left to ask: it looks below the known place in every
// hierarchy and below our own group there, because the memory hierarchy counts from the daemon's group. A process that is still in
// them, of a runtime that was cut off, is killed.
func removeCgroups(ctx context.Context, s driver.Spec) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dirs, err := groupDirs(s)
	for _, dir := range dirs {
		err = errors.Join(err, removeGroup(ctx, dir))
	}
	return err
}

// groupDirs are the places where groups of an instance may be.
func groupDirs(s driver.Spec) ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	bases := []string{"/"}
	for line := range strings.Lines(string(self)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			bases = append(bases, f[2])
		}
	}
	slices.Sort(bases)
	var dirs []string
	for line := range strings.Lines(string(mounts)) {
		before, after, ok := strings.Cut(line, " - cgroup")
		if b := strings.Fields(before); ok && after != "" && len(b) > 4 {
			for _, base := range slices.Compact(bases) {
				dirs = append(dirs, filepath.Join(b[4], base, cgroupPath(s)))
			}
		}
	}
	return dirs, nil
}

// killAll kills every process in the groups of an instance, those of commands that are just being started too.
func killAll(s driver.Spec) {
	dirs, _ := groupDirs(s)
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				killGroup(path)
			}
			return nil
		})
	}
}

// removeGroup removes a group and those below it; nil when there is none.
func removeGroup(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(ctx, filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		killGroup(dir)
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// killGroup kills the processes of a group, frozen ones too. It is asked again until they are gone.
func killGroup(dir string) {
	for file, thawed := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		if f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(thawed)
			_ = f.Close()
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		// 0 is a process outside our namespace of processes.
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// frozen reads whether the instance is frozen.
func (c Cgroups) frozen() (bool, error) {
	if dir, ok := c["freezer"]; ok {
		b, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return strings.TrimSpace(string(b)) == "FROZEN", err
	}
	b, err := os.ReadFile(filepath.Join(c[""], "cgroup.events"))
	if err != nil {
		return false, err
	}
	return field(string(b), "frozen") == 1, nil
}

// freeze writes the wanted state and waits until all processes have it.
func (c Cgroups) freeze(ctx context.Context, want bool) error {
	var path, word string
	switch dir, v1 := c["freezer"]; {
	case v1:
		path, word = filepath.Join(dir, "freezer.state"), map[bool]string{true: "FROZEN", false: "THAWED"}[want]
	case c[""] != "":
		path, word = filepath.Join(c[""], "cgroup.freeze"), map[bool]string{true: "1", false: "0"}[want]
	default:
		return errs.Unsupported("this host has no freezer cgroup")
	}
	wait := 50 * time.Microsecond // most are there at the first look
	for {
		// Written again each time: a process in the middle of a fork can make the v1 freezer give up half-way.
		if err := os.WriteFile(path, []byte(word), 0o644); err != nil {
			return fmt.Errorf("freezer: %w", err)
		}
		is, err := c.frozen()
		if err != nil {
			return fmt.Errorf("freezer: %w", err)
		}
		if is == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
			wait = min(2*wait, 10*time.Millisecond)
		}
	}
}

// cpus reads where the instance may run; empty when nothing was said or the host has no such controller.
func (c Cgroups) cpus() string {
	dir, ok := c["cpuset"]
	if !ok {
		dir = c[""]
	}
	b, _ := os.ReadFile(filepath.Join(dir, "cpuset.cpus"))
	return strings.TrimSpace(string(b))
}

// Stats reads the instance's resource use; what the host does not count stays zero.
func (c Cgroups) Stats() driver.Stats {
	var s driver.Stats
	if dir, ok := c["cpuacct"]; ok {
		s.CPU = time.Duration(number(dir, "cpuacct.usage"))
	} else if dir, ok := c[""]; ok {
		b, _ := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		s.CPU = time.Duration(field(string(b), "usage_usec")) * time.Microsecond
	}
	if dir, ok := c["memory"]; ok {
		s.Memory, s.MemoryPeak = number(dir, "memory.usage_in_bytes"), number(dir, "memory.max_usage_in_bytes")
		s.Swap = max(0, number(dir, "memory.memsw.usage_in_bytes")-s.Memory)
		s.SwapPeak = max(0, number(dir, "memory.memsw.max_usage_in_bytes")-s.MemoryPeak)
	} else if dir, ok := c[""]; ok {
		s.Memory, s.MemoryPeak = number(dir, "memory.current"), number(dir, "memory.peak")
		s.Swap, s.SwapPeak = number(dir, "memory.swap.current"), number(dir, "memory.swap.peak")
	}
	if dir, ok := c["pids"]; ok {
		s.Processes = number(dir, "pids.current")
	} else if dir, ok := c[""]; ok {
		s.Processes = number(dir, "pids.current")
	}
	return s
}

func number(dir, file string) int64 {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// field returns the number behind a name in a file of "name number" lines.
func field(text, name string) int64 {
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), " "); ok && k == name {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}
