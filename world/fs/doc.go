// Package fs is a file system that all nodes share, kept in the cluster's database.
//
// # Words
//
// A [Store] is a place in the database. It holds volumes, each a tree of its own, and blobs, which the volumes share. A volume has inodes
// (what a file, directory or link is) and entries (which name in which directory is which inode). The content of a file up to 4 KiB stands in its
// inode; a longer one is cut into chunks, blobs under the SHA-256 of their bytes, and the inode names a manifest, a blob that lists
// them. So equal chunks are kept once, whoever wrote them. Every blob is checked against its name when it is read.
//
//	vol/<name>                       which tree a volume is, its chunk size
//	tree/<volume>/i/<inode>          an inode
//	tree/<volume>/d/<inode>/<name>   an entry of a directory
//	tree/<volume>/m/<inode>          when the entries of a directory last changed
//	blob/<hash>                      a chunk or a manifest
//	use/<hash>                       its size; written whenever somebody begins to rely on it
//	session/<session>                leased: a process that writes
//	pin/<session>/<upload>/<hash>    leased: a blob that an upload needs and no inode names yet
//
// # What holds
//
// Each change of the tree is one transaction that compares what it was decided on: there is no moment at which half of it can be seen, and a client
// that dies between any two steps leaves the tree as it was or as it wanted it. What it leaves besides (blobs that nobody names, a detached tree) can
// be seen by nobody and is collected by [Store.GC].
//
// A path is looked up at one revision. A handle reads the file as it was when it was opened. A handle that was written to makes its content visible as
// a whole, with Sync or Close, and not at all, with [ErrConflict], when somebody else has changed the content since. [FS.Snapshot]
// is a whole volume at one revision. Readers of the past need revisions that the database still has: it forgets them after a while, and
// then they fail with [ErrPast], never with other content.
//
// An error of class Unavailable from a change means that its outcome is unknown, as everywhere with kvstore; Sync and Close
// may be called again and find out.
//
// # Limits
//
// See [MaxName] and the constants beside it. Modes, owners and times are kept and shown; who may reach the store may do everything in it. There are no
// hard links, no access times and no locks.
//
// Errors are [io/fs.PathError] with the errno that a kernel would have returned, or one of the errors above; [Classify] gives
// them the class of internal/errs.
package fs
