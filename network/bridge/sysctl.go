package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const sysctlRoot = "/proc/sys/net/"

// writeSysctl sets a switch below net/ of this process's network namespace. Writing what is there already is left out, so
// that a read-only /proc with the right values is good enough. IPv6 switches of a kernel without IPv6 are nobody's loss.
func writeSysctl(key, val string) error {
	path := sysctlRoot + key
	have, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(key, "ipv6/") {
		return nil
	}
	if err == nil && strings.TrimSpace(string(have)) == val {
		return nil
	}
	if err := os.WriteFile(path, []byte(val), 0); err != nil {
		return fmt.Errorf("set net/%s to %s: %w", key, val, err)
	}
	return nil
}

// Forward turns on the forwarding of packets between interfaces. A host that got its IPv6 routes from router
// advertisements would forget them when it becomes a router, so its interfaces are told to go on listening first.
func (h *Host) Forward(v4, v6 bool) error {
	if v4 {
		if err := writeSysctl("ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	if !v6 {
		return nil
	}
	all, err := filepath.Glob(sysctlRoot + "ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != "1" {
			continue
		}
		if err := writeSysctl(strings.TrimPrefix(path, sysctlRoot), "2"); err != nil {
			return err
		}
	}
	return writeSysctl("ipv6/conf/all/forwarding", "1")
}

// IPv6 reports whether this kernel has IPv6.
func (h *Host) IPv6() bool {
	_, err := os.Stat(sysctlRoot + "ipv6")
	return err == nil
}

// linksOf returns the names of the interfaces in the network namespace of pid.
func linksOf(pid int) (map[string]bool, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, _, ok := strings.Cut(s.Text(), ":"); ok {
			out[strings.TrimSpace(name)] = true
		}
	}
	return out, nil
}
