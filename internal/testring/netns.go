package testring

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// OwnNetns runs the calling test in a process of its own, in a network and mount namespace of its own: whatever it does
// to interfaces, routes, packet filter and sysctls is gone with it, and nothing of it reaches the host. In the first
// process it starts the second, waits, hands its output and verdict on and returns false: the caller returns at once. In
// the second it returns true, with the loopback interface up. Only for top-level tests that need ring 2; nothing
// may listen, run or be unshared before the call.
func OwnNetns(t *testing.T) bool {
	t.Helper()
	const env = "SHOAL_TEST_NETNS"
	if os.Getenv(env) == t.Name() {
		if err := loopbackUp(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if strings.Contains(t.Name(), "/") {
		t.Fatal("OwnNetns is for top-level tests")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.count=1", "-test.timeout=120s"}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" "):
		t.Skipf("in its own network namespace:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+" "):
		t.Fatalf("in its own network namespace the test did not run:\n%s", out)
	case testing.Verbose():
		t.Logf("in its own network namespace:\n%s", out)
	}
	return false
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
