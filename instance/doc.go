// Package instance keeps instances: what they are (records in state), how they run (a driver), and all that
// hangs on them: devices, exec, console, files, templates.
//
// # Where to start
//
// [Service] is what rest calls; its methods return an [op.Spec] for whatever takes time. A record (record.go) is
// what the cluster wants; an entry (entry.go) is what this node knows about a record at run time: one status, one
// operation lock, at most one run. Pure decisions live below: [config] (keys, devices, expansion, limits),
// [template] (the files that images fill in), [profile] (configuration that instances share).
//
// # The record is the journal
//
// Creating, deleting and renaming have several effects (a volume, an image hold, directories, claims). What is going
// on is written into the record before the first effect, in the transaction that claims the name, the id block and
// the hardware addresses: phase "creating", phase "deleting", or renaming_to. Every effect is idempotent. A failed or
// cut-off creation is undone by exactly the code that deletes ([Service.destroy]); a cut-off deletion or rename is
// finished. [Service.Recover] does that at the next start, so after kill -9 anywhere the name is usable again.
//
// Starting leaves nothing of its own to journal: the driver's Recover reports half-made processes, and host
// interfaces are named in the record (volatile.<nic>.host_name) before they are made.
//
// Addresses that a configuration asks for are claimed when it is written ([NICs].Reserve) and given back with the device or
// the instance.
//
// # Snapshots
//
// A snapshot (snapshots.go) is a record under the instance's id and a volume under an id of its own, so that renaming either moves
// nothing on disk. Its record comes first, in the phase "creating", and goes last. A restore is written into the instance's
// record (Restoring), replaces the root in one step, and is finished at the next start. Where a pool cannot copy a root as of one
// moment, a running instance stands still meanwhile; the snapshot's record says so, and the next start lets it go on.
//
// # What users see of it
//
// logs/<name>/lxc.log tells the story of an instance (logs.go): starts, why one failed, how runs ended. The daemon's debug log
// says how long each step of a create or start took (steps.go).
//
// A decision about power is written down before its first effect (intent.go): a forced stop, a restart and a restart by policy that
// waits are finished by the next daemon, and what the end of the host stops counts as running.
//
// # Locks
//
// One operation at a time changes an instance (lock.go). A second start or stop of the same kind joins the first and
// shares its result; any other is refused with "Instance is busy running a %q operation". A forced stop always
// gets through: it cancels the holder, kills the process and waits for the holder to leave.
package instance
