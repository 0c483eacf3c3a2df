// Package state keeps what the cluster wants and is: typed tables over the key-value store.
//
// # Shape
//
// A [DB] is one store seen as tables. A [Table] holds values of one Go type under keys made by [Key]. [Open] follows the store through a
// kvstore.Hub, one stream for all that this process follows, and keeps all of it in memory, decoded once; [NewMemory] is the same without a store, for tests of other rooms.
//
//	instances := state.NewTable[record](db, state.Instances, 1)
//	item, err := instances.Create(ctx, state.Key("default", "web"), record{…})
//	item, err = instances.Modify(ctx, item.Key, func(r *record) error { r.Stopped = true; return nil })
//	for _, it := range instances.List(state.Prefix("default")) { … }
//
// # Reads
//
// Reads are served from memory and never wait. They see every write that this process has made, and those of others soon
// after; [DB.Linearizable] first waits for everything that was written before the call, by anybody. [Table.Get] returns a private copy, made
// for reading, changing and writing back. Values from [Table.List], [Index.List], [Table.All] and changes are shared with all readers:
// do not change what their maps, slices and pointers lead to.
//
// # Writes
//
// A write compares and swaps: it goes through only if the item has not changed since it was read (Conflict), or does not exist
// (Exists). Several writes to any tables are one transaction, [DB.Txn]. A write that returned an error of class Unavailable may have happened: read again.
// When a write returns nil it is on disk at a majority of voters, and kill -9 of this process does not lose it.
//
// # Schema versions
//
// A value is stored as {"v": version, "d": value}. A value of a version newer than this build writes is read as far as its
// fields are known and never written or deleted (Unsupported): a newer member made it.
//
// # Following changes
//
// [Table.Watch] calls a function for each change, in its own goroutine, at its own speed. [Table.OnChange] is the raw hook below it. An [Index] finds
// items by something other than their key.
//
// The journal of this node's operations is the package journal below this one.
package state
