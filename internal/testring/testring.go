// Package testring tells tests whether this machine can run them.
//
// Ring 1 runs everywhere. Ring 2 needs root and parts of the host: namespaces, loop devices, a container
// runtime. Ring 3 needs virtual machines. A test of ring 2 or 3 begins with [Need]; where something is missing it
// skips and says what. The environment variable SHOAL_RINGS lists the rings to run, "1" when unset; with
// SHOAL_STRICT=1 a missing need fails the test instead.
package testring

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A Requirement says why it is not met on this machine, "" when it is.
type Requirement func() string

// Root requires uid 0.
func Root() string {
	if os.Geteuid() != 0 {
		return "needs root"
	}
	return ""
}

// Binary requires a program on PATH.
func Binary(name string) Requirement {
	return func() string {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Sprintf("needs the program %q", name)
		}
		return ""
	}
}

// Filesystem requires that the kernel has a filesystem type, for example "btrfs" or "overlay".
func Filesystem(fstype string) Requirement {
	return func() string {
		b, err := os.ReadFile("/proc/filesystems")
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == fstype {
				return ""
			}
		}
		return fmt.Sprintf("needs the filesystem %q in the kernel", fstype)
	}
}

// Need skips t unless ring (2 or 3) was asked for and every requirement is met.
func Need(t testing.TB, ring int, reqs ...Requirement) {
	t.Helper()
	rings := os.Getenv("SHOAL_RINGS")
	if !strings.Contains(rings, fmt.Sprint(ring)) {
		t.Skipf("RING %d: not asked for (SHOAL_RINGS=%q)", ring, rings)
	}
	for _, r := range reqs {
		if why := r(); why != "" {
			if os.Getenv("SHOAL_STRICT") == "1" {
				t.Fatalf("RING %d: %s", ring, why)
			}
			t.Skipf("RING %d: %s", ring, why)
		}
	}
	t.Logf("RING %d", ring) // test/rings counts by it
}
