package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/fs/fusefs"
)

// collectEvery is how often the shared file system is cleaned of what nothing leads to.
const collectEvery = time.Hour

// startWorldFS opens the shared file system, which lies in the World's namespace.
func (d *daemon) startWorldFS(ctx context.Context) (func(context.Context) error, error) {
	db := *d.database.Load()
	store, err := fs.New(fs.Deps{KV: db.client(), Prefix: d.rooms.world.Namespace().Prefix("fs"), Now: d.clock.Now, Log: d.log})
	if err != nil {
		return nil, err
	}
	mounts, err := fusefs.New(fusefs.Deps{Store: store, Log: d.log, Source: "shoal-" + d.id})
	if err != nil {
		return nil, err
	}
	d.rooms.worldFS, d.rooms.worldMounts = store, worldMounts{mounts}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { store.Maintain(ctx, collectEvery) })
	return func(ctx context.Context) error {
		cancel()
		err := mounts.Close()
		wg.Wait()
		return errors.Join(err, store.Close(ctx))
	}, nil
}

// worldMounts speaks the words of the API.
type worldMounts struct{ *fusefs.Mounts }

// Mounted implements rest.WorldMounts.
func (m worldMounts) Mounted() []api.WorldMount {
	out := []api.WorldMount{}
	for _, x := range m.List() {
		out = append(out, api.WorldMount{Volume: x.Volume, Path: x.Path})
	}
	return out
}
