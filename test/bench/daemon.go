package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is one of the two that are compared, started by us and driven by lxc.
type daemon struct {
	name    string
	dir     string // LXD_DIR
	home    string
	command []string
	ready   []string
	setup   func(ctx context.Context, d *daemon) error
	monitor string // what the command line of a container's monitor process contains
	proc    *exec.Cmd
}

func newShoal(o options) *daemon {
	dir := filepath.Join(absolute(o.work), "shoal")
	bin := absolute(o.bin)
	return &daemon{
		name: "shoal", dir: dir, home: filepath.Join(absolute(o.work), "shoal-home"),
		command: []string{filepath.Join(bin, "shoald"), "--dir", dir},
		ready:   []string{filepath.Join(bin, "shoal"), "admin", "waitready", "--timeout", "60"},
		monitor: "shoal-shim",
		setup: func(ctx context.Context, d *daemon) error {
			return d.run(ctx, filepath.Join(bin, "shoal"), "admin", "init", "--auto", "--storage-backend", "btrfs", "--storage-size", "8GiB")
		},
	}
}

const lxdPreseed = `
storage_pools:
- {name: default, driver: btrfs, config: {size: 8GiB}}
networks:
- {name: lxdbr0, type: bridge, config: {ipv4.address: 10.211.7.1/24, ipv6.address: none}}
profiles:
- name: default
  devices:
    root: {path: /, pool: default, type: disk}
    eth0: {name: eth0, network: lxdbr0, type: nic}
`

func newLXD(o options) *daemon {
	dir := filepath.Join(absolute(o.work), "lxd")
	return &daemon{
		name: "lxd", dir: dir, home: filepath.Join(absolute(o.work), "lxd-home"),
		command: []string{"lxd", "--group", "root"},
		ready:   []string{"lxd", "waitready", "--timeout", "60"},
		monitor: "[lxc monitor]",
		setup: func(ctx context.Context, d *daemon) error {
			cmd := d.cmd(ctx, "lxd", "init", "--preseed")
			cmd.Stdin = strings.NewReader(lxdPreseed)
			out, err := cmd.CombinedOutput()
			return withOutput(err, out)
		},
	}
}

func withOutput(err error, out []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", err, trim(out))
}

func (d *daemon) cmd(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LXD_DIR="+d.dir, "SHOAL_DIR="+d.dir, "HOME="+d.home)
	return cmd
}

func (d *daemon) run(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := d.cmd(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, trim(out))
	}
	return nil
}

func (d *daemon) lxc(ctx context.Context, args ...string) error { return d.run(ctx, "lxc", args...) }

func (d *daemon) start(ctx context.Context, o options) error {
	for _, p := range []string{d.dir, d.home} {
		if err := os.MkdirAll(p, 0o711); err != nil {
			return err
		}
	}
	log, err := os.Create(d.dir + ".log")
	if err != nil {
		return err
	}
	d.proc = d.cmd(context.Background(), d.command[0], d.command[1:]...)
	d.proc.Stdout, d.proc.Stderr = log, log
	if err := d.proc.Start(); err != nil {
		return err
	}
	if err := d.run(ctx, d.ready[0], d.ready[1:]...); err != nil {
		return err
	}
	if err := d.setup(ctx, d); err != nil {
		return err
	}
	return d.lxc(ctx, "image", "import", filepath.Join(o.image, "metadata.tar.xz"), filepath.Join(o.image, "rootfs.squashfs"), "--alias", "bench")
}

// stop deletes what is left and ends the daemon.
func (d *daemon) stop() {
	if d.proc == nil {
		return
	}
	ctx := context.Background()
	out, _ := d.cmd(ctx, "lxc", "list", "-f", "csv", "-c", "n").Output()
	for _, n := range strings.Fields(string(out)) {
		if err := d.lxc(ctx, "delete", "--force", n); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	_ = d.lxc(ctx, "image", "delete", "bench")
	_ = d.lxc(ctx, "profile", "device", "remove", "default", "root")
	_ = d.lxc(ctx, "storage", "delete", "default")
	_ = d.proc.Process.Signal(syscall.SIGTERM)
	_ = d.proc.Wait()
}

// waitSystemd waits until systemd inside says that it is running. It enters the namespaces from outside, the same way
// for both daemons, so that neither daemon's exec is part of the figure.
func (d *daemon) waitSystemd(ctx context.Context, name string) error {
	out, err := d.cmd(ctx, "lxc", "query", "/1.0/instances/"+name+"/state").Output()
	if err != nil {
		return err
	}
	var st struct {
		Pid int `json:"pid"`
	}
	if err := json.Unmarshal(out, &st); err != nil || st.Pid <= 0 {
		return fmt.Errorf("no pid in state of %s: %s", name, trim(out))
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		out, _ := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(st.Pid), "-a", "-S", "0", "-G", "0", "systemctl", "is-system-running", "--wait").Output()
		switch trim(out) {
		case "running":
			return nil
		case "degraded":
			return errors.New("systemd is degraded in " + name)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return errors.New("systemd did not get ready in " + name)
}

// rss is the daemon's resident memory in bytes.
func (d *daemon) rss() int64 {
	return field(fmt.Sprintf("/proc/%d/status", d.proc.Process.Pid), "VmRSS:")
}

type hostMemory struct{ daemon, monitors int64 }

// hostPSS adds up what the daemon and the monitors of its containers take.
func (d *daemon) hostPSS() hostMemory {
	m := hostMemory{daemon: d.rss()}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range dirs {
		b, _ := os.ReadFile(p + "/cmdline")
		line := strings.ReplaceAll(string(b), "\x00", " ")
		if strings.Contains(line, d.monitor) && strings.Contains(line, d.dir) {
			m.monitors += field(p+"/smaps_rollup", "Pss:")
		}
	}
	return m
}

// field reads a "Name:  123 kB" line, in bytes.
func field(file, name string) int64 {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n * 1024
		}
	}
	return 0
}
