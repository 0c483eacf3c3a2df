package elastic

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/pkg/v3/featuregate"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

// Config says how to run the member. Name and Dir must be set.
type Config struct {
	Name string // of the member; ≤ 128 bytes, not "default"
	Dir  string // holds identity.json and etcd/, made with mode 0700
	Log  *slog.Logger

	// Tick is the heartbeat, Election the election timeout (≥ 5 ticks). 0 means those of a lone member, 10 ms and 100 ms.
	Tick, Election time.Duration
	// Quota is the size in bytes over which the database takes no new keys; 0 means 4 GiB.
	Quota int64
	// Keep is how far back revisions stay readable; 0 means 10 minutes.
	Keep time.Duration
	// NoSync gives up durability for speed, in tests only.
	NoSync bool

	address string    // host:port under which other machines reach this one; "" alone
	certs   pki.Files // for connections to the others
}

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" || c.Name == embed.DefaultName || len(c.Name) > 128 {
		return c, errs.Invalid("database member name %q: must have 1 to 128 bytes and not be %q", c.Name, embed.DefaultName)
	}
	if !filepath.IsAbs(c.Dir) {
		return c, errs.Invalid("database directory %q must be an absolute path", c.Dir)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tick == 0 {
		c.Tick, c.Election = 10*time.Millisecond, 100*time.Millisecond
	}
	if c.Tick < time.Millisecond || c.Election < 5*c.Tick {
		return c, errs.Invalid("database tick %v and election timeout %v: at least 1ms and five ticks are needed", c.Tick, c.Election)
	}
	if c.Quota == 0 {
		c.Quota = 4 << 30
	}
	if c.Keep == 0 {
		c.Keep = 10 * time.Minute
	}
	return c, nil
}

func (c Config) data() string { return filepath.Join(c.Dir, "etcd") }

// lonePeerURL is what a lone member is registered under. Nobody dials it; a [Node] sets the address.
const lonePeerURL = "https://127.0.0.1:1"

func (c Config) peerURL() string {
	if c.address == "" {
		return lonePeerURL
	}
	return "https://" + c.address
}

// walOnce sets etcd's package variable before the first member starts: 8 MB segments instead of 64 MB, of which two are
// allocated at once.
var walOnce = sync.OnceFunc(func() { wal.SegmentSizeBytes = 8 << 20 })

// embed returns etcd's configuration. others is the whole initial cluster of a member that joins one ("name=url,…"), "" otherwise.
func (c Config) embed(id identity, others string) (*embed.Config, error) {
	walOnce()
	u, err := url.Parse(c.peerURL())
	if err != nil {
		return nil, err
	}
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.data()
	e.ListenPeerUrls, e.ListenClientUrls = nil, nil
	e.AdvertisePeerUrls, e.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	e.InitialCluster = c.Name + "=" + c.peerURL()
	if others != "" {
		e.InitialCluster, e.ClusterState = others, embed.ClusterStateFlagExisting
	}
	e.InitialClusterToken = id.Token
	if c.address != "" {
		e.PeerTLSInfo = transport.TLSInfo{CertFile: c.certs.Cert, KeyFile: c.certs.Key, TrustedCAFile: c.certs.CA, ClientCertAuth: true,
			ServerName: pki.MemberHost, MinVersion: tls.VersionTLS13}
	}
	e.TickMs, e.ElectionMs = uint(c.Tick.Milliseconds()), uint(c.Election.Milliseconds())
	e.PreVote, e.StrictReconfigCheck = true, true
	e.MaxLearners = maxLearners
	e.QuotaBackendBytes = c.Quota
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, c.Keep.String()
	e.MaxWalFiles, e.MaxSnapFiles = 3, 3
	e.MaxTxnOps = 1024
	// A write waits while the backend's file is synced, 8 ms on a busy disk; ten times a second is too often for a daemon that
	// writes in bursts. What was acknowledged is in the write-ahead log; a start replays at most a second more of it.
	e.BackendBatchInterval = time.Second
	e.WatchProgressNotifyInterval = 5 * time.Second
	e.UnsafeNoFsync = c.NoSync
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(c.Log))
	gate, ok := e.ServerFeatureGate.(featuregate.MutableFeatureGate)
	if !ok {
		return nil, fmt.Errorf("etcd's feature gates cannot be set in this version")
	}
	if err := gate.Set("CompactHashCheck=true,InitialCorruptCheck=true"); err != nil {
		return nil, fmt.Errorf("set etcd's feature gates: %w", err)
	}
	return e, nil
}
