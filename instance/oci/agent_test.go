package oci_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/internal/errs"
)

func noAgent(c *oci.Config) { c.AgentIdle = -1 }

// agentsOf returns the host's PIDs of the agents that serve in an instance.
func agentsOf(t testing.TB, pid int) []int {
	t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	must(t, err)
	var out []int
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, f := range lines {
		b, _ := os.ReadFile(f)
		if !strings.HasSuffix(string(b), "\x00serve\x00") {
			continue
		}
		if n, _ := os.Readlink(filepath.Join(filepath.Dir(f), "ns/pid")); n != ns {
			continue
		}
		n, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		must(t, err)
		out = append(out, n)
	}
	return out
}

// TestAgentEqualsRuntime: a command cannot tell whether the agent or the runtime has started it.
func TestAgentEqualsRuntime(t *testing.T) {
	needHost(t)
	const script = `echo args "$0" "$@"; pwd; id; umask; ulimit -a; cat /proc/self/cgroup /proc/self/oom_score_adj /proc/self/limits
		grep -E 'Sig(Blk|Ign|Cgt)|Cap|Seccomp|NoNewPrivs|Groups|^[UG]id|Cpus_allowed|Umask' /proc/self/status
		for f in /proc/self/fd/*; do echo ${f##*/}; done
		sed 's/^\([0-9]*\) (.*) . [0-9]* /\1 /' /proc/self/stat | { read pid pgrp session tty rest; [ $session = $$ ]; echo leader $? tty $tty; }
		for n in pid mnt user net cgroup ipc uts; do readlink /proc/self/ns/$n; done`
	for _, privileged := range []bool{false, true} {
		p := newPlace(t)
		if privileged {
			p.ids = driver.IDMap{}
		}
		plain := p.open(t, driver.Deps{}, noAgent)
		s, pid := p.startedWithout(t, plain)
		_, code := output(t, plain, s.ID, "sh", "-c", "echo 'www:x:33:33:www:/var/www:/bin/sh' >> /etc/passwd; mkdir -p /var/www; echo 'extra:x:77:www,root' > /etc/group")
		if code != 0 {
			t.Fatalf("code %d", code)
		}
		requests := map[string]driver.ExecRequest{
			"root":         {Command: []string{"sh", "-c", script, "zero", "one", ""}},
			"user":         {Command: []string{"sh", "-c", script}, User: 33, Group: 33},
			"unknown user": {Command: []string{"sh", "-c", script}, User: 4711, Group: 12, Cwd: "/tmp"},
			"environment":  {Command: []string{"env"}, Env: map[string]string{"B": "2", "A": "1=ü\n", "HOME": "/x", "PATH": "/bin"}},
			"plain env":    {Command: []string{"env"}},
			"user's env":   {Command: []string{"env"}, User: 33, Group: 33},
			"empty home":   {Command: []string{"env"}, Env: map[string]string{"HOME": ""}},
			"no path":      {Command: []string{"sh", "-c", "true"}, Env: map[string]string{"PATH": "/nowhere"}},
			"a directory":  {Command: []string{"/etc"}},
			"not program":  {Command: []string{"/etc/passwd"}},
			"missing":      {Command: []string{"nothing"}},
			"cwd":          {Command: []string{"pwd"}, Cwd: "/nowhere"},
			"cwd of root":  {Command: []string{"pwd"}, User: 33, Group: 33, Cwd: "/root"},
			"terminal":     {Command: []string{"sh", "-c", script + "; stty -a"}, Terminal: true},
			"user's tty":   {Command: []string{"sh", "-c", "ls -ln /dev/pts/0; id; echo hi > /dev/tty"}, Terminal: true, User: 33, Group: 33},
		}
		all := func(d *oci.Driver) map[string]string {
			out := map[string]string{}
			for name, r := range requests {
				out[name] = transcript(t, d, s.ID, r)
			}
			return out
		}
		want := all(plain)
		plain.Close()
		d := p.driver(t, driver.Deps{})
		remove(t, d, s.ID)
		_, err := d.Recover(t.Context())
		must(t, err)
		got := all(d)
		if n := agentsOf(t, pid); len(n) != 1 {
			t.Errorf("agents %v, want one", n)
		}
		for name := range requests {
			a, b := strings.Split(got[name], "\n"), strings.Split(want[name], "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Errorf("privileged %v, %s, line %d: by the agent %q, by the runtime %q", privileged, name, i, a[i], b[i])
				}
			}
			if len(a) != len(b) {
				t.Errorf("privileged %v, %s: %d lines by the agent, %d by the runtime", privileged, name, len(a), len(b))
			}
		}
	}
}

