package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// Recover implements [driver.Driver]. A record that cannot be read is logged and left alone: it may be of a newer version.
func (d *Driver) Recover(ctx context.Context) ([]driver.Recovered, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var out []driver.Recovered
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || e.IsDir() {
			continue
		}
		spec, err := d.recall(id)
		if err != nil || spec.ID != id {
			d.cfg.Logger.Error("unreadable record of a container", "instance", id, "err", err)
			continue
		}
		if isTemp(spec) { // nobody is left who could use it
			if err := errors.Join(d.killRemains(ctx, spec), d.Cleanup(ctx, id)); err != nil {
				d.cfg.Logger.Error("remove a container that served files", "instance", id, "err", err)
			}
			continue
		}
		r, err := d.recoverOne(ctx, spec)
		if err != nil {
			return out, fmt.Errorf("recover %s: %w", id, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *Driver) recoverOne(ctx context.Context, spec driver.Spec) (driver.Recovered, error) {
	out := driver.Recovered{ID: spec.ID}
	d.awaitCreation(ctx, spec)
	r, err := d.watch(spec)
	if errors.Is(err, os.ErrProcessDone) {
		r, err = d.ended(spec), nil
	}
	if err != nil {
		return out, err
	}
	// A shim that is just leaving counts as gone; the wait is for it to write its record, not for the instance.
	if _, h, err := openRecorded(filepath.Join(spec.Dir, shimproto.InitPIDFile)); err != nil {
		select {
		case <-r.gone:
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return out, context.Cause(ctx)
		}
	} else {
		h.close()
	}
	d.mu.Lock()
	d.recs[spec.ID] = r
	d.mu.Unlock()
	if r.exited() {
		out.Exit = r.exit
		out.Started = !r.exit.Time.IsZero()
		return out, nil
	}
	out.Running, out.PID, out.Started = true, r.init.PID, !r.waiting()
	if c, err := r.cgroups(); err == nil {
		out.Frozen, _ = c.frozen()
		out.CPUs = c.cpus()
	}
	return out, nil
}

// awaitCreation lets a shim finish that is in the middle of creating its container: it goes on when its daemon dies.
func (d *Driver) awaitCreation(ctx context.Context, spec driver.Spec) {
	_, h, err := openRecorded(filepath.Join(spec.Dir, shimproto.ShimPIDFile))
	if err != nil {
		return
	}
	defer h.close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// The answer comes once the container is there; an error means that it never will be, and the files then say so.
	_, _ = d.ask(ctx, &record{spec: spec}, shimproto.Request{Op: shimproto.OpStatus})
}

// ended makes the record of an instance without any process: its exit is what the shim wrote, or unknown and without time when
// it never ran or the host was restarted.
func (d *Driver) ended(spec driver.Spec) *record {
	r := &record{spec: spec, gone: make(chan struct{})}
	exit, err := readExit(spec.Dir)
	if err != nil {
		exit = driver.Exit{Code: unknownCode}
	}
	r.exit = exit
	close(r.gone)
	return r
}
