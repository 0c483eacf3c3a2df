package oci_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/drivertest"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
)

func shimOf(t *testing.T, s driver.Spec) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, shimproto.ShimPIDFile))
	must(t, err)
	p, err := shimproto.ParseProcess(string(b))
	must(t, err)
	return p.PID
}

func TestShimKilled(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	exits := make(chan driver.Exit, 4)
	deps := driver.Deps{OnExit: func(_ string, e driver.Exit) { exits <- e }}
	d := p.driver(t, deps)
	s := p.spec(t)
	p.withInit(t, &s, counterInit)
	c, err := d.Create(t.Context(), s)
	must(t, err)
	pid := c.PID
	must(t, d.Start(t.Context(), s.ID))
	eventually(t, "the counter counts", func() bool { return count(t, s) > 1 })
	must(t, syscall.Kill(shimOf(t, s), syscall.SIGKILL))
	eventually(t, "a command says that the monitor is gone", func() bool {
		_, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"true"}})
		return errs.Is(err, errs.UnavailableClass)
	})
	d.Close()
	d2 := p.driver(t, deps)
	remove(t, d2, s.ID)
	r, err := d2.Recover(t.Context())
	must(t, err)
	if len(r) != 1 || !r[0].Running || r[0].PID != pid {
		t.Fatalf("recovered %+v, want %d running", r, pid)
	}
	must(t, d2.Freeze(t.Context(), s.ID))
	must(t, d2.Unfreeze(t.Context(), s.ID))
	must(t, d2.Kill(t.Context(), s.ID))
	if e := <-exits; e.Code != 255 || e.Reboot {
		t.Errorf("exit %+v, want the code of one that nobody saw", e)
	}
	must(t, d2.Cleanup(t.Context(), s.ID))
	checkNothingLeft(t, s)
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	exits := make(chan string, 16)
	d := p.driver(t, driver.Deps{OnExit: func(id string, _ driver.Exit) { exits <- id }})
	for _, tt := range []struct {
		name   string
		change func(*driver.Spec)
		text   string
	}{
		{"no lower layer", func(s *driver.Spec) { s.Root.Lower = []string{"/nowhere"} }, "/nowhere"},
		{"no data", func(s *driver.Spec) { s.Root.Data += "/gone" }, "gone"},
		{"no mount source", func(s *driver.Spec) { s.Mounts = []driver.Mount{{Source: "/nowhere", Target: "/mnt"}} }, "/nowhere"},
		{"no shifted source", func(s *driver.Spec) {
			s.Mounts = []driver.Mount{{Source: "/nowhere", Target: "/mnt", Shift: true}}
		}, "/nowhere"},
		{"bad cpus", func(s *driver.Spec) { s.Limits.CPUs = "900" }, "cpuset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := p.spec(t)
			good := s
			tt.change(&s)
			_, err := d.Create(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %q in it", err, tt.text)
			}
			checkNothingLeft(t, s)
			if len(exits) != 0 {
				t.Error("an exit is reported of what never was")
			}
			_, err = d.Create(t.Context(), good)
			must(t, err)
			must(t, d.Kill(t.Context(), s.ID))
			must(t, d.Cleanup(t.Context(), s.ID))
			if id := <-exits; id != s.ID {
				t.Errorf("exit of %s", id)
			}
		})
	}
}

func TestMissingInit(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s := p.spec(t)
	remove(t, d, s.ID)
	s.Init = []string{"/no/init"}
	_, err := d.Create(t.Context(), s)
	if err == nil {
		err = d.Start(t.Context(), s.ID)
	}
	if err == nil || !strings.Contains(err.Error(), "/no/init") {
		t.Errorf("got %v, want an error that names /no/init", err)
	}
}

