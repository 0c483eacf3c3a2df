package elastic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/shoal-project/shoal/internal/errs"
)

// Member is an etcd member that runs in this process. Safe for concurrent use.
type Member struct {
	cfg    Config
	etcd   *embed.Etcd
	client *clientv3.Client

	stop context.CancelFunc // of the caretaker
	wg   sync.WaitGroup
	once sync.Once
	done chan struct{}
}

// Start starts the member in cfg.Dir, a new one-member cluster when there is none, and returns when it takes writes. One process at a time
// may use a directory: the caller sees to that.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	id, err := prepare(cfg)
	if err != nil {
		return nil, fmt.Errorf("start the database: %w", err)
	}
	m, err := startMember(cfg, id, "")
	if err != nil {
		return nil, fmt.Errorf("start the database: %w", err)
	}
	err = m.ready(ctx, 0)
	if err == nil && (id.Member == "" || id.Member == restored) {
		err = cfg.save(m.withIDs(id))
	}
	if err != nil {
		m.kill()
		return nil, fmt.Errorf("start the database: %w", err)
	}
	return m, nil
}

// startMember starts etcd and does not wait for it.
func startMember(cfg Config, id identity, others string) (*Member, error) {
	ec, err := cfg.embed(id, others)
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, etcd: e, client: v3client.New(e.Server), done: make(chan struct{})}
	cctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.wg.Go(func() { m.caretake(cctx) })
	return m, nil
}

// ready waits until the member takes writes or, when rev is not 0, its copy has reached that revision: etcd's own notice comes seven seconds late on a
// machine that got its copy as a snapshot.
func (m *Member) ready(ctx context.Context, rev int64) error {
	s := m.etcd.Server
	var poll <-chan time.Time
	if rev != 0 {
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		poll = t.C
	}
	for waiting := true; waiting; {
		select {
		case <-s.ReadyNotify():
			waiting = false
		case <-s.StopNotify():
			return errs.Unavailable("it stopped before it was ready")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll:
			waiting = s.KV().Rev() < rev
		}
	}
	return nil
}

// withIDs returns id with the ids that etcd has given.
func (m *Member) withIDs(id identity) identity {
	id.Member, id.Cluster = m.etcd.Server.MemberID().String(), m.etcd.Server.Cluster().ID().String()
	return id
}

// kill ends the member without any goodbye.
func (m *Member) kill() {
	_ = m.Stop(context.Background()) // has no other end
}

// prepare finds out whose data the directory holds.
func prepare(cfg Config) (identity, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return identity{}, err
	}
	id, ok, err := cfg.loadIdentity()
	switch {
	case err != nil:
		return id, err
	case ok && id.Format == clusterFormat:
		return id, errs.Invalid("%s belongs to a machine of a cluster", cfg.Dir)
	case ok && id.Member != "" && cfg.hasData():
		return id, nil
	case ok && id.Member != "":
		return id, errs.Unavailable("the data of the database is gone from %s: restore a snapshot, or remove %s to begin with nothing", cfg.data(), cfg.identityFile())
	case !ok && cfg.hasData():
		return id, errs.Invalid("%s holds a database but %s is missing", cfg.data(), cfg.identityFile())
	}
	// A first start, or one that was interrupted before anything could be written to the database.
	if cfg.hasData() {
		cfg.Log.Warn("the first start of the database was interrupted, beginning anew")
		if err := cfg.aside(time.Now()); err != nil {
			return id, err
		}
	}
	id = newIdentity(cfg.Name)
	return id, cfg.save(id)
}

// Client returns the client in this process; it ends with the member. Hand it to kvstore/etcd.
func (m *Member) Client() *clientv3.Client { return m.client }

// Done is closed when the member has stopped, by Stop or by itself (a disk that cannot be written).
func (m *Member) Done() <-chan struct{} { return m.etcd.Server.StopNotify() }

// Stop stops the member. What was acknowledged is on disk already; it takes milliseconds, at most until ctx ends. Calling it again waits for the
// first call.
func (m *Member) Stop(ctx context.Context) error {
	m.once.Do(func() {
		go func() {
			defer close(m.done)
			m.stop()
			m.client.Close()
			m.etcd.Server.HardStop() // Close alone waits for clients and for a new leader
			m.wg.Wait()
			m.etcd.Close()
		}()
	})
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the database: %w", ctx.Err())
	}
}

// Health is the member's state as it sees it itself; nothing is asked over a network.
type Health struct {
	Name, Member, Cluster string // ids in hexadecimal
	HasLeader, IsLeader   bool
	Revision              int64
	Term, Applied         uint64
	Size, InUse, Quota    int64    // bytes of the database file, in it, and allowed
	Alarms                []string // of a voter; they are the cluster's, a learner does not list them
}

// Health returns the state now.
func (m *Member) Health() Health {
	s := m.etcd.Server
	h := Health{Name: m.cfg.Name, Member: s.MemberID().String(), Cluster: s.Cluster().ID().String(), HasLeader: s.Leader() != 0, IsLeader: s.Leader() == s.MemberID(),
		Term: s.Term(), Applied: s.AppliedIndex(), Quota: m.cfg.Quota}
	if m.stopped() {
		return h // its files are closed
	}
	h.Revision, h.Size, h.InUse = s.KV().Rev(), s.Backend().Size(), s.Backend().SizeInUse()
	if s.IsLearner() {
		return h // a learner takes over its leader's snapshot, for which etcd changes its list of alarms without a lock
	}
	for _, a := range s.Alarms() {
		h.Alarms = append(h.Alarms, a.Alarm.String())
	}
	return h
}

// caretake keeps the database from filling up, and the disk from surprising it.
func (m *Member) caretake(ctx context.Context) {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		if err := m.allocate(); err != nil {
			m.cfg.Log.Warn("could not set space aside for the database", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.Done():
			return
		case <-t.C:
		}
		h := m.Health()
		if h.Size < h.Quota/10*8 && len(h.Alarms) == 0 {
			continue
		}
		m.cfg.Log.Warn("the database is nearly full, compacting it", "size", h.Size, "in_use", h.InUse, "quota", h.Quota, "alarms", h.Alarms)
		if err := m.Reclaim(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Error("could not compact the database", "err", err)
		}
	}
}

// Reclaim forgets all old revisions, gives the room back to the file system and, when that made room, takes back the alarm that made
// the database refuse writes. Writes wait meanwhile (0.3 s per 100 MB).
func (m *Member) Reclaim(ctx context.Context) error {
	s := m.etcd.Server
	_, err := m.client.Compact(ctx, s.KV().Rev(), clientv3.WithCompactPhysical())
	if err != nil && !isCompacted(err) {
		return fmt.Errorf("compact the database: %w", err)
	}
	// not Maintenance.Defragment, which panics in process
	if err := s.Backend().Defrag(); err != nil {
		return fmt.Errorf("defragment the database: %w", err)
	}
	if h := m.Health(); h.Size >= h.Quota {
		return errs.NoSpace("the database holds %d bytes of %d allowed and nothing can be forgotten", h.InUse, h.Quota)
	}
	_, err = m.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: uint64(s.MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE})
	if err != nil {
		return fmt.Errorf("take back the alarm: %w", err)
	}
	return nil
}

func isCompacted(err error) bool {
	return errors.Is(err, errCompacted)
}
