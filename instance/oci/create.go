package oci

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
)

// Create implements [driver.Driver]. When it fails, nothing is left.
func (d *Driver) Create(ctx context.Context, spec driver.Spec) (driver.Created, error) {
	if err := checkSpec(spec); err != nil {
		return driver.Created{}, err
	}
	if err := d.endSessions(ctx, spec.ID); err != nil { // the root belongs to one container at a time
		return driver.Created{}, err
	}
	return d.create(ctx, spec, false)
}

// create makes a container; with agent its init is the agent in pause mode.
func (d *Driver) create(ctx context.Context, spec driver.Spec, agent bool) (driver.Created, error) {
	if _, err := os.Stat(d.specPath(spec.ID)); err == nil {
		return driver.Created{}, errs.Exists("instance %q has a process already, or was not cleaned up", spec.ID)
	}
	facts, err := d.usable(ctx)
	if err != nil {
		return driver.Created{}, err
	}
	conf, err := BuildSpec(spec, facts, cgroupPath(spec))
	if err != nil {
		return driver.Created{}, err
	}
	if err := d.remember(spec); err != nil {
		return driver.Created{}, err
	}
	r, err := d.startShim(ctx, spec, conf, agent)
	if err != nil {
		if cerr := d.Cleanup(context.WithoutCancel(ctx), spec.ID); cerr != nil {
			d.cfg.Logger.Error("clean up after a failed create", "instance", spec.ID, "err", cerr)
		}
		return driver.Created{}, fmt.Errorf("create container %s: %w", spec.ID, err)
	}
	d.mu.Lock()
	d.recs[spec.ID] = r
	d.mu.Unlock()
	return driver.Created{PID: r.init.PID}, nil
}

// cgroupPath is unique on the host: two daemons may have an instance of the same name.
func cgroupPath(s driver.Spec) string { return "/shoal/" + cgroupLeaf(s) }

func cgroupLeaf(s driver.Spec) string {
	sum := sha256.Sum256([]byte(s.Dir))
	return s.ID + "." + hex.EncodeToString(sum[:4])
}

func (d *Driver) shimConfig(spec driver.Spec, agent bool) shimproto.Config {
	c := shimproto.Config{
		ID: spec.ID, Runtime: d.cfg.Runtime, Base: spec.IDMap.Base, Size: spec.IDMap.Size,
		Lower: spec.Root.Lower, Data: spec.Root.Data, Path: spec.Root.Path,
		Console: filepath.Join(spec.LogDir, shimproto.ConsoleFile), Cgroup: "shoal-shim", Agent: agent,
	}
	for i, m := range spec.Mounts {
		if m.Shift && spec.IDMap.Size > 0 {
			c.Shift = append(c.Shift, shimproto.Shift{Source: m.Source, Name: mountName(i)})
		}
	}
	return c
}