func TestMountsAndLimits(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	share := t.TempDir()
	file := filepath.Join(p.dir, "one-file")
	must(t, os.WriteFile(filepath.Join(share, "mine"), []byte("of root"), 0o600))
	must(t, os.WriteFile(file, []byte("a file"), 0o600))
	s, pid := p.started(t, d, func(s *driver.Spec) {
		s.Mounts = []driver.Mount{
			{Source: share, Target: "/shifted", Shift: true},
			{Source: share, Target: "/plain"},
			{Source: share, Target: "/read-only", Shift: true, ReadOnly: true},
			{Source: file, Target: "/a/file", Shift: true},
		}
		s.Limits = driver.Limits{
			MemoryBytes: 96 << 20, CPUs: "0", CPUQuota: 20 * time.Millisecond, CPUPeriod: 40 * time.Millisecond, Processes: 77,
		}
	})
	for _, tt := range []struct {
		name    string
		command string
		want    string
		code    int
	}{
		{"shifted is the guest's", "cat /shifted/mine; echo x > /shifted/new; echo $?", "of root0", 0},
		{"plain is not", "cat /plain/mine || echo refused", "refused", 0},
		{"read-only", "echo x > /read-only/y || echo refused", "refused", 0},
		{"a single file", "cat /a/file", "a file", 0},
		{"processors", "nproc", "1", 0},
		{"hostname", "hostname", "guest", 0},
		{"no kernel modules", "cat /proc/kcore | head -c 1", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out, code := output(t, d, s.ID, "sh", "-c", tt.command); out != tt.want || code != tt.code {
				t.Errorf("%d %q, want %d %q", code, out, tt.code, tt.want)
			}
		})
	}
	st, err := os.Stat(filepath.Join(share, "new"))
	must(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("what the guest's root wrote belongs to %d, want 0", uid)
	}
	limit := func(controller, v1, v2 string) string {
		t.Helper()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		must(t, err)
		m, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		_, leaf, _ := strings.Cut(string(b), "/shoal/")
		leaf, _, _ = strings.Cut(leaf, "\n")
		c, err := oci.ParseCgroups(string(b), string(m), leaf)
		must(t, err)
		if dir, ok := c[controller]; ok {
			b, err = os.ReadFile(filepath.Join(dir, v1))
		} else {
			b, err = os.ReadFile(filepath.Join(c[""], v2))
		}
		must(t, err)
		return strings.TrimSpace(string(b))
	}
	if got := limit("memory", "memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(96<<20) {
		t.Errorf("memory limit %s", got)
	}
	if got := limit("pids", "pids.max", "pids.max"); got != "77" {
		t.Errorf("process limit %s", got)
	}
	must(t, d.SetLimits(t.Context(), s.ID, driver.Limits{Processes: 55}))
	if got := limit("pids", "pids.max", "pids.max"); got != "55" {
		t.Errorf("changed process limit %s", got)
	}
	if got := limit("memory", "memory.limit_in_bytes", "memory.max"); got == strconv.Itoa(96<<20) {
		t.Errorf("the memory limit that was taken away is still %s", got)
	}
	if out, _ := output(t, d, s.ID, "sh", "-c", "mknod /x b 7 0 || echo refused"); out != "refused" {
		t.Errorf("mknod in an unprivileged guest: %q", out)
	}
}

func TestPlainRoot(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	tree := filepath.Join(p.dir, "tree")
	must(t, os.CopyFS(tree, os.DirFS(p.lower)))
	s, _ := p.started(t, d, func(s *driver.Spec) { s.Root = driver.Root{Path: tree} })
	if out, _ := output(t, d, s.ID, "sh", "-c", "echo hello > /root/f; ls -ln /root/f"); !strings.Contains(out, " 0 ") {
		t.Errorf("in the guest: %q", out)
	}
	st, err := os.Stat(filepath.Join(tree, "root/f"))
	must(t, err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("on disk it belongs to %d, want 0", uid)
	}
}

func TestBackgroundChildHoldsOutput(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, _ := p.started(t, d, nil)
	var out bytes.Buffer
	proc, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "sleep 1000 & echo done; exit 4"}, Stdout: &out})
	must(t, err)
	code, err := proc.Wait()
	if code != 4 || err != nil || out.String() != "done\n" {
		t.Errorf("%d %v %q", code, err, out.String())
	}
	// A command that writes much and ends, to a reader that is slow: nothing is lost.
	r, w := io.Pipe()
	proc, err = d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "sleep 1000 & seq 1 30000"}, Stdout: w})
	must(t, err)
	var got bytes.Buffer
	read := make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				read <- err
				return
			}
			<-tick.C
		}
	}()
	_, err = proc.Wait()
	must(t, err)
	_ = w.Close()
	<-read
	if !strings.HasSuffix(got.String(), "\n30000\n") {
		t.Errorf("the end of %d bytes is missing", got.Len())
	}
}

