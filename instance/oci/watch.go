package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// unknownCode is the exit code of an init whose end nobody saw.
const unknownCode = 255

// handle is a pidfd that can be waited for without a thread.
type handle struct{ f *os.File }

// openProcess returns a handle of exactly this process, os.ErrProcessDone when it is gone.
func openProcess(p shimproto.Process) (*handle, error) {
	if p.PID <= 1 {
		return nil, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	h := &handle{os.NewFile(uintptr(fd), "pidfd")}
	// Compared after opening: now the handle and the comparison mean the same process.
	if !p.Alive() {
		h.close()
		return nil, os.ErrProcessDone
	}
	return h, nil
}

func (h *handle) close() { _ = h.f.Close() }

func (h *handle) signal(sig unix.Signal) error {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(serr, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return serr
}

// wait returns when the process has ended, or with the context's error.
func (h *handle) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	raw, err := h.f.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = h.f.SetReadDeadline(time.Unix(1, 0)) })()
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, perr := unix.Poll(p, 0)
		return perr == nil && n > 0
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readProcess reads a process file; os.ErrProcessDone when there is none.
func readProcess(path string) (shimproto.Process, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return shimproto.Process{}, os.ErrProcessDone
	}
	if err != nil {
		return shimproto.Process{}, err
	}
	return shimproto.ParseProcess(string(b))
}

// openRecorded opens the process that a file names.
func openRecorded(path string) (shimproto.Process, *handle, error) {
	p, err := readProcess(path)
	if err != nil {
		return p, nil, err
	}
	h, err := openProcess(p)
	return p, h, err
}

// killProcess ends the process that a file names and waits for its end.
func killProcess(ctx context.Context, path string) error {
	_, h, err := openRecorded(path)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return h.wait(ctx)
}

// watch makes the record of an instance whose init exists and waits for its end in the background. os.ErrProcessDone when
// init is gone already and no shim is left to say how.
func (d *Driver) watch(spec driver.Spec) (*record, error) {
	r := &record{spec: spec, gone: make(chan struct{})}
	_, shim, err := openRecorded(filepath.Join(spec.Dir, shimproto.ShimPIDFile))
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, err
	}
	p, init, err := openRecorded(filepath.Join(spec.Dir, shimproto.InitPIDFile))
	if err != nil && (!errors.Is(err, os.ErrProcessDone) || shim == nil) {
		if shim != nil {
			shim.close()
		}
		return nil, err
	}
	r.init = p
	r.shimless.Store(shim == nil)
	d.wg.Go(func() { d.follow(r, shim, init) })
	return r, nil
}

// follow waits until the instance is gone and says so once.
func (d *Driver) follow(r *record, shim, init *handle) {
	if init != nil {
		defer init.close()
	}
	if shim != nil {
		defer shim.close()
		if shim.wait(d.ctx) != nil {
			return // the daemon ends; the next one takes over
		}
	}
	exit, err := readExit(r.spec.Dir)
	if err != nil {
		// No record: the shim was killed, before or after init. There is no console any more, but init is watched all the same.
		d.cfg.Logger.Warn("the monitor of a container is gone", "instance", r.spec.ID, "err", err)
		r.shimless.Store(true)
		if init != nil && init.wait(d.ctx) != nil {
			return
		}
		exit = driver.Exit{Time: time.Now(), Code: unknownCode}
		if err := shimproto.WriteJSON(filepath.Join(r.spec.Dir, shimproto.ExitFile),
			shimproto.Exit{UnixNano: exit.Time.UnixNano(), Code: exit.Code}); err != nil {
			d.cfg.Logger.Error("record the exit of a container", "instance", r.spec.ID, "err", err)
		}
	}
	r.exit = exit
	close(r.gone) // before OnExit: its receiver may wait for a lock that somebody in Kill holds
	if d.cfg.OnExit != nil && !isTemp(r.spec) {
		d.cfg.OnExit(r.spec.ID, exit)
	}
}

func readExit(dir string) (driver.Exit, error) {
	b, err := os.ReadFile(filepath.Join(dir, shimproto.ExitFile))
	if err != nil {
		return driver.Exit{}, err
	}
	var e shimproto.Exit
	if err := json.Unmarshal(b, &e); err != nil {
		return driver.Exit{}, fmt.Errorf("exit record: %w", err)
	}
	return driver.Exit{Time: time.Unix(0, e.UnixNano), Code: e.Code, Reboot: e.Reboot}, nil
}
