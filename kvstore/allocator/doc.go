// Package allocator gives numbers to keys, the same number on all nodes, and takes them away when nobody uses them.
//
// # Words
//
// A key is any string, an [ID] a number in a range. The record of a key says which id it has. A node that uses an id holds a
// reference to the record, under one of the leases that it renews (a [kvstore.LeasePool]), so that the references of a dead node go by
// themselves. A record without references stays, and is found again by the next node that asks for the key, until the [Collector] has seen
// it unused in two rounds.
//
// # What holds
//
// A key never has two ids, an id never two keys, and a record with a reference is never collected. Each of these is a condition of
// the transaction that writes, so none depends on caches, clocks, locks or on who crashed when: a new key is one transaction, which
// holds when neither the key's nor the id's record exists; an existing key is one, which holds while the record is the one
// that was seen; the collector deletes in one, which holds when the range of references is empty. Nobody ever holds a lock.
//
// # Parts
//
// [KV] keeps the records in a kvstore; doublewrite keeps them in two. [Allocator] is what a node uses: it counts the users of
// each key on this node (only the first one writes, only the last one's release deletes), writes what several callers want at the same time in one
// transaction, follows all records in memory, puts back what got lost, and looks into the records of other clusters
// ([Allocator.WatchRemote]). [Pool] knows which ids are free; it is a hint, the transaction is the proof.
package allocator