func TestTerminalSize(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, _ := p.started(t, d, nil)
	proc, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{
		Command: []string{"sh", "-c", "stty size; read x; stty size"}, Terminal: true, Width: 91, Height: 27,
	})
	must(t, err)
	var out strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(out.String(), "\n") {
		n, err := proc.TTY().Read(buf)
		must(t, err)
		out.Write(buf[:n])
	}
	must(t, proc.Resize(132, 43))
	_, err = proc.TTY().Write([]byte("\n"))
	must(t, err)
	rest, _ := io.ReadAll(proc.TTY())
	if !strings.Contains(out.String(), "27 91") || !strings.Contains(string(rest), "43 132") {
		t.Errorf("sizes %q, then %q", out.String(), rest)
	}
	_, err = proc.Wait()
	must(t, err)
	wantInvalid(t, proc.Resize(0, 5))
	wantInvalid(t, proc.Signal(0))
	must(t, proc.TTY().Close())
}

func wantInvalid(t *testing.T, err error) {
	t.Helper()
	if !errs.Is(err, errs.InvalidInput) {
		t.Errorf("got %v, want bad input", err)
	}
}

func TestConsoleRing(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, _ := p.started(t, d, nil)
	lazy, err := d.Console(t.Context(), s.ID) // never reads: it must not hold up the guest
	must(t, err)
	defer lazy.Close()
	_, code := output(t, d, s.ID, "sh", "-c", "seq 1 400000 > /dev/console; echo the-very-end > /dev/console")
	if code != 0 {
		t.Fatalf("code %d", code)
	}
	var log []byte
	eventually(t, "the newest is in the log", func() bool {
		log, err = d.ConsoleLog(t.Context(), s)
		must(t, err)
		return bytes.Contains(log, []byte("the-very-end"))
	})
	if len(log) > 1<<20 || len(log) < 1<<19 {
		t.Errorf("the log has %d bytes", len(log))
	}
	if !bytes.Contains(log, []byte("400000")) || bytes.Contains(log, []byte(drivertest.Ready)) {
		t.Errorf("the log does not hold the newest and only that")
	}
}

func TestShimIsSmall(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	s, _ := p.started(t, d, nil)
	_, _ = output(t, d, s.ID, "true")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", shimOf(t, s)))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Rss:" || f[0] == "Pss:" || f[0] == "Private_Dirty:" {
			t.Logf("%s %s kB", f[0], f[1])
			if n, _ := strconv.Atoi(f[1]); n > 8<<10 {
				t.Errorf("%s %d kB: a shim is resident once per container", f[0], n)
			}
		}
	}
}

// TestFilesOfHostileGuest: what the guest lays out for the daemon reaches only as far as the guest itself does.
func TestFilesOfHostileGuest(t *testing.T) {
	needHost(t)
	const pattern = "/proc/sys/kernel/core_pattern"
	before, err := os.ReadFile(pattern)
	must(t, err)
	secret := filepath.Join("/var/tmp", fmt.Sprintf("shoal-secret-%d", os.Getpid()))
	must(t, os.WriteFile(secret, []byte("of the host"), 0o644))
	t.Cleanup(func() { _ = os.Remove(secret) })
	for _, state := range []string{"running", "stopped"} {
		t.Run(state, func(t *testing.T) {
			p := newPlace(t)
			d := p.driver(t, driver.Deps{})
			s, _ := p.started(t, d, nil)
			script := "ln -s " + pattern + " /sysctl; ln -s " + secret + " /absolute; ln -s ../../../../../.." + secret + " /relative; " +
				"mkfifo /fifo; ln -s loop /loop; ln -s /proc/1/root" + secret + " /magic; echo mine > /file; ln -s file /good"
			if out, code := output(t, d, s.ID, "sh", "-c", script); code != 0 {
				t.Fatalf("%d %s", code, out)
			}
			if state == "stopped" {
				must(t, d.Kill(t.Context(), s.ID))
			}
			rw, err := d.Files(t.Context(), s)
			must(t, err)
			c, err := sftp.NewClientPipe(rw, rw)
			must(t, err)
			defer c.Close()
			f, err := c.OpenFile("/sysctl", os.O_WRONLY)
			if err == nil {
				_, err = f.Write([]byte("|/evil"))
				_ = f.Close()
			}
			if err == nil {
				t.Error("a write through a link to a sysctl succeeded")
			}
			for _, name := range []string{"/absolute", "/relative", "/magic", "/loop", "/fifo", "/dev/zero", "/"} {
				if f, err := c.Open(name); err == nil {
					b, _ := io.ReadAll(io.LimitReader(f, 64))
					t.Errorf("%s opens and reads %q", name, b)
					_ = f.Close()
				}
			}
			if _, err := c.ReadDir("/fifo"); err == nil {
				t.Error("a FIFO lists as a directory")
			}
			f, err = c.Open("/good")
			must(t, err)
			b, err := io.ReadAll(f)
			must(t, err)
			must(t, f.Close())
			if string(b) != "mine\n" {
				t.Errorf("the guest's own link reads %q", b)
			}
			must(t, c.Symlink("some/where", "/new-link"))
			if l, err := c.ReadLink("/new-link"); err != nil || l != "some/where" {
				t.Errorf("link %q, %v", l, err)
			}
			must(t, c.Mkdir("/d"))
			must(t, c.Chown("/file", 33, 34))
			must(t, c.Chmod("/file", 0o4751))
			st, err := c.Stat("/file")
			must(t, err)
			x := st.Sys().(*sftp.FileStat)
			if x.UID != 33 || x.GID != 34 || x.Mode&0o7777 != 0o4751 {
				t.Errorf("attributes %d:%d %o", x.UID, x.GID, x.Mode)
			}
			if l, err := c.Lstat("/good"); err != nil || l.Mode()&os.ModeSymlink == 0 {
				t.Errorf("lstat of a link: %v, %v", l, err)
			}
		})
	}
	after, err := os.ReadFile(pattern)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Errorf("the host's core_pattern was %q and is %q", before, after)
	}
}

