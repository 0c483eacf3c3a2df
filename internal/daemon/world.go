package daemon

import (
	"context"
	"strconv"

	"github.com/shoal-project/shoal/world"
)

// startWorld opens the World over the daemon's database.
func (d *daemon) startWorld(ctx context.Context) (func(context.Context) error, error) {
	db := *d.database.Load()
	o := world.Options{Machine: d.id, KV: db.client(), Clock: d.clock, Log: d.log}
	o.Members, _ = db.(world.MemberSource) // of an etcd elsewhere nothing is known
	var err error
	d.rooms.world, err = world.New(ctx, o)
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return d.rooms.world.Close() }, nil
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
