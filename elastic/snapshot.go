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
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	walOnce()
	id, next := newIdentity(cfg.Name), cfg.data()+".new"
	if err := os.RemoveAll(next); err != nil { // of a restore that was interrupted
		return fmt.Errorf("restore the database: %w", err)
	}
	err = snapshot.NewV3(zapLogger(cfg.Log)).Restore(snapshot.RestoreConfig{
		SnapshotPath: snapshotFile, Name: cfg.Name, OutputDataDir: next, PeerURLs: []string{peerURL},
		InitialCluster: cfg.Name + "=" + peerURL, InitialClusterToken: id.Token, RevisionBump: revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("restore the database from %s: %w", snapshotFile, errors.Join(err, os.RemoveAll(next)))
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	if err := cfg.aside(time.Now()); err != nil {
		return fmt.Errorf("restore the database: move the old data aside: %w", err)
	}
	// "restored" is no id of etcd; it says that there is data worth keeping. The next start finds out the ids.
	id.Member = restored
	if err := cfg.save(id); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	if err := os.Rename(next, cfg.data()); err != nil {
		return fmt.Errorf("restore the database: %w", err)
	}
	return syncDir(cfg.Dir)
}

const restored = "restored"
