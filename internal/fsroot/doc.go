// Package fsroot is the only door to paths below an instance, image, volume or backup directory.
//
// There are two kinds of trees, and they need different rules:
//
//   - Our own trees (state directories, image stores, staging areas) are opened with [Open]. A [Root] is an
//     [os.Root]: a name that leaves the directory, by "..", by being absolute or through a link, is refused. On top come
//     [Root.WriteAtomic], [Root.RemoveTree] and [Root.Unpack].
//   - Inside a guest's tree absolute links are normal and mean the guest's root. [OpenGuest] resolves a path
//     there as the guest would and opens only regular files and directories. Everything that may be done by the guest's
//     own agent is done there instead: a confined path is not enough where the guest has mounts of its own.
//
// Archives enter through [Root.Unpack] and [Decompress]. The unpacker resolves every entry below the target with
// openat2 and follows no link at all, so an archive can only make what it names, where it names it. Its rules are
// written at [UnpackOptions].
//
// Errors have classes: errs.InvalidInput for names and archives that are wrong, TooLarge for what is over its limit,
// NoSpace for a full disk, NotFound, Exists. [Classify] does that for errors of the standard library.
//
// After a crash: WriteAtomic left the old content or the new, and perhaps a file whose name begins with
// [TempPrefix]; Unpack left nothing or the whole tree under the final name, and perhaps a directory with that prefix.
// [Root.RemoveTemp] deletes such left-overs when the owner of a directory starts.
package fsroot
