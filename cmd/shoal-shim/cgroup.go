package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// hierarchy is a mounted cgroup hierarchy: the names of its controllers as /proc/PID/cgroup writes them ("" for v2).
type hierarchy struct {
	names string
	path  string // of the process, on the host
}

// cgroupsOf returns where pid is in the hierarchies that a guest's systemd manages: name=systemd and v2.
func cgroupsOf(pid int) ([]hierarchy, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		if mnt, ok := mounts[f[1]]; ok {
			out = append(out, hierarchy{f[1], filepath.Join(mnt, f[2])})
		}
	}
	return out, nil
}

// cgroupMounts returns mount points by name ("" for v2, "name=systemd").
func cgroupMounts() (map[string]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if !bytes.Contains(s.Bytes(), []byte(" - cgroup")) {
			continue
		}
		before, after, _ := strings.Cut(s.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) < 5 || len(a) < 3 || b[3] != "/" {
			continue
		}
		switch {
		case a[0] == "cgroup2":
			out[""] = b[4]
		case strings.Contains(a[2], "name=systemd"):
			out["name=systemd"] = b[4]
		}
	}
	return out, s.Err()
}

// delegate gives the guest's root the directories and files that its systemd needs to make groups of its own, and no others: the
// limits stay the host's.
func delegate(pid int, base, size uint32) error {
	if size == 0 {
		return nil // host root owns them already
	}
	hs, err := cgroupsOf(pid)
	if err != nil {
		return err
	}
	files := []string{"cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"}
	for _, h := range hs {
		if h.path == "/" {
			return fmt.Errorf("the container is in the root of hierarchy %q", h.names)
		}
		if err := os.Chown(h.path, int(base), int(base)); err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Chown(filepath.Join(h.path, f), int(base), int(base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// leaveCgroup moves us out of the daemon's service group, so that systemd neither counts nor ends us with it. Where it
// does not work we stay: KillMode=process in the unit spares us as well.
func leaveCgroup(group string) {
	if group == "" {
		return
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return
	}
	for _, mnt := range mounts {
		dir := filepath.Join(mnt, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
	}
}
