package store

import (
	"context"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Manager runs the readers of another cluster's stores, each when its writer has said that everything is there: so nobody sees a half
// filled store.
type Manager struct {
	from   Watcher
	prefix string // of the canaries; "" starts all readers at once

	mu      sync.Mutex
	fns     map[string]func(context.Context)
	running bool
}

// NewManager returns a manager that starts the function registered as name when the key prefix+name exists: the Canary of a SyncStore. With
// prefix "" all start at once.
func NewManager(from Watcher, prefix string) (*Manager, error) {
	if prefix != "" {
		if err := checkPrefix(prefix); err != nil {
			return nil, err
		}
	}
	return &Manager{from: from, prefix: prefix, fns: map[string]func(context.Context){}}, nil
}

// Register adds a function that runs until its context ends. Not after Run, and each name once.
func (m *Manager) Register(name string, fn func(context.Context)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.running:
		return errs.Busy("the manager runs: %q comes too late", name)
	case m.fns[name] != nil:
		return errs.Exists("%q is registered already", name)
	}
	m.fns[name] = fn
	return nil
}

// Run starts the functions and returns when ctx has ended and all of them have. Names that nobody registered are left alone; a canary that
// goes away stops nothing.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return errs.Busy("the manager runs already")
	}
	m.running = true
	m.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	if m.prefix == "" {
		for _, fn := range m.fns {
			wg.Go(func() { fn(ctx) })
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	started := map[string]bool{}
	return m.from.NewWatcher(m.prefix).Run(ctx, func(b kvstore.Batch) error {
		for _, e := range b.Events {
			name := e.KV.Key[len(m.prefix):]
			if fn := m.fns[name]; fn != nil && e.Type != kvstore.Deleted && !started[name] {
				started[name] = true
				wg.Go(func() { fn(ctx) })
			}
		}
		return nil
	})
}