// startedWithout is started for a driver that is closed before the test ends.
func (p *place) startedWithout(t *testing.T, d *oci.Driver) (driver.Spec, int) {
	t.Helper()
	s := p.spec(t)
	c, err := d.Create(t.Context(), s)
	must(t, err)
	must(t, d.Start(t.Context(), s.ID))
	return s, c.PID
}

// transcript is all that a command gives back.
func transcript(t *testing.T, d *oci.Driver, id string, req driver.ExecRequest) string {
	t.Helper()
	var out bytes.Buffer
	req.Stdout, req.Stderr = &out, &out
	p, err := d.Exec(t.Context(), id, req)
	if err != nil {
		return fmt.Sprint(errs.ClassOf(err), " ", err)
	}
	if tty := p.TTY(); tty != nil {
		_, _ = io.Copy(&out, tty)
		must(t, tty.Close())
	}
	code, err := p.Wait()
	return fmt.Sprintf("%s(%d, %v)", out.String(), code, err)
}

// TestManyCommands runs many at once; nothing of them is left.
func TestManyCommands(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, pid := p.started(t, d, nil)
	_, _ = output(t, d, s.ID, "true")
	agents := agentsOf(t, pid)
	if len(agents) != 1 {
		t.Fatalf("agents %v, want one", agents)
	}
	count := func(pid int) int {
		e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		must(t, err)
		return len(e)
	}
	ours, its := count(os.Getpid()), count(agents[0])
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			var out bytes.Buffer
			req := driver.ExecRequest{Command: []string{"sh", "-c", fmt.Sprintf("cat; exit %d", i)}, Stdin: strings.NewReader(strconv.Itoa(i)), Stdout: &out}
			proc, err := d.Exec(t.Context(), s.ID, req)
			if err != nil {
				t.Error(err)
				return
			}
			if code, err := proc.Wait(); code != i || err != nil || out.String() != strconv.Itoa(i) {
				t.Errorf("command %d gives %d, %v, %q", i, code, err, out.String())
			}
		})
	}
	wg.Wait()
	if n := agentsOf(t, pid); !slices.Equal(n, agents) {
		t.Errorf("agents %v, had %v", n, agents)
	}
	eventually(t, "the agent's descriptors are closed", func() bool { return count(agents[0]) <= its })
	eventually(t, "our descriptors are closed", func() bool { return count(os.Getpid()) <= ours })
	// Its program is in memory once for all containers; what is not is each one's own.
	const most = 2 << 10
	eventually(t, fmt.Sprintf("the agent has at most %d kB for itself", most), func() bool { return smaps(t, agents[0], "Pss_Anon") <= most })
	t.Logf("agent: %d kB, of these its own %d kB", smaps(t, agents[0], "Pss"), smaps(t, agents[0], "Pss_Anon"))
}

func smaps(t testing.TB, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == field+":" {
			n, err := strconv.Atoi(f[1])
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s of process %d", field, pid)
	return 0
}

func TestAgentKilledByGuest(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, pid := p.started(t, d, nil)
	proc, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "sleep 1; echo still > /there"}})
	must(t, err)
	first := agentsOf(t, pid)
	_ = transcript(t, d, s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "kill -9 $PPID"}}) // its own end is lost too
	if code, err := proc.Wait(); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("%d, %v: want the error that the agent is gone", code, err)
	}
	if out, code := output(t, d, s.ID, "echo", "again"); out != "again" || code != 0 {
		t.Errorf("%d %q after the agent was killed", code, out)
	}
	if now := agentsOf(t, pid); len(now) != 1 || slices.Equal(now, first) {
		t.Errorf("agents %v, then %v: want a new one", first, now)
	}
	eventually(t, "the command goes on without the agent", func() bool {
		_, err := os.Stat(filepath.Join(s.Root.Data, "upper/there"))
		return err == nil
	})
}

