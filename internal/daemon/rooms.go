package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/shoal-project/shoal/cluster/config"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/identity/trust"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/profile"
	"github.com/shoal-project/shoal/internal/lifecycle"
	"github.com/shoal-project/shoal/internal/op"
	"github.com/shoal-project/shoal/internal/rest"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network"
	"github.com/shoal-project/shoal/storage"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/scheduler"
)

// rooms are the services of this daemon. Each field is set by the service that makes it, before the next one starts.
type rooms struct {
	db          *state.DB
	ops         *op.Registry
	config      *config.Service
	projects    *project.Service
	world       *world.World
	worldFS     *fs.Store
	worldMounts worldMounts
	scheduler   *scheduler.Scheduler
	trust       *trust.Service
	storage     *storage.Service
	images      *image.Service
	networks    *network.Service
	drivers     []driver.Driver // of instances
	instances   *instance.Service
	profiles    *profile.Service
}

// services are the parts in the order of their start.
func (d *daemon) services() []lifecycle.Service {
	return []lifecycle.Service{
		part("socket", d.startSocket),
		{Name: "database", Run: d.runDatabase, StartBudget: d.databaseBudget()},
		part("operations", d.startOperations),
		part("world", d.startWorld),
		part("shared file system", d.startWorldFS),
		part("scheduler", d.startScheduler),
		part("storage", d.startStorage),
		{Name: "images", Run: part("images", d.startImages).Run, StopBudget: time.Minute},
		part("networks", d.startNetworks),
		part("instances", d.startInstances),
		part("https", d.startHTTPS),
	}
}

// part makes a service of something that is started and later stopped.
func part(name string, start func(context.Context) (stop func(context.Context) error, err error)) lifecycle.Service {
	return lifecycle.Service{Name: name, Run: func(ctx context.Context, ready func()) error {
		stop, err := start(ctx)
		if err != nil {
			return err
		}
		ready()
		<-ctx.Done()
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBudget)
		defer cancel()
		return stop(sctx)
	}}
}

// stopBudget is how long each part may take to stop.
const stopBudget = 5 * time.Second

// startSocket opens the socket; until open every endpoint answers that the daemon starts.
func (d *daemon) startSocket(context.Context) (func(context.Context) error, error) {
	var err error
	d.rest, err = rest.New(rest.Deps{Logger: d.log, Clock: d.clock, Events: d.hub, Database: d.debugDatabase, Shutdown: func(r rest.ShutdownRequest) {
		d.asked <- r
	}})
	if err != nil {
		return nil, err
	}
	l, err := listen(d.cfg.Dir, d.cfg.Group)
	if err != nil {
		return nil, err
	}
	srv := d.rest.HTTPServer()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	return func(ctx context.Context) error {
		d.hub.Close()
		d.rest.CloseStreams()
		err := srv.Shutdown(ctx)
		if err != nil {
			d.log.Warn("clients held on to their requests", "err", err)
			err = srv.Close()
		}
		if serr := <-failed; !errors.Is(serr, http.ErrServerClosed) && !errors.Is(serr, net.ErrClosed) {
			err = errors.Join(err, serr)
		}
		return err
	}, nil
}

func (d *daemon) startOperations(context.Context) (func(context.Context) error, error) {
	var err error
	if d.rooms.config, err = config.New(config.Deps{State: d.rooms.db, Node: d.id, Prepare: d.prepareConfig}); err != nil {
		return nil, err
	}
	if d.rooms.projects, err = project.New(project.Deps{
		State: d.rooms.db, UsedBy: d.projectUsedBy, Contents: d.projectContents, Leftovers: profile.NewStore(d.rooms.db).Leftovers, Forget: d.forgetProject,
	}); err != nil {
		return nil, err
	}
	if d.net.pair, err = d.keypair(); err != nil {
		return nil, err
	}
	if d.rooms.trust, err = d.newTrust(); err != nil {
		return nil, err
	}
	d.rooms.ops, err = op.New(op.Deps{Events: d.hub, Clock: d.clock, Logger: d.log})
	return func(ctx context.Context) error { return d.rooms.ops.Stop(ctx) }, err
}

