package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/lifecycle"
	"github.com/shoal-project/shoal/internal/rest"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/world"
)

// Config is what the command line gives.
type Config struct {
	Dir     string // the state directory
	Group   string // whose members may use the socket; empty: "shoal" where it exists
	LogFile string // empty: standard error
	Debug   bool
	Version string
	KVStore string // "" or "embedded": this machine's own; "etcd.config=FILE": a cluster that somebody else runs
}

// Run runs the daemon until ctx ends, a signal or a client asks it to stop. nil after a clean stop.
func Run(ctx context.Context, cfg Config) error {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return err
	}
	kvFile, err := parseKVStore(cfg.KVStore)
	if err != nil {
		return err
	}
	if kvFile != "" {
		if _, err := etcd.LoadConfig(kvFile); err != nil {
			return err // before anything is made
		}
	}
	cfg.Dir = dir
	if err := prepareDir(cfg.Dir); err != nil {
		return err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	d := &daemon{cfg: cfg, kvFile: kvFile, clock: clock.Real{}, asked: make(chan rest.ShutdownRequest, 1)}
	if d.id, err = nodeID(cfg.Dir); err != nil {
		return err
	}
	out, err := logOutput(cfg.LogFile)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	if d.hub, err = events.New(events.Deps{Clock: d.clock}); err != nil {
		return err
	}
	level := slog.LevelInfo
	if cfg.Debug {
		level = slog.LevelDebug
	}
	d.log = slog.New(d.hub.LogHandler(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})))
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	return d.run(ctx)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func logOutput(path string) (io.WriteCloser, error) {
	if path == "" {
		return nopCloser{os.Stderr}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	return f, nil
}

type daemon struct {
	cfg    Config
	id     string // of this node, see nodeID
	kvFile string // configuration of the cluster elsewhere; empty: the database is embedded
	clock  clock.Clock
	log    *slog.Logger
	hub    *events.Hub
	rest   *rest.Server
	asked  chan rest.ShutdownRequest
	group  *lifecycle.Group

	database atomic.Pointer[database] // nil until it is there
	net      httpsAPI
	rooms    rooms
	signer   world.Signer // of what this machine adds to the World
	opened   atomic.Bool  // all rooms are there
	idle     bool         // no instance was up when the instances' service stopped
}

// run starts the services in order and stops them when ctx ends, when a client asks for it, or when one fails.
func (d *daemon) run(ctx context.Context) error {
	began := d.clock.Now()
	d.group = lifecycle.New(d.log)
	// Services get the end of stop, not of ctx: operations may finish in between.
	sctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		how := rest.ShutdownRequest{Timeout: -1}
		power := make(chan os.Signal, 1)
		signal.Notify(power, unix.SIGPWR)
		defer signal.Stop(power)
		select {
		case <-ctx.Done():
			how.Force = true // whoever sends a signal does not wait for long
		case how = <-d.asked:
		case <-power:
			how.Instances = true // as LXD
		case <-sctx.Done():
			return
		}
		_, _ = sdnotify.SdNotify(false, sdnotify.SdNotifyStopping)
		d.log.Info("daemon stops", "force", how.Force, "instances", how.Instances)
		d.finishOperations(how)
		if how.Instances {
			d.stopInstances(sctx)
		}
		stop()
	}()
	err := d.group.Run(sctx, func() {
		d.open()
		d.log.Info("daemon is ready", "dir", d.cfg.Dir, "version", d.cfg.Version, "pid", os.Getpid(), "took", d.clock.Now().Sub(began))
		_, _ = sdnotify.SdNotify(false, sdnotify.SdNotifyReady) // not under systemd: nobody to tell
	}, d.services()...)
	if d.idle {
		d.unmountIdle()
	}
	return err
}

// finishOperations refuses new requests and lets running operations end, as long as the client or the configuration
// allows.
func (d *daemon) finishOperations(how rest.ShutdownRequest) {
	if !d.opened.Load() {
		return
	}
	d.rest.SetStopping()
	wait := how.Timeout
	if wait < 0 {
		wait = d.rooms.config.ShutdownWait()
	}
	if how.Force {
		wait = 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	d.rooms.ops.WaitIdle(ctx)
}

// stopInstances stops what runs, because the host goes down.
func (d *daemon) stopInstances(ctx context.Context) {
	if !d.opened.Load() {
		d.log.Error("instances are not stopped: the daemon has not started yet")
		return
	}
	if err := d.rooms.instances.StopAll(ctx); err != nil {
		d.log.Error("not every instance was stopped", "err", err)
	}
}
