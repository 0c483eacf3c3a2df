package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// The two databases that there are.
const (
	embeddedDatabase = "embedded"
	externalDatabase = "etcd"
)

// parseKVStore takes --kvstore apart: "" or "embedded" is this machine's member, "etcd.config=FILE" a cluster that somebody else runs.
func parseKVStore(s string) (file string, err error) {
	if s == "" || s == embeddedDatabase {
		return "", nil
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok || key != "etcd.config" {
		return "", errs.Invalid("--kvstore %q: allowed are %q and etcd.config=FILE", s, embeddedDatabase)
	}
	if value == "" {
		return "", errs.Invalid("--kvstore etcd.config=: the name of the cluster's configuration file is missing")
	}
	return filepath.Abs(value)
}

// databaseBudget is how long the daemon waits for its database: without end for one elsewhere, for a restart would bring it nothing.
func (d *daemon) databaseBudget() time.Duration {
	if d.kvFile != "" {
		return 365 * 24 * time.Hour
	}
	return 5 * time.Minute
}

// database is the key-value store that everything is in.
type database interface {
	client() *kvstore.Client
	done() <-chan struct{} // closed when it ended by itself; nil: it does not
	describe() api.ServerDatabase
	debug(ctx context.Context) api.DatabaseReport
	close(ctx context.Context)
}

// runDatabase runs the database and the tables over it.
func (d *daemon) runDatabase(ctx context.Context, ready func()) error {
	var db database
	var err error
	if d.kvFile == "" {
		db, err = d.openEmbedded(ctx)
	} else {
		db, err = d.openExternal(ctx)
	}
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	d.database.Store(&db)
	if d.rooms.db, err = state.Open(ctx, db.client(), state.Options{Log: d.log}); err != nil {
		return err
	}
	defer d.rooms.db.Close()
	ready()
	select {
	case <-ctx.Done():
		return nil
	case <-db.done():
		return errs.Unavailable("the database stopped by itself; its log lines say why")
	}
}

// describeDatabase says where the database is and how it is, from what is known here.
func (d *daemon) describeDatabase() *api.ServerDatabase {
	db := d.database.Load()
	if db == nil {
		return nil
	}
	s := (*db).describe()
	return &s
}

// debugDatabase checks the daemon's database, or the cluster that a configuration file names. It works while the daemon still waits for its
// database.
func (d *daemon) debugDatabase(ctx context.Context, file string) (api.DatabaseReport, error) {
	switch db := d.database.Load(); {
	case file != "":
		return DebugDatabase(ctx, file), nil
	case d.kvFile != "":
		return DebugDatabase(ctx, d.kvFile), nil
	case db != nil:
		return (*db).debug(ctx), nil
	}
	return api.DatabaseReport{}, errs.Unavailable("the database of this machine has not started yet; the daemon's log says why")
}

// DebugDatabase checks the cluster that a configuration file names. No daemon is needed for it.
func DebugDatabase(ctx context.Context, file string) api.DatabaseReport {
	return etcd.Debug(ctx, etcd.DebugOptions{
		File: file, Prefix: state.DefaultPrefix, Beats: heartbeats(), BeatEvery: heartbeatEvery,
	})
}

// embedded is the member in this process.
type embedded struct {
	d      *daemon
	member *elastic.Member
	kv     *kvstore.Client
}

func (d *daemon) openEmbedded(ctx context.Context) (database, error) {
	if c, ok, err := d.boundTo(); err != nil {
		return nil, err
	} else if ok {
		return nil, errs.Invalid("%s belongs to the etcd cluster at %s: start with --kvstore etcd.config=FILE, or with another --dir", d.cfg.Dir, strings.Join(c.Endpoints, ", "))
	}
	member, err := elastic.Start(ctx, elastic.Config{Name: d.id, Dir: d.databaseDir(), Log: d.log})
	if err != nil {
		return nil, err
	}
	return &embedded{d, member, kvstore.New(etcd.New(member.Client(), member.Room), kvstore.Config{Log: d.log})}, nil
}

func (d *daemon) databaseDir() string { return filepath.Join(d.cfg.Dir, "database") }

func (e *embedded) client() *kvstore.Client { return e.kv }
func (e *embedded) done() <-chan struct{}   { return e.member.Done() }

func (e *embedded) close(ctx context.Context) {
	_ = e.kv.Close()
	ctx, cancel := context.WithTimeout(ctx, stopBudget)
	defer cancel()
	if err := e.member.Stop(ctx); err != nil {
		e.d.log.Warn("the database did not stop cleanly; it recovers at the next start", "err", err)
	}
}

func (e *embedded) describe() api.ServerDatabase {
	s := api.ServerDatabase{Type: embeddedDatabase, State: kvstore.Healthy.String()}
	if h := e.member.Health(); !h.HasLeader || len(h.Alarms) > 0 {
		s.State = kvstore.Failed.String()
	}
	return s
}

func (e *embedded) debug(ctx context.Context) api.DatabaseReport {
	h := e.member.Health()
	check := func(name string, ok bool, text, hint string) api.DatabaseCheck {
		c := api.DatabaseCheck{Name: name, Status: api.CheckOK, Text: text}
		if !ok {
			c.Status, c.Hint = api.CheckError, hint
		}
		return c
	}
	leader := "this member"
	if !h.IsLeader {
		leader = "another member"
	}
	if !h.HasLeader {
		leader = "none"
	}
	read := "answers"
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := e.kv.Head(ctx)
	if err != nil {
		read = err.Error()
	}
	const full = "delete what is not needed; the database is compacted by itself when it is nearly full"
	member := api.DatabaseCheck{Name: "member", Status: api.CheckInfo, Text: h.Name + " in " + e.d.databaseDir(), Checks: []api.DatabaseCheck{
		{Name: "member id", Status: api.CheckInfo, Text: h.Member}, {Name: "cluster id", Status: api.CheckInfo, Text: h.Cluster},
		{Name: "listens", Status: api.CheckInfo, Text: "on nothing: no endpoints and certificates are needed"},
		check("leader", h.HasLeader, leader, "a majority of the members is down"),
		check("read", err == nil, read, "the daemon's log says more"),
		{Name: "revision", Status: api.CheckInfo, Text: fmt.Sprintf("%d, term %d, applied index %d", h.Revision, h.Term, h.Applied)},
		check("size", h.Size < h.Quota, fmt.Sprintf("%.1f MiB, %.1f MiB in use, of at most %.0f MiB", mib(h.Size), mib(h.InUse), mib(h.Quota)), full),
		check("alarms", len(h.Alarms) == 0, strings.Join(append([]string{}, h.Alarms...), ", "), full),
	}}
	if len(h.Alarms) == 0 {
		member.Checks[len(member.Checks)-1].Text = "none"
	}
	return etcd.Report(embeddedDatabase, member)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// bond says which cluster a state directory belongs to: what is on this machine means something only together with its database, and an empty
// database would have the daemon forget, or destroy, what it no longer knows.
type bond struct {
	Cluster   string   `json:"cluster"` // id, hexadecimal
	Endpoints []string `json:"endpoints"`
}

const bondFile = "external.json"

// boundTo returns the cluster that the directory belongs to; false when it never used one.
func (d *daemon) boundTo() (b bond, ok bool, err error) {
	data, ok, err := d.readDatabaseFile(bondFile)
	if err != nil || !ok {
		return b, false, err
	}
	if err := json.Unmarshal(data, &b); err != nil || b.Cluster == "" {
		return b, false, errs.Invalid("%s is not what the daemon wrote: restore it", filepath.Join(d.databaseDir(), bondFile))
	}
	return b, true, nil
}

func (d *daemon) bind(b bond) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	root, err := fsroot.Open(d.databaseDir())
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return root.WriteAtomic(bondFile, append(data, '\n'), 0o600)
}
