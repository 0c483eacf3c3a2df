// Package store keeps sets of named values in step with a prefix of a kvstore.
//
//   - [SyncStore] writes: it brings the store to what its owner wants, as fast as the store takes it, for as long as it takes.
//   - [WatchStore] reads: it follows a prefix, may be stopped and pointed at another store, and reports differences only.
//   - [Shared] does both: each member owns some values, which nobody can take away, and sees those of all.
//   - [Manager] starts readers when a writer has said that everything is there.
//
// All work is done in Run or Watch, which block; nothing runs before or after them. What observers are called with is shared:
// they must not change it. Observers of one store are called one after another, and never under a lock of the store.
package store
