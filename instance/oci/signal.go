package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
)

// Signals that ask an init to power off.
const (
	sigPower    = unix.SIGPWR
	sigPoweroff = unix.Signal(37) // SIGRTMIN+3, systemd's
)

// Shutdown implements [driver.Driver]. An init that blocks SIGRTMIN+3 is systemd, which waits for it through a descriptor; every
// other gets SIGPWR. (The rule is LXC's.)
func (d *Driver) Shutdown(_ context.Context, id string) error {
	r, err := d.running(id)
	if err != nil {
		return err
	}
	h, err := openProcess(r.init)
	if errors.Is(err, os.ErrProcessDone) {
		return errs.Invalid("Instance is not running")
	}
	if err != nil {
		return err
	}
	defer h.close()
	sig := sigPower
	if statusMask(strconv.Itoa(r.init.PID), "SigBlk:")&(1<<(sigPoweroff-1)) != 0 {
		sig = sigPoweroff
	}
	if err := h.signal(sig); err != nil {
		return fmt.Errorf("ask init of %s to stop: %w", id, err)
	}
	return nil
}

// Kill implements [driver.Driver].
func (d *Driver) Kill(ctx context.Context, id string) error {
	d.mu.Lock()
	r := d.recs[id]
	d.mu.Unlock()
	if r == nil || r.exited() {
		return nil
	}
	h, err := openProcess(r.init)
	switch {
	case err == nil:
		defer h.close()
		if err := h.signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill %s: %w", id, err)
		}
		// A frozen process of cgroup v1 does not even die.
		if c, err := r.cgroups(); err == nil {
			if f, err := c.frozen(); err == nil && f {
				if err := c.freeze(ctx, false); err != nil && ctx.Err() != nil {
					return err
				}
			}
		}
	case !errors.Is(err, os.ErrProcessDone):
		return err
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-r.gone:
			return nil
		case <-again.C:
			// A runtime that was starting a command keeps a dead child, and with it init, when init dies at the wrong moment.
			killAll(r.spec)
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %s: %w", id, context.Cause(ctx))
		case <-d.ctx.Done(): // it is killed, but nobody watches any more
			return errs.Unavailable("the container driver is closed")
		}
	}
}

// Freeze implements [driver.Driver]; an instance that is frozen stays so. The kernel does it within a millisecond or so; ctx bounds it.
func (d *Driver) Freeze(ctx context.Context, id string) error { return d.setFrozen(ctx, id, true) }

// Unfreeze implements [driver.Driver].
func (d *Driver) Unfreeze(ctx context.Context, id string) error { return d.setFrozen(ctx, id, false) }

func (d *Driver) setFrozen(ctx context.Context, id string, want bool) error {
	r, err := d.running(id)
	if err != nil {
		return err
	}
	c, err := r.cgroups()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c.freeze(ctx, want)
}

// awake returns an instance that runs and is not frozen.
func (d *Driver) awake(id string) (*record, error) {
	r, err := d.running(id)
	if err != nil {
		return nil, err
	}
	c, err := r.cgroups()
	if err != nil {
		return nil, err
	}
	if f, err := c.frozen(); err == nil && f {
		return nil, errs.Invalid("Instance is frozen")
	}
	return r, nil
}

// Stats implements [driver.Driver].
func (d *Driver) Stats(_ context.Context, id string) (driver.Stats, error) {
	r, err := d.running(id)
	if err != nil {
		return driver.Stats{}, err
	}
	c, err := r.cgroups()
	if err != nil {
		return driver.Stats{}, err
	}
	s := c.Stats()
	s.InitPID = r.init.PID
	return s, nil
}

// SetLimits implements [driver.Limiter].
func (d *Driver) SetLimits(ctx context.Context, id string, l driver.Limits) error {
	r, err := d.running(id)
	if err != nil {
		return err
	}
	// All of them each time, so that one that was taken away goes: -1 is the runtime's "none".
	args := []string{"--root", filepath.Join(r.spec.Dir, shimproto.RuntimeDir), "update"}
	num := func(flag string, n int64) {
		if n <= 0 {
			n = -1
		}
		args = append(args, "--"+flag+"="+strconv.FormatInt(n, 10))
	}
	num("memory", l.MemoryBytes)
	num("memory-swap", -1)
	num("cpu-quota", int64(l.CPUQuota/time.Microsecond))
	num("pids-limit", l.Processes)
	period := l.CPUPeriod
	if period == 0 {
		period = 100 * time.Millisecond
	}
	args = append(args, "--cpu-period="+strconv.FormatInt(int64(period/time.Microsecond), 10))
	shares := l.CPUShares
	if shares == 0 {
		shares = defaultShares
	}
	args = append(args, "--cpu-share="+strconv.FormatInt(shares, 10))
	cpus := l.CPUs
	if cpus == "" {
		cpus = onlineCPUs()
	}
	if cpus != "" {
		args = append(args, "--cpuset-cpus="+cpus)
	}
	_, err = d.cfg.Runner.Run(ctx, run.Command{Name: d.cfg.Runtime, Args: args, Operands: []string{id}, Timeout: 30 * time.Second})
	if err != nil {
		return fmt.Errorf("set limits of %s: %w", id, err)
	}
	return nil
}

// defaultShares is the weight that the kernel gives a new cgroup.
const defaultShares = 1024

func onlineCPUs() string {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return ""
	}
	return string(b[:max(0, len(b)-1)])
}