// startShim writes what the shim needs, starts it, waits for its report and begins to watch it.
func (d *Driver) startShim(ctx context.Context, spec driver.Spec, conf any, agent bool) (*record, error) {
	if err := shimproto.WriteJSON(filepath.Join(spec.Dir, shimproto.ConfigFile), d.shimConfig(spec, agent)); err != nil {
		return nil, err
	}
	if err := shimproto.WriteJSON(filepath.Join(spec.Dir, shimproto.SpecFile), conf); err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	log, err := os.OpenFile(filepath.Join(spec.LogDir, "shim.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		_ = write.Close()
		return nil, err
	}
	defer log.Close()
	extra := []*os.File{write}
	if agent {
		f, err := d.agent.get(d.cfg.Agent)
		if err != nil {
			_ = write.Close()
			return nil, err
		}
		extra = append(extra, f)
	}
	p, err := d.cfg.Runner.Start(ctx, run.Command{
		Name: d.cfg.Shim, Operands: []string{spec.Dir}, NoGuard: true, Stderr: log, ExtraFiles: extra,
		Env: []string{"GOMAXPROCS=1", "GOGC=20"},
		// Not Unshareflags: Go would make the mounts private, and mounts that the host makes later would never arrive.
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setsid: true},
	})
	_ = write.Close()
	if err != nil {
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	if err := d.report(ctx, read); err != nil {
		_ = p.Signal(syscall.SIGKILL)
		_ = p.Wait()
		return nil, err
	}
	return d.watch(spec)
}

// report reads the shim's one line.
func (d *Driver) report(ctx context.Context, pipe *os.File) error {
	defer context.AfterFunc(ctx, func() { _ = pipe.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(pipe).ReadBytes('\n')
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the shim ended without a report: %w", err)
	}
	var rep shimproto.Reply
	if err := json.Unmarshal(line, &rep); err != nil {
		return fmt.Errorf("report of the shim: %w", err)
	}
	if rep.Error != "" {
		return errors.New(rep.Error)
	}
	return nil
}

// Start implements [driver.Driver].
func (d *Driver) Start(ctx context.Context, id string) error {
	r, err := d.running(id)
	if err != nil {
		return err
	}
	if !r.waiting() {
		return errs.Invalid("instance %q is not waiting for its start", id)
	}
	if _, err := d.ask(ctx, r, shimproto.Request{Op: shimproto.OpStart}); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// waiting tells whether a created container was not started yet: the runtime removes this when it has.
func (r *record) waiting() bool {
	_, err := os.Stat(filepath.Join(r.spec.Dir, shimproto.RuntimeDir, r.spec.ID, shimproto.ExecFifo))
	return err == nil
}

// Cleanup implements [driver.Driver].
func (d *Driver) Cleanup(ctx context.Context, id string) error {
	if err := d.endSessions(ctx, id); err != nil {
		return err
	}
	spec, err := d.recall(id)
	if errs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	r := d.recs[id]
	d.mu.Unlock()
	if r != nil && !r.exited() && !r.waiting() {
		return errs.Busy("instance %q runs", id)
	}
	if r != nil && !r.exited() { // created, never started
		if err := d.Kill(ctx, id); err != nil {
			return err
		}
	}
	if err := d.killRemains(ctx, spec); err != nil {
		return fmt.Errorf("clean up container %s: %w", id, err)
	}
	if err := clearDir(spec.Dir); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.recs, id)
	d.mu.Unlock()
	if err := os.Remove(d.specPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// killRemains ends what a create that was cut off, or a killed shim, has left: the shim, and with the runtime's
// force-delete the container and its cgroups.
func (d *Driver) killRemains(ctx context.Context, spec driver.Spec) error {
	if err := killProcess(ctx, filepath.Join(spec.Dir, shimproto.ShimPIDFile)); err != nil {
		return err
	}
	if err := killProcess(ctx, filepath.Join(spec.Dir, shimproto.InitPIDFile)); err != nil {
		return err
	}
	root := filepath.Join(spec.Dir, shimproto.RuntimeDir)
	_, serr := os.Stat(filepath.Join(root, spec.ID))
	if _, err := d.usable(ctx); serr == nil && err == nil { // without a runtime, what follows must do
		_, err := d.cfg.Runner.Run(ctx, run.Command{
			Name: d.cfg.Runtime, Args: []string{"--root", root, "delete", "--force"}, Operands: []string{spec.ID}, Timeout: 30 * time.Second,
		})
		if err != nil {
			return err
		}
	}
	return removeCgroups(ctx, spec)
}

// clearDir removes the driver's files and keeps the directory, which the instance room made. Nothing is ever mounted below it.
func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == tempDir {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

var errBadCwd = errs.Invalid("the working directory does not exist in the instance or is not accessible")

// execError tells what a runtime's message about a command means: the exit code that a shell would give, or an error.
func execError(text string) (int, error) {
	switch {
	case strings.Contains(text, "chdir to cwd"):
		return 0, errBadCwd
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return 127, nil
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"), strings.Contains(text, "exec format error"):
		return 126, nil
	}
	return 0, fmt.Errorf("run the command: %s", strings.TrimSpace(text))
}
