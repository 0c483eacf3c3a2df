// Package kvstore is the key-value layer under everything that the cluster knows.
//
// # Words
//
// A store maps keys to values, both bytes. Every successful write transaction makes a new revision, one larger than the last; all
// its keys carry it as ModRevision. A range is read at one revision. A watch delivers the events after a revision, in order. Compaction forgets
// old revisions; reading or watching before it fails with [ErrCompacted]. A lease is a promise to be alive: keys put under it go
// when it is not renewed in time or is revoked.
//
// A [Backend] is a store: kvstore/etcd (a member in this process or a cluster somewhere) and kvstore/mem (this process, for tests).
// Both pass kvstore/kvtest, which also has a wrapper that injects faults.
//
// A [Client] is a value made with [New] over a backend and adds what is the same for all of them: lists in pages at one
// revision, list-and-watch that survives compaction and restored servers ([Watcher]), locks ([Lock]).
//
// A [Hub] lets many watchers of a process share one stream of the store.
//
// Around the backend a client puts, when its [Config] asks for them, limits ([Limits]) and metrics and spans; without them there is nothing
// between. [Health] says how the store is, from one read at a time; it reports and never acts.
//
// # Errors
//
// A missing key is no error. What can go wrong has a sentinel (errors.Is) that carries a class of internal/errs. An error of class
// Unavailable from Txn means that the outcome is unknown: the write may have happened. Write with compares and read again.
//
// # Leases and locks
//
// A [LeasePool] keeps keys alive on few leases and writes them again when a lease was lost. Locks queue in memory within a process and in the
// store between processes (a path for which several contend is watched by each of them, once); they hang on a pool of their own. [Urgent] calls, theirs among them, never wait at a client's limits.
//
// Locks are hints, revisions are proof: who acts under a lock puts [Lock.Held] into the transaction that records the effect.
package kvstore
