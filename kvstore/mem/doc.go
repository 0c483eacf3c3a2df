// Package mem is a kvstore backend in the memory of this process: revisions, compaction, watches and leases as etcd has them, no
// network, no disk, no goroutine of its own. It serves tests of other rooms and is the reference that kvtest compares etcd with.
//
// Differences from etcd: it always has a leader, lease times are exact, nothing survives the process.
package mem
