package oci_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
)

// childDaemon plays a daemon in a process of its own: it runs the instance in the file that childEnv names, says so, and waits for
// the end that the test gives it.
func childDaemon() error {
	b, err := os.ReadFile(os.Getenv(childEnv))
	if err != nil {
		return err
	}
	var s driver.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	ctx := context.Background()
	d, err := newDriver(ctx, filepath.Dir(os.Getenv(childEnv)), os.Getenv(binEnv), driver.Deps{}, slog.Default())
	if err != nil {
		return err
	}
	fmt.Println("driver")
	c, err := d.Create(ctx, s)
	if err != nil {
		return err
	}
	if err := d.Start(ctx, s.ID); err != nil {
		return err
	}
	fmt.Println(c.PID)
	select {}
}

// startDaemon runs childDaemon and returns it with its output.
func startDaemon(t *testing.T, p *place, s driver.Spec) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	dir, err := bin()
	must(t, err)
	b, err := json.Marshal(s)
	must(t, err)
	file := filepath.Join(p.dir, "child.json")
	must(t, os.WriteFile(file, b, 0o600))
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childEnv+"="+file, binEnv+"="+dir)
	c.Stderr = t.Output()
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c, bufio.NewReader(out)
}

// counterInit counts in a file and on the console, so that a pause or a restart would show.
const counterInit = `#!/bin/sh
i=0
while :; do i=$((i+1)); echo $i > /count; echo "tick $i"; sleep 0.05; done
`

func (p *place) withInit(t *testing.T, s *driver.Spec, script string) {
	t.Helper()
	// In the upper layer, as the guest's own file would be.
	must(t, os.WriteFile(filepath.Join(s.Root.Data, "upper/counter"), []byte(script), 0o755))
	s.Init = []string{"/counter"}
}

func count(t *testing.T, s driver.Spec) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Root.Data, "upper/count"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func TestDaemonKilled(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	s := p.spec(t)
	p.withInit(t, &s, counterInit)
	daemon, out := startDaemon(t, p, s)
	_, err := out.ReadString('\n')
	must(t, err)
	line, err := out.ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	eventually(t, "the counter counts", func() bool { return count(t, s) > 3 })
	must(t, daemon.Process.Kill())
	_ = daemon.Wait()
	at := count(t, s)
	eventually(t, "the counter goes on without a daemon", func() bool { return count(t, s) > at+3 })

	exits := make(chan driver.Exit, 4)
	d := p.driver(t, driver.Deps{OnExit: func(_ string, e driver.Exit) { exits <- e }})
	remove(t, d, s.ID)
	r, err := d.Recover(t.Context())
	must(t, err)
	if len(r) != 1 || r[0].ID != s.ID || r[0].PID != pid || !r[0].Running || !r[0].Started {
		t.Fatalf("recovered %+v, want %s as %d", r, s.ID, pid)
	}
	if out, _ := output(t, d, s.ID, "cat", "/counter"); !strings.Contains(out, "tick") {
		t.Errorf("exec after recovery gives %q", out)
	}
	at = count(t, s)
	eventually(t, "the counter goes on", func() bool { return count(t, s) > at+3 })
	must(t, d.Kill(t.Context(), s.ID))
	if e := <-exits; e.Code != 137 {
		t.Errorf("exit %+v", e)
	}
	log, err := d.ConsoleLog(t.Context(), s)
	must(t, err)
	lines := strings.Fields(strings.ReplaceAll(string(log), "tick ", ""))
	for i, l := range lines {
		if l != strconv.Itoa(i+1) {
			t.Fatalf("line %d of the console log is %q: it has a hole", i+1, l)
		}
	}
	if len(lines) < at {
		t.Errorf("the console log has %d lines, the counter was at %d", len(lines), at)
	}
	if len(exits) != 0 {
		t.Errorf("the exit is reported once more")
	}
}

// TestDaemonKilledAnywhere kills the daemon after different times; whatever it got done, the next one finds it or cleans it up, and the
// same instance starts again.
func TestDaemonKilledAnywhere(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	for _, after := range []time.Duration{0, 2, 5, 10, 15, 20, 30, 40, 60} {
		t.Run((after * time.Millisecond).String(), func(t *testing.T) {
			s := p.spec(t)
			daemon, out := startDaemon(t, p, s)
			if _, err := out.ReadString('\n'); err != nil { // the driver is there, Create begins
				t.Fatal(err)
			}
			<-time.After(after * time.Millisecond) // not waiting for anything: this is where the fault falls
			must(t, daemon.Process.Kill())
			_ = daemon.Wait()
			d := p.driver(t, driver.Deps{})
			remove(t, d, s.ID)
			r, err := d.Recover(t.Context())
			must(t, err)
			t.Logf("recovered %+v", r)
			for _, x := range r {
				if x.ID != s.ID {
					t.Errorf("unknown instance %+v", x)
				}
			}
			must(t, d.Kill(t.Context(), s.ID))
			must(t, d.Cleanup(t.Context(), s.ID))
			checkNothingLeft(t, s)
			_, err = d.Create(t.Context(), s)
			must(t, err)
			must(t, d.Start(t.Context(), s.ID))
		})
	}
}

// checkNothingLeft looks for processes, cgroups, mounts and files of an instance that was cleaned up.
func checkNothingLeft(t *testing.T, s driver.Spec) {
	t.Helper()
	files, err := os.ReadDir(s.Dir)
	must(t, err)
	for _, f := range files {
		if f.Name() != "files" {
			t.Errorf("left in the run directory: %s", f.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), s.ID) || strings.Contains(string(mounts), "/run/shoal-mnt") {
		t.Errorf("a mount of %s is left on the host", s.ID)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/shoal/", "/sys/fs/cgroup/shoal/", "/sys/fs/cgroup/*/*/shoal/", "/sys/fs/cgroup/*/*/*/shoal/"} {
		groups, err := filepath.Glob(pattern + s.ID + ".*")
		must(t, err)
		if len(groups) > 0 {
			t.Errorf("cgroups are left: %v", groups)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range procs {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), s.Dir) {
			t.Errorf("a process is left: %q", b)
		}
	}
}
