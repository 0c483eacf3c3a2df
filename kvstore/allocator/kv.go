package allocator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Record says that a key has an id.
type Record struct {
	Key string
	ID  ID
	// Rev is the revision of the transaction that wrote the record. A record that was collected and made again has another one.
	Rev int64
}

// Claim asks for a reference to the record of Key. With Rev 0 the record is to be made, with the id ID; else it is the one that was
// written at Rev.
type Claim Record

// State is what became of one claim.
type State int

// The states. With Taken and Conflict the Record of the answer is the one that exists.
const (
	Done     State = iota // the reference is held
	Taken                 // the key has another record than the one claimed
	IDTaken               // the id belongs to another key
	Gone                  // there is no record of this key any more
	Conflict              // (Restore) key or id belong to somebody else now: what was held cannot be put back
)

func (s State) String() string {
	return [...]string{"done", "taken", "id taken", "gone", "conflict"}[s]
}

// Claimed is the answer to a claim.
type Claimed struct {
	Record
	State State
}

// Batch brings changes of records. Deleted has the keys' records as they were last seen by this watch.
type Batch struct {
	Updated  []Record
	Deleted  []Record
	Revision int64 // up to which everything was delivered; 0: unknown, a list is under way
	ListDone bool  // the records that existed when the watch began have been delivered
	Reset    bool  // the store was replaced: all records come again, up to the next ListDone
}

// Backend keeps records and references. Safe for concurrent use. An error of class Unavailable leaves the outcome of a write unknown;
// each of them may be repeated.
type Backend interface {
	// Claim makes references, and records where they are new. No key and no id appears twice in one call. The answers are in
	// the order of the claims; each claim is atomic, all together are not.
	Claim(ctx context.Context, claims []Claim) ([]Claimed, error)
	// Restore puts back what is missing of records whose references this node holds: reference, lease, record. A record that is
	// written again has a new Rev.
	Restore(ctx context.Context, held []Record) ([]Claimed, error)
	// Release deletes this node's references; a missing one is no error.
	Release(ctx context.Context, keys []string) error
	// Get and GetByID ask the store, not a cache.
	Get(ctx context.Context, key string) (Record, bool, error)
	GetByID(ctx context.Context, id ID) (Record, bool, error)
	// Watch reports all records and then their changes until ctx ends or fn fails.
	Watch(ctx context.Context, fn func(Batch) error) error
	// Lost delivers a signal when references may have gone with their lease: then all that is held must be restored.
	Lost() <-chan struct{}
}

// KVConfig is what a KV needs. Client, Prefix and Node have no default.
type KVConfig struct {
	Client *kvstore.Client
	Prefix string // of all records; ends with a slash
	Node   string // name of this node, which no other process has
	// TTL is how long the references of a node that died live on; 0 means 15 minutes.
	TTL time.Duration
	// MaxOps is the number of operations that the store takes in a transaction; 0 means kvstore.MaxTxnOps. When the store
	// says that it takes fewer, it is halved.
	MaxOps int
	Log    *slog.Logger
}

// KV keeps the records in a kvstore. See layout.go for the keys.
type KV struct {
	layout
	c      *kvstore.Client
	log    *slog.Logger
	pool   *kvstore.LeasePool // of the references
	lost   chan struct{}
	maxOps atomic.Int64
}

var _ Backend = (*KV)(nil)