// TestMissingRuntime takes the runtime away and brings it back: the driver is there all the time and says what is missing.
func TestMissingRuntime(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	programs, err := bin()
	must(t, err)
	runtime := filepath.Join(t.TempDir(), "no-such-runtime")
	d, err := oci.New(t.Context(), oci.Config{
		Dir: filepath.Join(p.dir, "driver"), Runtime: runtime, Runner: run.Host{},
		Shim: filepath.Join(programs, "shoal-shim"), Agent: filepath.Join(programs, "shoal-agent"),
	})
	must(t, err)
	defer d.Close()
	if v := d.Info().Version; !strings.Contains(v, "no-such-runtime") {
		t.Errorf("version %q does not name the program", v)
	}
	if _, err := d.Recover(t.Context()); err != nil {
		t.Errorf("recover: %v", err)
	}
	spec := p.spec(t)
	if _, err := d.Create(t.Context(), spec); !errs.Is(err, errs.UnsupportedClass) || !strings.Contains(err.Error(), "no-such-runtime") {
		t.Errorf("create: got %v, want one that names the program", err)
	}
	must(t, os.WriteFile(runtime, []byte("#!/bin/sh\n[ $1 = features ] && echo '{}' || echo x version 9.9.9\n"), 0o755))
	if _, err := d.Create(t.Context(), spec); err == nil || errs.Is(err, errs.UnsupportedClass) {
		t.Errorf("create with the runtime there again: %v", err)
	}
	if v := d.Info().Version; !strings.HasSuffix(v, " 9.9.9") {
		t.Errorf("version %q of the runtime that is there again", v)
	}
}

func TestInfo(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	info := p.driver(t, driver.Deps{}).Info()
	if info.Name != "oci" || info.Type != "container" || !strings.HasPrefix(info.Version, "runc ") {
		t.Errorf("%+v", info)
	}
	if f := info.Features["idmapped_overlay"]; f != "true" {
		t.Errorf("id-mapped overlay: %q", f)
	}
	t.Logf("%+v", info)
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances"); err != nil || len(strings.TrimSpace(string(b))) < 4 {
		t.Errorf("inotify instances %q, %v", b, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	needHost(t)
	p := newPlace(t)
	d := p.driver(t, driver.Deps{})
	specs := make([]driver.Spec, 6)
	for i := range specs {
		specs[i] = p.spec(t)
		remove(t, d, specs[i].ID)
	}
	errc := make(chan error, len(specs))
	for _, s := range specs {
		go func() {
			errc <- func() error {
				if _, err := d.Create(t.Context(), s); err != nil {
					return err
				}
				if err := d.Start(t.Context(), s.ID); err != nil {
					return err
				}
				var out bytes.Buffer
				for range 3 {
					proc, err := d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"echo", s.ID}, Stdout: &out})
					if err != nil {
						return err
					}
					if _, err := proc.Wait(); err != nil {
						return err
					}
				}
				if want := strings.Repeat(s.ID+"\n", 3); out.String() != want {
					return fmt.Errorf("got %q, want %q", out.String(), want)
				}
				if err := d.Kill(t.Context(), s.ID); err != nil {
					return err
				}
				return d.Cleanup(t.Context(), s.ID)
			}()
		}()
	}
	for range specs {
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
	for _, s := range specs {
		checkNothingLeft(t, s)
	}
}
