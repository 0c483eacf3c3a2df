package oci_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci"
)

// debianRoot is a Debian tree with systemd, given by whoever runs the test.
func debianRoot(t testing.TB) string {
	t.Helper()
	needHost(t)
	root := os.Getenv("SHOAL_TEST_DEBIAN_ROOTFS")
	if root == "" {
		t.Skip("RING 2: needs a Debian root with systemd in SHOAL_TEST_DEBIAN_ROOTFS")
	}
	return root
}

func output(t testing.TB, d *oci.Driver, id string, command ...string) (string, int) {
	t.Helper()
	var out, errOut bytes.Buffer
	p, err := d.Exec(t.Context(), id, driver.ExecRequest{Command: command, Stdout: &out, Stderr: &errOut})
	must(t, err)
	code, err := p.Wait()
	must(t, err)
	if errOut.Len() > 0 {
		t.Logf("%q: %s", command, errOut.String())
	}
	return strings.TrimSpace(out.String()), code
}

func awaitSystemd(t testing.TB, d *oci.Driver, id string) {
	t.Helper()
	var state string
	eventually(t, "systemd is running", func() bool {
		state, _ = output(t, d, id, "systemctl", "is-system-running")
		if state == "degraded" {
			failed, _ := output(t, d, id, "systemctl", "--failed", "--no-legend")
			t.Fatalf("degraded: %s", failed)
		}
		return state == "running"
	})
}

func TestDebian(t *testing.T) {
	root := debianRoot(t)
	for _, tt := range []struct {
		name   string
		change func(*driver.Spec)
	}{
		{"unprivileged", func(*driver.Spec) {}},
		{"nesting", func(s *driver.Spec) { s.Nesting = true }},
		{"v1 view", func(s *driver.Spec) { s.CgroupView = "v1" }},
		{"privileged", func(s *driver.Spec) { s.IDMap = driver.IDMap{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			p.lower = root
			exits := make(chan driver.Exit, 4)
			d := p.driver(t, driver.Deps{OnExit: func(_ string, e driver.Exit) { exits <- e }})
			s, pid := p.started(t, d, tt.change)
			awaitSystemd(t, d, s.ID)
			if v, _ := output(t, d, s.ID, "systemd-detect-virt", "-c"); v != "lxc" {
				t.Errorf("systemd takes it for %q, want lxc", v)
			}
			if env, _ := output(t, d, s.ID, "cat", "/proc/1/environ"); !slices.Contains(strings.Split(env, "\x00"), "container=lxc") {
				t.Errorf("init's environment %q", env)
			}
			eventually(t, "the console shows a login prompt", func() bool {
				b, err := d.ConsoleLog(t.Context(), s)
				must(t, err)
				return bytes.Contains(b, []byte("login:"))
			})
			if tt.name == "nesting" {
				if out, code := output(t, d, s.ID, "unshare", "-Urmpf", "--mount-proc", "true"); code != 0 {
					t.Errorf("a nested container: %d %s", code, out)
				}
			}
			if st, err := d.Stats(t.Context(), s.ID); err != nil || st.InitPID != pid || st.Processes < 5 {
				t.Errorf("stats %+v, %v", st, err)
			}
			begin := time.Now()
			if tt.name == "v1 view" {
				_, _ = output(t, d, s.ID, "systemctl", "reboot")
			} else {
				must(t, d.Shutdown(t.Context(), s.ID))
			}
			e := <-exits
			if want := tt.name == "v1 view"; e.Reboot != want {
				t.Errorf("exit %+v, want reboot %v", e, want)
			}
			t.Logf("down after %v", time.Since(begin))
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// TestTimes prints medians; it asserts nothing about them, because it shares its machine.
func TestTimes(t *testing.T) {
	root := debianRoot(t)
	p := newPlace(t)
	p.lower = root
	d := p.driver(t, driver.Deps{})
	times := map[string][]time.Duration{}
	lap := func(name string, from time.Time) { times[name] = append(times[name], time.Since(from)) }
	rounds := 10
	for range rounds {
		s := p.spec(t)
		remove(t, d, s.ID)
		t0 := time.Now()
		_, err := d.Create(t.Context(), s)
		must(t, err)
		lap("1 create", t0)
		t1 := time.Now()
		must(t, d.Start(t.Context(), s.ID))
		lap("2 start", t1)
		lap("3 create+start", t0)
		awaitSystemd(t, d, s.ID)
		lap("4 to systemd running", t0)
		t2 := time.Now()
		_, _ = output(t, d, s.ID, "true")
		lap("5 exec true", t2)
		t3 := time.Now()
		must(t, d.Freeze(t.Context(), s.ID))
		lap("6 freeze", t3)
		must(t, d.Unfreeze(t.Context(), s.ID))
		t4 := time.Now()
		f, err := d.Files(t.Context(), s)
		must(t, err)
		lap("7 files session", t4)
		must(t, f.Close())
		t5 := time.Now()
		must(t, d.Kill(t.Context(), s.ID))
		lap("8 kill", t5)
		must(t, d.Cleanup(t.Context(), s.ID))
		lap("9 kill+cleanup", t5)
	}
	names := make([]string, 0, len(times))
	for n := range times {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		m := median(times[n])
		t.Logf("%-22s median %8.2f ms  min %8.2f", n, float64(m.Microseconds())/1000, float64(times[n][0].Microseconds())/1000)
	}
}