// NewKV returns a backend. It grants no lease before the first claim.
func NewKV(cfg KVConfig) (*KV, error) {
	if cfg.Client == nil {
		return nil, errs.Invalid("an allocator needs a client")
	}
	l, err := newLayout(cfg.Prefix, cfg.Node)
	if err != nil {
		return nil, err
	}
	if cfg.TTL <= 0 {
		cfg.TTL = 15 * time.Minute
	}
	if cfg.MaxOps <= 0 {
		cfg.MaxOps = kvstore.MaxTxnOps
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &KV{layout: l, c: cfg.Client, log: cfg.Log, lost: make(chan struct{}, 1)}
	// A restore and a release of a key may cross: what then hangs on another lease than the pool thinks is put right by the next restore.
	k.pool = cfg.Client.NewPool(kvstore.PoolConfig{TTL: cfg.TTL, KeepEmpty: true})
	k.pool.Observe("", func([]string) {
		select {
		case k.lost <- struct{}{}:
		default:
		}
	})
	k.maxOps.Store(int64(max(cfg.MaxOps, opsPerClaim)))
	return k, nil
}

// Close stops renewing the leases. The node's references live until their time is up, so a restart does not give them up.
func (k *KV) Close() { k.pool.Close() }

// Withdraw ends the leases: all references of this node go at once.
func (k *KV) Withdraw(ctx context.Context) error { return k.pool.Revoke(ctx) }

// Lost implements Backend.
func (k *KV) Lost() <-chan struct{} { return k.lost }

// Release implements Backend.
func (k *KV) Release(ctx context.Context, keys []string) error {
	return k.chunks(len(keys), 1, func(i int) int { return len(keys[i]) }, func(from, to int) error {
		ops := make([]kvstore.Op, 0, to-from)
		for _, key := range keys[from:to] {
			ops = append(ops, kvstore.Delete(k.ref(key)))
		}
		if _, err := k.c.Txn(ctx, kvstore.Txn{Then: ops}); err != nil {
			return wrap("release references", err)
		}
		k.pool.GiveAll(keys[from:to])
		return nil
	})
}

// Get implements Backend.
func (k *KV) Get(ctx context.Context, key string) (Record, bool, error) {
	kv, ok, err := k.c.Get(ctx, k.key(key))
	if err != nil || !ok {
		return Record{}, false, wrap("read a record", err)
	}
	r, err := k.record(kv)
	return r, err == nil, err
}

// GetByID implements Backend.
func (k *KV) GetByID(ctx context.Context, id ID) (Record, bool, error) {
	kv, ok, err := k.c.Get(ctx, k.id(id))
	if err != nil || !ok {
		return Record{}, false, wrap("read an id", err)
	}
	return Record{Key: string(kv.Value), ID: id, Rev: kv.ModRevision}, true, nil
}

func (k *KV) record(kv kvstore.KeyValue) (Record, error) {
	key, id, err := k.parseRecord(kv.Key, kv.Value)
	return Record{Key: key, ID: id, Rev: kv.ModRevision}, err
}

// List calls each with all records, page by page, at one revision. Records that cannot be read are left out with a warning.
func (k *KV) List(ctx context.Context, each func([]Record) error) error {
	_, err := k.c.List(ctx, k.prefix+"keys/", func(kvs []kvstore.KeyValue) error {
		return each(k.records(kvs))
	})
	return wrap("list records", err)
}

func (k *KV) records(kvs []kvstore.KeyValue) []Record {
	out := make([]Record, 0, len(kvs))
	for _, kv := range kvs {
		r, err := k.record(kv)
		if err != nil {
			k.log.Warn("record is unreadable, leaving it out", "err", err)
			continue
		}
		out = append(out, r)
	}
	return out
}

// Watch implements Backend.
func (k *KV) Watch(ctx context.Context, fn func(Batch) error) error {
	prefix := k.prefix + "keys/"
	known := map[string]Record{} // by path: a deletion has no value
	return k.c.NewWatcher(prefix).Run(ctx, func(in kvstore.Batch) error {
		out := Batch{Revision: in.Revision, ListDone: in.ListDone, Reset: in.Reset}
		for _, e := range in.Events {
			old, was := known[e.KV.Key]
			var now Record
			var err error
			if e.Type != kvstore.Deleted {
				if now, err = k.record(e.KV); err != nil {
					k.log.Warn("record is unreadable, leaving it out", "err", err)
				}
			}
			if e.Type == kvstore.Deleted || err != nil {
				if was {
					delete(known, e.KV.Key)
					out.Deleted = append(out.Deleted, old)
				}
				continue
			}
			if was && old.ID != now.ID { // deleted and made again while the watch was broken
				out.Deleted = append(out.Deleted, old)
			}
			known[e.KV.Key] = now
			out.Updated = append(out.Updated, now)
		}
		if len(out.Updated)+len(out.Deleted) == 0 && !out.ListDone && !out.Reset {
			return nil
		}
		return fn(out)
	})
}

// chunks cuts n items that cost ops operations each into transactions, and cuts smaller when the store says that
// it takes fewer.
func (k *KV) chunks(n, ops int, size func(int) int, do func(from, to int) error) error {
	for from := 0; from < n; {
		to := k.chunk(from, n, ops, size)
		err := do(from, to)
		if errors.Is(err, kvstore.ErrTooLarge) && to-from > 1 {
			k.learn((to - from) * ops)
			continue
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// chunk returns the end of the transaction that begins with item from.
func (k *KV) chunk(from, n, ops int, size func(int) int) int {
	limit := max(int(k.maxOps.Load())/ops, 1)
	to, bytes := from, 0
	for to < n && to-from < limit {
		// each operation carries the prefix and, escaped, the key
		if bytes += ops * (len(k.prefix) + len(k.node) + 48 + min(3*size(to), maxEscaped) + size(to)); bytes > kvstore.MaxTxnBytes && to > from {
			break
		}
		to++
	}
	return to
}

// learn notes that the store refused a transaction of this many operations: the next ones have half of it at most. An external
// etcd takes 128 unless it is told otherwise, and nobody says how many before it refuses.
func (k *KV) learn(refused int) {
	for {
		had := k.maxOps.Load()
		less := max(int64(refused/2), opsPerClaim)
		if less >= had || k.maxOps.CompareAndSwap(had, less) {
			return
		}
	}
}

// withLeases runs do with a lease for the reference of each of n keys; once more when the store does not know one of them any longer. The
// pool knows a reference by its key: a string that is there anyway, where the path would be made, hashed and kept a second time.
func (k *KV) withLeases(ctx context.Context, n int, key func(int) string, do func([]kvstore.LeaseID) error) error {
	refs := make([]string, n)
	for i := range refs {
		refs[i] = key(i)
	}
	for again := false; ; again = true {
		leases, err := k.pool.TakeAll(ctx, refs)
		if err != nil {
			return err
		}
		err = do(leases)
		if !errors.Is(err, kvstore.ErrLeaseExpired) {
			return err
		}
		if rerr := k.pool.Refused(ctx, leases); rerr != nil {
			return rerr
		}
		if again {
			return errs.Classify(errs.UnavailableClass, err)
		}
	}
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// isRef takes the path of a reference apart: escaped key, escaped node.
func (l layout) isRef(path string) (key, node string, ok bool) {
	rest, ok := strings.CutPrefix(path, l.prefix+"refs/")
	if !ok {
		return "", "", false
	}
	key, node, ok = strings.Cut(rest, "/")
	return key, node, ok && key != "" && node != ""
}