func TestAgentLeaves(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.open(t, driver.Deps{}, func(c *oci.Config) { c.AgentIdle = 50 * time.Millisecond })
	s, pid := p.startedWithout(t, d)
	proc, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sleep", "1000"}})
	must(t, err)
	for range 3 { // it stays while a command runs, however short the others are
		if out, code := output(t, d, s.ID, "echo", "here"); out != "here" || code != 0 {
			t.Errorf("%d %q", code, out)
		}
	}
	if n := agentsOf(t, pid); len(n) != 1 {
		t.Errorf("agents %v while a command runs, want one", n)
	}
	must(t, proc.Signal(15))
	if code, err := proc.Wait(); code != 143 || err != nil {
		t.Errorf("%d %v", code, err)
	}
	eventually(t, "the agent leaves when it has nothing to do", func() bool { return len(agentsOf(t, pid)) == 0 })
	if out, code := output(t, d, s.ID, "echo", "back"); out != "back" || code != 0 {
		t.Errorf("%d %q after the agent left", code, out)
	}
	// The daemon ends: the agent goes, what it has started stays.
	_, err = d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "while :; do sleep 0.02; echo x >> /ticks; done"}})
	must(t, err)
	d.Close()
	eventually(t, "the agent leaves with the daemon", func() bool { return len(agentsOf(t, pid)) == 0 })
	size := func() int64 {
		st, err := os.Stat(filepath.Join(s.Root.Data, "upper/ticks"))
		if err != nil {
			return 0
		}
		return st.Size()
	}
	was := size()
	eventually(t, "the command goes on", func() bool { return size() > was+4 })
	d = p.driver(t, driver.Deps{})
	remove(t, d, s.ID)
	_, err = d.Recover(t.Context())
	must(t, err)
	must(t, d.Kill(t.Context(), s.ID))
	must(t, d.Cleanup(t.Context(), s.ID))
	checkNothingLeft(t, s)
}

// TestAgentStuck: an agent that does not answer costs two seconds once, and nothing runs twice.
func TestAgentStuck(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, pid := p.started(t, d, nil)
	_, _ = output(t, d, s.ID, "true")
	agents := agentsOf(t, pid)
	must(t, syscall.Kill(agents[0], syscall.SIGSTOP))
	if out, code := output(t, d, s.ID, "sh", "-c", "echo once >> /once; cat /once"); out != "once" || code != 0 {
		t.Errorf("%d %q beside a stopped agent", code, out)
	}
	eventually(t, "the stopped agent is ended", func() bool { return !slices.Contains(agentsOf(t, pid), agents[0]) })
	if out, code := output(t, d, s.ID, "cat", "/once"); out != "once" || code != 0 {
		t.Errorf("%d %q after that", code, out)
	}
}

// TestFileSessions: many sessions, before and after the agent is there.
func TestFileSessions(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, pid := p.started(t, d, nil)
	var first time.Duration
	for i := range 5 {
		begin := time.Now()
		rw, err := d.Files(t.Context(), s)
		must(t, err)
		c, err := sftp.NewClientPipe(rw, rw)
		must(t, err)
		if i == 0 {
			first = time.Since(begin)
		}
		name := fmt.Sprintf("/f%d", i)
		f, err := c.Create(name)
		must(t, err)
		_, err = f.Write([]byte(name))
		must(t, err)
		must(t, f.Chmod(0o666))
		must(t, f.Close())
		if out, _ := output(t, d, s.ID, "sh", "-c", "umask; cat "+name); out != "0022\n"+name {
			t.Errorf("%q", out)
		}
		must(t, c.Close())
	}
	t.Logf("first session %v", first)
	eventually(t, "the servers are gone", func() bool {
		out, _ := output(t, d, s.ID, "sh", "-c", "cat /proc/[0-9]*/cmdline")
		return !strings.Contains(out, "sftp\x00")
	})
	if n := agentsOf(t, pid); len(n) != 1 {
		t.Errorf("agents %v, want one", n)
	}
}

// TestExecTimes prints medians of the driver's part of a command; it asserts nothing about them.
func TestExecTimes(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	for _, tt := range []struct {
		name   string
		change func(*oci.Config)
	}{{"by the runtime", noAgent}, {"by the agent", func(*oci.Config) {}}} {
		d := p.open(t, driver.Deps{}, tt.change)
		s, pid := p.startedWithout(t, d)
		_, _ = output(t, d, s.ID, "true")
		var cmds, files []time.Duration
		for range 20 {
			begin := time.Now()
			_, _ = output(t, d, s.ID, "true")
			cmds = append(cmds, time.Since(begin))
			begin = time.Now()
			rw, err := d.Files(t.Context(), s)
			must(t, err)
			c, err := sftp.NewClientPipe(rw, rw)
			must(t, err)
			files = append(files, time.Since(begin))
			must(t, c.Close())
		}
		t.Logf("%s: true %v, files %v", tt.name, median(cmds), median(files))
		if a := agentsOf(t, pid); len(a) == 1 {
			t.Logf("agent PSS %d kB, anonymous %d kB", smaps(t, a[0], "Pss"), smaps(t, a[0], "Pss_Anon"))
		}
		must(t, d.Kill(t.Context(), s.ID))
		must(t, d.Cleanup(t.Context(), s.ID))
		d.Close()
	}
}