func (d *daemon) startStorage(ctx context.Context) (func(context.Context) error, error) {
	var err error
	d.rooms.storage, err = storage.New(storage.Deps{
		Dir: d.cfg.Dir, State: d.rooms.db, Drivers: d.storageDrivers(), Clock: d.clock, Logger: d.log, UsedBy: d.poolUsedBy,
	})
	if err != nil {
		return nil, err
	}
	if err := d.rooms.storage.Recover(ctx); err != nil {
		d.log.Error("storage left something undone; it is tried again at the next start", "err", err)
	}
	return func(context.Context) error { return d.rooms.storage.Close() }, nil
}

func (d *daemon) startImages(ctx context.Context) (func(context.Context) error, error) {
	var err error
	d.rooms.images, err = image.New(ctx, image.Deps{
		Dir: d.cfg.Dir, State: d.rooms.db, Runner: run.Host{}, Clock: d.clock, Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.rooms.images.Recover(ctx); err != nil {
		d.log.Error("images left something undone; it is tried again at the next start", "err", err)
	}
	return func(context.Context) error { return d.rooms.images.Close() }, nil
}

func (d *daemon) startNetworks(ctx context.Context) (func(context.Context) error, error) {
	var err error
	d.rooms.networks, err = network.New(network.Deps{
		ID: d.id, State: d.rooms.db, Clock: d.clock, Logger: d.log, UsedBy: d.networkUsedBy, Gate: d.rooms.projects.Gate,
	})
	if err != nil {
		return nil, err
	}
	if err := d.rooms.networks.Start(ctx); err != nil {
		return nil, err
	}
	return func(context.Context) error { d.rooms.networks.Close(); return nil }, nil
}

// startInstances adopts what still runs and starts, in the background, what shall run.
func (d *daemon) startInstances(ctx context.Context) (func(context.Context) error, error) {
	drivers, closeDrivers, err := d.instanceDrivers(ctx)
	if err != nil {
		return nil, err
	}
	profiles := profile.NewStore(d.rooms.db)
	s, err := instance.New(instance.Deps{
		State: d.rooms.db, Profiles: profiles, Drivers: drivers, Volumes: d.rooms.storage, Images: d.rooms.images,
		NICs: d.rooms.networks, Guests: d.rooms.networks, Projects: d.rooms.projects, Events: d.hub, Dir: d.cfg.Dir, Clock: d.clock, Logger: d.log,
	})
	if err != nil {
		closeDrivers()
		return nil, err
	}
	d.rooms.instances = s
	if d.rooms.profiles, err = profile.New(profile.Deps{Store: profiles, Users: s, Events: d.hub}); err != nil {
		return nil, err
	}
	if err := s.Recover(ctx); err != nil {
		return nil, fmt.Errorf("recover instances: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Autostart(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("not every instance was started", "err", err)
		}
		s.Minutely(ctx)
	}()
	return func(ctx context.Context) error {
		d.idle = !d.anyInstanceUp()
		err := s.Close(ctx)
		closeDrivers()
		select {
		case <-done:
		case <-ctx.Done():
			err = errors.Join(err, fmt.Errorf("wait for autostart: %w", ctx.Err()))
		}
		return err
	}, nil
}

// open opens the endpoints; all rooms are there.
func (d *daemon) open() {
	d.rest.SetReady(rest.Services{
		Operations:  d.rooms.ops,
		Server:      d,
		Trust:       d.rooms.trust,
		Projects:    d.rooms.projects,
		Instances:   d.rooms.instances,
		Profiles:    d.rooms.profiles,
		Images:      d.rooms.images,
		Networks:    d.rooms.networks,
		Storage:     d.rooms.storage,
		World:       d.rooms.world,
		WorldFS:     d.rooms.worldFS,
		WorldMounts: d.rooms.worldMounts,
		Scheduler:   d.rooms.scheduler,
		Warnings:    d.warnings,
		Resources:   hostResources,
	})
	d.opened.Store(true)
}
