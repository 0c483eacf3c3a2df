package kvstore

import (
	"context"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Limits that every backend keeps.
const (
	MaxTxnOps   = 1024    // operations (reads and writes) in one branch of a transaction; about 100 is the sweet spot
	MaxTxnBytes = 1 << 20 // sum of keys and values of a transaction's writes
)

// Sentinels. Backends wrap them with the cause.
var (
	ErrCompacted    = errs.Conflict("the revision has been compacted")
	ErrFuture       = errs.Conflict("the revision is in the future")
	ErrNoQuorum     = errs.Unavailable("the database has no quorum")
	ErrTooLarge     = errs.TooLarge("a transaction has at most %d operations and %d bytes", MaxTxnOps, MaxTxnBytes)
	ErrNoSpace      = errs.NoSpace("the database is full")
	ErrLeaseExpired = errs.Conflict("the lease has expired")
	ErrLockLost     = errs.Conflict("the lock was lost")
	ErrClosed       = errs.Unavailable("the database is closed")
	ErrDuplicateKey = errs.Invalid("a transaction writes one key twice")
	ErrOverloaded   = errs.Unavailable("the database asks for fewer requests")
	ErrNotFound     = errs.NotFound("the key does not exist")
	ErrConflict     = errs.Conflict("the key was changed meanwhile")
)

// LeaseID names a lease; 0 is none.
type LeaseID int64

// KeyValue is one key as it was at some revision. Value is shared: do not change it.
type KeyValue struct {
	Key            string
	Value          []byte
	CreateRevision int64 // of the transaction that made the key
	ModRevision    int64 // of the transaction that last wrote it
	Version        int64 // 1 when created, one more with each write
	Lease          LeaseID
}

// Header says who answered and at which revision.
type Header struct {
	Cluster  uint64 // changes when the store is restored from a snapshot
	Revision int64  // of the store when it answered
}

// Range reads keys in byte order.
type Range struct {
	Key       string
	End       string // exclusive; "" reads Key alone; see PrefixEnd
	Limit     int64  // 0: no limit
	Revision  int64  // 0: the newest
	CountOnly bool
	// Serializable answers from the local copy, which may be behind. With a Revision the answer is exact all the same.
	Serializable bool
	// Buf may be used for the result's KVs, over what is in it: for who reads page after page and keeps none.
	Buf []KeyValue
}

// RangeResult is the answer to a Range. More says that Limit cut it off; Count is the number of keys in the range.
type RangeResult struct {
	Header
	KVs   []KeyValue
	More  bool
	Count int64
}

// Target is what a Compare looks at.
type Target int

// Targets of comparison. Of a missing key all are 0.
const (
	TargetMod    Target = iota // ModRevision
	TargetCreate               // CreateRevision
	TargetVersion
	TargetLease
)

// Compare holds when the key's target equals Equal. With an End it holds when that is so for every key of the range; an
// empty range is compared like a missing key.
type Compare struct {
	Key    string
	End    string // exclusive; "" compares Key alone; see PrefixEnd
	Target Target
	Equal  int64
}

// holds says whether the compare holds for what a read of its key found.
func (c Compare) holds(found []KeyValue) bool {
	var kv KeyValue
	if len(found) > 0 {
		kv = found[0]
	}
	return [...]int64{kv.ModRevision, kv.CreateRevision, kv.Version, int64(kv.Lease)}[c.Target] == c.Equal
}

// Missing holds when the key does not exist.
func Missing(key string) Compare { return Compare{Key: key, Target: TargetCreate} }

// NoneUnder holds when no key has the prefix, which is not empty.
func NoneUnder(prefix string) Compare {
	return Compare{Key: prefix, End: PrefixEnd(prefix), Target: TargetCreate}
}

// Unchanged holds when the key was last written at revision rev.
func Unchanged(key string, rev int64) Compare { return Compare{Key: key, Equal: rev} }

// OpType is what an Op does.
type OpType int

// The operations of a transaction.
const (
	OpPut OpType = iota
	OpDelete
	OpGet
)

// Op is one operation of a transaction. End makes a delete or get one of a range.
type Op struct {
	Type  OpType
	Key   string
	End   string
	Value []byte
	Lease LeaseID // of a put
}

// Put writes a key.
func Put(key string, value []byte) Op { return Op{Type: OpPut, Key: key, Value: value} }

// Delete removes a key; a missing one is no error.
func Delete(key string) Op { return Op{Type: OpDelete, Key: key} }

// Get reads a key within a transaction.
func Get(key string) Op { return Op{Type: OpGet, Key: key} }

// Txn does Then when all compares hold, else Else. All of a branch happens or nothing, at one revision.
type Txn struct {
	If   []Compare
	Then []Op
	Else []Op
}

// OpResult is the outcome of one Op: the keys that a get found, how many keys a delete removed.
type OpResult struct {
	KVs     []KeyValue
	Deleted int64
}

// TxnResult says which branch was taken and what its operations gave, in their order. Results are read-only.
type TxnResult struct {
	Header
	Succeeded bool
	Results   []OpResult
}

// EventType is what happened to a key.
type EventType int

// Events. A delete carries the key and its ModRevision only.
const (
	Created EventType = iota
	Modified
	Deleted
)

func (t EventType) String() string { return [...]string{"create", "modify", "delete"}[t] }

// Event is one change of one key.
type Event struct {
	Type EventType
	KV   KeyValue
}

// WatchResponse brings events in order. Without events it is a progress mark: everything up to Revision has been delivered.
// The events of one revision are never split over two responses.
type WatchResponse struct {
	Header
	Events []Event
}

// Stream is a watch from a revision on. Next is called by one goroutine.
type Stream interface {
	// Next waits for events. It fails when the watch's context ends, with ErrCompacted, ErrNoQuorum or ErrClosed; then
	// the stream is over.
	Next() (WatchResponse, error)
	// RequestProgress asks for a progress mark soon. Safe to call beside Next.
	RequestProgress(ctx context.Context) error
}

// Backend is a store. All methods are safe for concurrent use and end with their context.
//
// After Close every call, those under way too, ends with ErrClosed. Leases are not revoked by it: their keys live until the time is up, so that a
// restart does not withdraw what a node said about itself.
type Backend interface {
	// Range is linearizable unless it says otherwise.
	Range(ctx context.Context, r Range) (RangeResult, error)
	// Txn: a compare that does not hold is no error. Errors of class Unavailable leave the outcome unknown.
	Txn(ctx context.Context, t Txn) (TxnResult, error)
	// Watch delivers changes of keys with the prefix from revision from on; it requires a leader. The stream ends with ctx.
	// From 0 means from now on: then the first response has no events and says that the watch stands and after which revision.
	// That may be one that a member which lags has, a little before the newest; what comes after it is delivered.
	Watch(ctx context.Context, prefix string, from int64) Stream
	// Grant makes a lease. The store may lengthen ttl, to whole seconds and to its minimum.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// KeepAlive renews a lease and returns the time left; ErrLeaseExpired when it is gone.
	KeepAlive(ctx context.Context, id LeaseID) (time.Duration, error)
	// Revoke ends a lease and deletes its keys; nil when it is gone.
	Revoke(ctx context.Context, id LeaseID) error
	// Compact forgets what was before revision rev; ranges at rev and watches from rev on still work. Not after the last
	// compaction: ErrCompacted; after the newest revision: ErrFuture.
	Compact(ctx context.Context, rev int64) error
	Close() error
}

// Streamer is a Backend that can send a long range without being asked for page after page. It is not asked to by who counts calls ([Limits]).
type Streamer interface {
	// RangeStream calls each with the parts of the range r, in their order, all at one revision; Limit is 0. The KVs that each gets are
	// valid until it returns, their strings and values for ever; what else is in the results is not. ok is false when the store
	// cannot do it: then each was not called.
	RangeStream(ctx context.Context, r Range, each func(RangeResult) error) (h Header, ok bool, err error)
}

// PrefixEnd returns the End of the range of all keys with the prefix.
func PrefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return "\x00" // etcd's word for "to the end"
}

// CheckTxn reports what no backend takes: too many operations, too many bytes, a key written twice.
func CheckTxn(t Txn) error {
	if len(t.If) > MaxTxnOps || len(t.Then) > MaxTxnOps || len(t.Else) > MaxTxnOps {
		return ErrTooLarge
	}
	for _, ops := range [...][]Op{t.Then, t.Else} {
		size := 0
		var seen map[string]bool
		if len(ops) > 1 {
			seen = make(map[string]bool, len(ops))
		}
		for _, o := range ops {
			if o.Type == OpGet {
				continue
			}
			if size += len(o.Key) + len(o.Value); size > MaxTxnBytes {
				return ErrTooLarge
			}
			if seen[o.Key] {
				return ErrDuplicateKey
			}
			if seen != nil {
				seen[o.Key] = true
			}
		}
	}
	return nil
}
