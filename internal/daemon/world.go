package daemon

import (
	"context"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/identity/nodekey"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/scheduler"
)

// startWorld opens the World over the daemon's database and says there that this machine is up.
func (d *daemon) startWorld(ctx context.Context) (func(context.Context) error, error) {
	key, err := nodekey.Load(d.cfg.Dir)
	if err != nil {
		return nil, err
	}
	db := *d.database.Load()
	d.signer = world.NewEd25519Signer(key)
	o := world.Options{
		Machine: d.id, KV: db.client(), Clock: d.clock, Log: d.log,
		Signer:   d.signer,
		Verifier: world.Ed25519Verifier{Trusted: d.trustedKeys},
		Authors:  func() ([]string, error) { return d.rooms.config.DeployKeys(), nil },
	}
	o.Members, _ = db.(world.MemberSource) // of an etcd elsewhere nothing is known
	if d.rooms.world, err = world.New(ctx, o); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	var here *world.Presence
	go func() {
		defer close(done)
		if here = d.announce(ctx); here != nil { // the start does not wait for it
			d.pruneDeploys(ctx)
		}
	}()
	return func(ctx context.Context) error {
		<-done
		if here != nil {
			if err := here.Leave(ctx); err != nil {
				d.log.Debug("could not say that this machine goes down; it is seen soon", "err", err)
			}
		}
		return d.rooms.world.Close()
	}, nil
}

// announce says that this machine is up, again and again until it has worked; nil when ctx ended before.
func (d *daemon) announce(ctx context.Context) *world.Presence {
	for {
		here, err := d.rooms.world.Announce(ctx)
		if err == nil {
			return here
		}
		if ctx.Err() == nil {
			d.log.Warn("could not say that this machine is up; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Second):
		}
	}
}

// trustedKeys are the keys of all machines of the cluster and of the people who may deploy.
func (d *daemon) trustedKeys() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ms, err := d.rooms.world.Machines(ctx)
	if err != nil {
		return nil, err
	}
	keys := append(d.rooms.config.DeployKeys(), d.signer.Key())
	for _, m := range ms {
		keys = append(keys, m.Key)
	}
	return keys, nil
}

// pruneDeploys deletes old deploys after each new one, until ctx ends.
func (d *daemon) pruneDeploys(ctx context.Context) {
	w, err := d.rooms.world.WatchDeploy(ctx)
	if err != nil {
		d.log.Error("old deploys are not deleted", "err", err)
		return
	}
	defer w.Close()
	for range w.C() {
		if n, err := d.rooms.world.PruneDeploys(ctx, d.rooms.config.DeployKeep()); err != nil && ctx.Err() == nil {
			d.log.Warn("could not delete old deploys; it is tried again after the next one", "err", err)
		} else if n > 0 {
			d.log.Info("old deploys deleted", "deploys", n)
		}
	}
}

// Members makes this machine's database a world.MemberSource.
func (e *embedded) Members(context.Context) ([]world.Member, error) {
	h := e.member.Health()
	id, err := strconv.ParseUint(h.Member, 16, 64)
	if err != nil {
		return nil, err
	}
	return []world.Member{{ID: id, Name: h.Name, Leader: h.IsLeader}}, nil
}

// startScheduler has this machine stand by to compute the World's schedules.
func (d *daemon) startScheduler(ctx context.Context) (func(context.Context) error, error) {
	s, err := scheduler.New(scheduler.Deps{KV: (*d.database.Load()).client(), Namespace: d.rooms.world.Namespace(), Host: d.rooms.world.Machine(), Log: d.log})
	if err != nil {
		return nil, err
	}
	d.rooms.scheduler = s
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := s.Run(rctx); err != nil {
			d.log.Error("schedules are not computed any more", "err", err)
		}
	}()
	return func(ctx context.Context) error {
		cancel()
		<-ran
		return s.Close(ctx)
	}, nil
}
