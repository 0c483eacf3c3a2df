package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/template"
	"github.com/shoal-project/shoal/internal/errs"
)

// start runs the instance. The caller holds the lock.
func (s *Service) start(ctx context.Context, e *entry) error {
	if s.down.Load() {
		return errs.Unavailable("the host is shutting down")
	}
	if err := s.settled(ctx, e); err != nil {
		return err
	}
	e.cancelComeback()
	e.mu.Lock()
	if isRunning(e.status) {
		e.mu.Unlock()
		return errs.Invalid("The instance is already running")
	}
	r := newRun()
	e.run, e.status = r, api.Starting
	e.mu.Unlock()
	began := time.Now()
	if err := s.launch(ctx, e, r); err != nil {
		s.abandon(ctx, e, r)
		s.tell(e.name(), slog.LevelError, "the start failed", "err", err)
		return fmt.Errorf("start instance %q: %w", e.name().name, err)
	}
	s.tell(e.name(), slog.LevelInfo, "started", "pid", r.pid, "took", time.Since(began))
	return nil
}

// settled waits until an ended run is torn down, so that its remains are not taken for the next one's.
func (s *Service) settled(ctx context.Context, e *entry) error {
	e.mu.Lock()
	r := e.run
	if r == nil || !r.exited {
		e.mu.Unlock()
		return nil
	}
	e.mu.Unlock()
	return s.await(ctx, r.done)
}

// launch makes the process: root ready → templates → record written and addresses claimed while the driver creates → NICs → go.
// The record names the host's interfaces before they exist.
func (s *Service) launch(ctx context.Context, e *entry, r *run) error {
	name, took := e.name(), newSteps()
	item, err := s.store.get(name)
	if err != nil {
		return err
	}
	if item.Value.Phase != ready || item.Value.RenamingTo != "" || item.Value.Restoring != "" {
		return errs.Busy("the instance is not complete")
	}
	d, err := s.driverFor(item.Value.Type)
	if err != nil {
		return err
	}
	rec := item.Value.clone()
	if err := s.prepareRecord(name, &rec); err != nil {
		return err
	}
	x, err := s.checkExpanded(name.project, rec)
	if err != nil {
		return err
	}
	took.done("prepared")
	spec, err := s.spec(ctx, name, rec, x)
	if err != nil {
		return err
	}
	took.done("root")
	trigger := item.Value.Config["volatile.apply_template"]
	if err := s.applyTemplates(ctx, name, rec, x, spec.Root, trigger, string(actStart)); err != nil {
		return err
	}
	took.done("templates")
	// A daemon that dies from here on has applied them; a start that fails applies them again.
	delete(rec.Config, "volatile.apply_template")
	e.setTrigger(r, trigger)

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.store.write(gctx, item, rec)
		if err != nil {
			err = fmt.Errorf("write the record: %w", err)
		}
		took.done("record")
		return err
	})
	var created driver.Created
	g.Go(func() error {
		var err error
		created, err = d.Create(gctx, spec)
		took.done("created")
		return err
	})
	for _, n := range x.devs.NICs { // so that attaching finds the addresses claimed
		g.Go(func() error { return s.d.NICs.Reserve(gctx, nicOf(n, rec, name, 0)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	e.mu.Lock()
	r.pid, r.created = created.PID, time.Now()
	e.mu.Unlock()
	s.cpus.movable(e.id, d)
	if err := s.attachAll(ctx, name, rec, x.devs.NICs, created.PID); err != nil {
		return err
	}
	took.done("attached")
	e.mu.Lock()
	r.let = true
	e.mu.Unlock()
	if err := d.Start(ctx, rec.ID); err != nil {
		return err
	}
	took.done("started")
	took.log(s.log, "instance started", name)
	e.setTrigger(r, "")
	e.setFor(r, api.Running)
	return nil
}

// prepareRecord sets what a start changes in the record.
func (s *Service) prepareRecord(name ref, rec *record) error {
	if err := s.fillVolatile(name.project, rec); err != nil {
		return err
	}
	x, err := s.expand(name.project, *rec)
	if err != nil {
		return err
	}
	for _, n := range x.devs.NICs {
		setOr(rec.Config, volatileKey(n, "host_name"), n.Host, newHostName)
	}
	rec.Config["volatile.idmap.current"] = idmapJSON(rec.idmap(x))
	rec.Config["volatile.last_state.idmap"] = "[]" // the root is never shifted on disk
	rec.Config["volatile.last_state.power"] = "RUNNING"
	rec.LastUsedAt = s.d.Clock.Now()
	rec.Intent = wantNothing
	return nil
}

func newHostName() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])
}

// spec is what the driver needs. It makes the image and the root available.
func (s *Service) spec(ctx context.Context, name ref, rec record, x expanded) (driver.Spec, error) {
	if err := s.ensureDirs(rec.ID, name); err != nil {
		return driver.Spec{}, err
	}
	limits, err := s.firstLimits(ctx, rec.ID, x.cfg)
	if err != nil {
		return driver.Spec{}, err
	}
	spec := driver.Spec{
		ID: rec.ID, Dir: s.runDir(rec.ID), LogDir: s.logDir(name), Hostname: name.name.String(), IDMap: rec.idmap(x),
		Init: []string{"/sbin/init"}, Env: environment(x.cfg), Limits: limits, Rlimits: config.Rlimits(x.cfg),
		Nesting: config.IsTrue(x.cfg["security.nesting"]), CgroupView: "auto",
	}
	for _, d := range x.devs.Disks {
		if _, err := os.Stat(d.Source); err != nil {
			if d.Optional && os.IsNotExist(err) {
				continue
			}
			return spec, errs.Invalid("Missing source path %q for disk %q", d.Source, d.Name)
		}
		spec.Mounts = append(spec.Mounts, driver.Mount{Source: d.Source, Target: d.Path, ReadOnly: d.ReadOnly, Shift: d.Shift})
	}
	spec.Root, err = s.root(ctx, name, rec)
	return spec, err
}

