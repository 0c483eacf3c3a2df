// Package elastic runs an etcd member inside this process.
//
// A [Member] listens on nothing: clients in this process talk to it through memory ([Member.Client]). Today a cluster has one member;
// roles, joining and leaving come with the cluster, and what they need is laid down here: a random cluster token, room for learners, the
// member's identity beside its data.
//
// # Files
//
//	DIR/identity.json     who this member is; written before the data and again when the first start is through
//	DIR/etcd/             the data: member/wal, member/snap
//	DIR/etcd.old-TIME/    data that was replaced, newest two; data is moved aside, never deleted at once
//
// # After a crash
//
// etcd writes a transaction to its log and syncs it before it answers, so kill -9 loses nothing that was acknowledged. A first start that
// did not come to its end is begun anew, its data moved aside. A member that was complete and whose data directory has vanished does not start:
// an empty database in place of a lost one would let the daemon destroy what it no longer knows. [Restore] puts a snapshot in its place.
//
// # Speed
//
// Alone, a member elects itself: heartbeats of 10 ms make a start take about 0.1 s where the default takes 0.7 s. With others the
// times must be those of a network, which is a restart of the member, not of the daemon.
package elastic
