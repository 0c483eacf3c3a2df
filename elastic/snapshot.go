package elastic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

var errCompacted = rpctypes.Error(rpctypes.ErrGRPCCompacted)

// Snapshot writes the whole database to the file path, mode 0600, at one revision. The file appears under its name when
// it is whole and on disk. Writes go on meanwhile.
func (m *Member) Snapshot(ctx context.Context, path string) error {
	select {
	case <-m.Done():
		return errors.New("snapshot the database: it is stopped")
	default:
	}
	r, err := m.client.SnapshotWithVersion(ctx)
	if err != nil {
		return fmt.Errorf("snapshot the database: %w", err)
	}
	defer r.Snapshot.Close()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("snapshot the database: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r.Snapshot)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("snapshot the database: %w", err)
	}
	return nil
}

// revisionBump is how far a restored database counts on from its snapshot, so that no revision that somebody
// has seen after the snapshot was taken comes again with another meaning.
const revisionBump = 1 << 30

// Restore makes cfg.Dir a new one-member cluster with the content of a snapshot file. No member may run in it. The data that is there
// is moved aside. The cluster gets a new id and higher revisions; watches at old ones are told that those are compacted.
// After a crash either the old or the new data is in place, or none, and Restore can be called again.
func Restore(ctx context.Context, cfg Config, snapshotFile string) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	id := newIdentity(cfg.Name)
	if err := cfg.restore(ctx, id, snapshotFile); err != nil {
		return err
	}
	if err := cfg.aside(time.Now()); err != nil {
		return fmt.Errorf("restore the database: move the old data aside: %w", err)
	}
	// "restored" is no id of etcd; it says that there is data worth keeping. The next start finds out the ids.
	id.Member = restored
	if err := cfg.save(id); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	return cfg.install()
}

const restored = "restored"

// next is where a restored database is made.
func (c Config) next() string { return c.data() + ".new" }

// restore makes the data of a new one-member cluster with the identity's token, whole and beside what is there; install puts it in its place.
func (c Config) restore(ctx context.Context, id identity, snapshotFile string) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	walOnce()
	if err := os.RemoveAll(c.next()); err != nil { // of a restore that was interrupted
		return fmt.Errorf("restore the database: %w", err)
	}
	err := snapshot.NewV3(zapLogger(c.Log)).Restore(snapshot.RestoreConfig{
		SnapshotPath: snapshotFile, Name: c.Name, OutputDataDir: c.next(), PeerURLs: []string{c.peerURL()},
		InitialCluster: c.Name + "=" + c.peerURL(), InitialClusterToken: id.Token, RevisionBump: revisionBump, MarkCompacted: true,
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("restore the database from %s: %w", snapshotFile, errors.Join(err, os.RemoveAll(c.next())))
	}
	return nil
}

// install moves the restored data into its place, which is empty.
func (c Config) install() error {
	if err := os.Rename(c.next(), c.data()); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	return syncDir(c.Dir)
}