// root makes the layers of an instance available.
func (s *Service) root(ctx context.Context, name ref, rec record) (driver.Root, error) {
	var root driver.Root
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		pool, err := api.ParsePoolName(rec.Pool)
		if err == nil {
			root.Data, err = s.d.Volumes.RootPath(ctx, pool, name.project, name.name)
		}
		return err
	})
	if rec.Image != "" {
		g.Go(func() error {
			fp, err := api.ParseFingerprint(rec.Image)
			if err != nil {
				return err
			}
			lower, err := s.d.Images.Mount(ctx, fp)
			root.Lower = []string{lower}
			return err
		})
	}
	err := g.Wait()
	if err == nil && rec.Image == "" {
		err = errs.Invalid("the instance was made without an image and has nothing to run")
	}
	return root, err
}

// environment is what environment.* says.
func environment(cfg api.Config) map[string]string {
	env := map[string]string{}
	for k, v := range cfg {
		if name, ok := strings.CutPrefix(k, "environment."); ok && v != "" {
			env[name] = v
		}
	}
	return env
}

func (s *Service) attachAll(ctx context.Context, name ref, rec record, nics []config.NIC, pid int) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range nics {
		g.Go(func() error {
			if _, err := s.d.NICs.Attach(ctx, nicOf(n, rec, name, pid)); err != nil {
				return fmt.Errorf("attach %s: %w", n.Device, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// abandon undoes a start that failed.
func (s *Service) abandon(ctx context.Context, e *entry, r *run) {
	ctx, cancel := detached(ctx)
	defer cancel()
	item, err := s.store.get(e.name())
	if err == nil {
		if d := s.d.Drivers[item.Value.Type]; d != nil {
			err = d.Kill(ctx, e.id)
		}
	}
	if r.pid != 0 && err == nil {
		// The driver will tell of this exit; when we are gone on it must not be taken for the next run's.
		err = s.await(ctx, r.gone)
	}
	err = errors.Join(err, s.tearDown(ctx, e, r, wantNothing))
	e.mu.Lock()
	mine := e.run == r
	if mine {
		e.run, e.status = nil, api.Stopped
		if err != nil {
			e.status = api.Error
		}
	}
	e.mu.Unlock()
	if mine {
		close(r.done)
	}
	if err != nil {
		s.log.Error("failed start cannot be cleaned up", "instance", e.name().String(), "err", err)
	}
}

// tearDown removes what a run left on the host and records that the instance is stopped and what comes next; once for each run.
func (s *Service) tearDown(ctx context.Context, e *entry, r *run, next intent) error {
	var err error
	r.teardown.Do(func() {
		s.releaseCPUs(ctx, e.id)
		name := e.name()
		var item record
		item, err = s.store.modify(ctx, name, func(rec *record) error {
			if rec.Intent != wantBack {
				rec.Config["volatile.last_state.power"] = "STOPPED"
			}
			if rec.Intent != wantNothing && rec.Intent != wantStart {
				next = wantNothing // it was decided that it stops
			}
			rec.Intent = next
			if trigger := e.trigger(r); trigger != "" {
				rec.Config["volatile.apply_template"] = trigger
			}
			return nil
		})
		if errs.IsNotFound(err) {
			err = nil
			return
		}
		err = errors.Join(err, s.clean(ctx, item, name))
	})
	return err
}

// applyTemplates writes the files that the image fills in for the triggers.
func (s *Service) applyTemplates(ctx context.Context, name ref, rec record, x expanded, root driver.Root, triggers ...string) error {
	if rec.Image == "" {
		return nil
	}
	fp, err := api.ParseFingerprint(rec.Image)
	if err != nil {
		return err
	}
	meta, err := s.d.Images.Metadata(ctx, fp)
	if err != nil {
		return err
	}
	layers := template.Layers{Upper: root.Data + "/upper", Lower: root.Lower}
	for _, trigger := range triggers {
		for _, path := range sorted(meta.Templates) {
			t := meta.Templates[path]
			if t == nil || trigger == "" || !contains(t.When, trigger) {
				continue
			}
			src, err := s.d.Images.Template(ctx, fp, t.Template)
			if err != nil {
				return fmt.Errorf("template of %q: %w", path, err)
			}
			out, err := template.Render(string(src), templateContext(name, rec, x, path, trigger, t.Properties))
			if err != nil {
				return fmt.Errorf("template of %q: %w", path, err)
			}
			if err := template.WriteFile(layers, path, []byte(out), t.CreateOnly); err != nil {
				return err
			}
		}
	}
	return nil
}

func templateContext(name ref, rec record, x expanded, path, trigger string, properties map[string]string) template.Context {
	yesNo := func(b bool) string { return fmt.Sprint(b) }
	self := map[string]any{
		"name": name.name.String(), "type": rec.Type, "architecture": rec.Architecture,
		"ephemeral": yesNo(rec.Ephemeral), "privileged": yesNo(isPrivileged(x)),
	}
	devices := map[string]any{}
	for dev, opts := range x.raw {
		devices[dev] = opts
	}
	return template.Context{
		Names:  map[string]any{"instance": self, "container": self, "trigger": trigger, "path": path, "config": x.cfg, "devices": devices, "properties": properties},
		Config: x.cfg,
	}
}
