package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

const (
	heartbeatEvery = time.Minute
	// heartbeatTTL is longer than a restart of the cluster takes, so that not every one of them costs a lease.
	heartbeatTTL = time.Minute
	// retryDatabase is the pause between two attempts to reach the cluster at the start.
	retryDatabase = time.Second
)

// heartbeats is the prefix of the keys that daemons on a cluster elsewhere write every minute, leased: heartbeats/<node>. The member in this
// process needs none, raft knows who is alive.
func heartbeats() string { return state.DefaultPrefix + "heartbeats/" }

// ownerKey holds, as JSON, the one machine whose daemon uses the keys.
func ownerKey() string { return state.DefaultPrefix + "owner" }

type owner struct {
	ID   string `json:"id"`
	Host string `json:"host"`
}

// external is a cluster that somebody else runs.
type external struct {
	kv     *kvstore.Client
	health *kvstore.Health
	cfg    etcd.Config
	file   string
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// openExternal connects to the cluster, waiting for it as long as it takes: the socket is open meanwhile and instances run. What waiting
// cannot mend is an error at once.
func (d *daemon) openExternal(ctx context.Context) (database, error) {
	if _, ok, err := d.readDatabaseFile("identity.json"); err != nil {
		return nil, err
	} else if ok {
		return nil, errs.Invalid("%s has a database of its own: start without --kvstore, or with another --dir", d.cfg.Dir)
	}
	cfg, err := etcd.LoadConfig(d.kvFile)
	if err != nil {
		return nil, err
	}
	kv, err := d.reach(ctx, cfg)
	if err != nil {
		return nil, err
	}
	e := &external{kv: kv, health: kv.NewHealth(kvstore.HealthConfig{}), cfg: cfg, file: d.kvFile}
	bctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	pool := kv.NewPool(kvstore.PoolConfig{TTL: heartbeatTTL})
	e.wg.Go(func() { _ = kv.Beat(bctx, pool, heartbeats()+d.id, heartbeatEvery) })
	e.wg.Go(func() {
		for err := range e.health.Errors() {
			d.log.Error("the database does not answer; shoal admin etcd-debug says more", "err", err)
		}
	})
	return e, nil
}

// reach tries to connect until the cluster answers and is ours. Each attempt reads the certificates anew.
func (d *daemon) reach(ctx context.Context, cfg etcd.Config) (*kvstore.Client, error) {
	for attempt := 0; ; attempt++ {
		kv, err := d.connect(ctx, cfg)
		if err == nil || errs.Is(err, errs.InvalidInput) || errs.Is(err, errs.ConflictClass) {
			return kv, err
		}
		if attempt%30 == 0 {
			d.log.Warn("waiting for the database; shoal admin etcd-debug says more", "endpoints", cfg.Endpoints, "err", err)
		}
		t := time.NewTimer(retryDatabase)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errs.Unavailable("connect to the database at %v: %w", cfg.Endpoints, errors.Join(err, ctx.Err()))
		case <-t.C:
		}
	}
}

func (d *daemon) connect(ctx context.Context, cfg etcd.Config) (*kvstore.Client, error) {
	backend, err := etcd.Dial(cfg, d.log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.kvFile, err)
	}
	kv := kvstore.New(backend, kvstore.Config{Log: d.log, Name: d.id})
	head, err := kv.Head(ctx)
	if err == nil {
		err = d.claim(ctx, kv, cfg, head)
	}
	if err != nil {
		_ = kv.Close()
		return nil, err
	}
	return kv, nil
}

// claim makes sure that this machine and the cluster's keys belong together, and writes down on both sides that they do: first in the cluster,
// which decides between two machines, then here. A crash in between is made good by the next start.
func (d *daemon) claim(ctx context.Context, kv *kvstore.Client, cfg etcd.Config, head kvstore.Header) error {
	id := strconv.FormatUint(head.Cluster, 16)
	was, bound, err := d.boundTo()
	if err != nil {
		return err
	}
	if bound && was.Cluster != id {
		return errs.Conflict("%v is cluster %s, but %s belongs to cluster %s at %v: give the right configuration; if the cluster was restored from a snapshot, remove %s",
			cfg.Endpoints, id, d.cfg.Dir, was.Cluster, was.Endpoints, filepath.Join(d.databaseDir(), bondFile))
	}
	host, _ := os.Hostname()
	mine, err := json.Marshal(owner{d.id, host})
	if err != nil {
		return err
	}
	created, _, err := kv.CreateOnly(ctx, ownerKey(), mine, 0)
	if err != nil {
		return fmt.Errorf("write into the database who uses it: %w", err)
	}
	if !created {
		var theirs owner
		k, _, err := kv.Get(ctx, ownerKey())
		if err == nil {
			err = json.Unmarshal(k.Value, &theirs)
		}
		if err != nil {
			return fmt.Errorf("read from the database who uses it: %w", err)
		}
		if theirs.ID != d.id {
			return errs.Conflict("the database at %v is used by machine %s (%s): one machine can use a cluster; if that one is gone for good, delete the key %s",
				cfg.Endpoints, theirs.Host, theirs.ID, ownerKey())
		}
	}
	if bound {
		return nil
	}
	return d.bind(bond{id, cfg.Endpoints})
}

// readDatabaseFile reads a small file of the database's directory; false when there is none.
func (d *daemon) readDatabaseFile(name string) ([]byte, bool, error) {
	root, err := fsroot.Open(d.databaseDir())
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = root.Close() }()
	data, err := root.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	return data, err == nil, err
}

func (e *external) client() *kvstore.Client { return e.kv }
func (e *external) done() <-chan struct{}   { return nil }

func (e *external) close(context.Context) {
	e.stop()
	_ = e.kv.Close()
	e.wg.Wait()
}

func (e *external) describe() api.ServerDatabase {
	s := e.health.Status()
	out := api.ServerDatabase{Type: externalDatabase, Config: e.file, Endpoints: e.cfg.Endpoints, State: s.State.String()}
	if s.Err != nil {
		out.Message = s.Err.Error()
	}
	for _, m := range s.Servers {
		if m.Err != nil && out.Message == "" {
			out.Message = fmt.Sprintf("%s: %v", m.Address, m.Err)
		}
	}
	return out
}

func (e *external) debug(ctx context.Context) api.DatabaseReport { return DebugDatabase(ctx, e.file) }
