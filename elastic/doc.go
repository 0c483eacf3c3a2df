// Package elastic is the database of the cluster: etcd members inside the daemons, as many as are needed, where they are needed.
//
// A [Member] alone ([Start]) is what a single machine runs; it listens on nothing, clients in this process talk to it through memory. A [Node] is a machine's
// part in a cluster. Each machine has one of three roles:
//
//	voter    a raft voter; 1, 3, 5 or 7 of them
//	standby  a raft learner: a copy of the data that takes a voter's place in milliseconds, and is as good as one to recover from
//	spare    no copy; its client goes to the voters over the network
//
// Raft's membership is the only record of roles. What machines there are, how many voters are wanted and how many standbys is in the database below [Prefix]; the
// numbers may be changed at any time, through [Node.SetTargets] or with etcdctl on [SizeKey].
//
// # Who decides
//
// The machine whose member leads raft runs the one controller. It asks every machine for its state once a second, puts that together with the membership, lets [Decide]
// say what the next step is and does it, one change at a time. It goes by what is there, not by what happened, so whatever it left undone the
// next leader finds. Nobody is dead for a leader that has not watched for as long as that takes. Machines learn the leader's picture with its questions, so [Node.Members] asks nobody.
//
// What never happens by itself: a new cluster ([Node.Bootstrap]), the recovery of one that lost its majority ([Node.Recover]), a change of membership because a daemon stops
// ([Node.Close]), the deletion of data: it is moved aside, the newest two directories are kept.
//
// # One port
//
// A machine has one TCP port for everything. Clients of the database are told apart by the protocol that they name in the handshake (ALPN) and get etcd's gRPC; raft and the leader's
// orders have paths of their own; all other requests go to the daemon's API. A certificate of the cluster is needed for the first, a member's for the second, see package pki.
// etcd itself listens on nothing. The only other way in is a unix socket for root ([NodeConfig.Socket]).
//
// # Files
//
//	DIR/identity.json     who this member is; written before the data and again when the first start is through
//	DIR/peers.json        where the other machines were last; a hint
//	DIR/etcd/             the data: member/wal, member/snap
//	DIR/etcd.old-TIME/    data that was replaced, newest two; data is moved aside, never deleted at once
//	DIR/etcd.new/         a restored database that is not in its place yet
//
// # After a crash
//
// etcd writes a transaction to its log and syncs it before it answers, so kill -9 loses nothing that was acknowledged. A first start that
// did not come to its end is begun anew, its data moved aside; so is a copy that was being fetched. Before a machine of a cluster starts its copy it asks the others: a
// copy that was removed, given up by a recovery, or that has seen fewer starts than the cluster has seen of it (a disk restored from a backup, which has forgotten what it voted for) is moved aside,
// and the machine gets a role anew. A lone member whose data directory has vanished does not start: an empty database in place of a lost one
// would let the daemon destroy what it no longer knows. [Restore] puts a snapshot in its place.
//
// # Speed
//
// Alone, a member elects itself: heartbeats of 10 ms make a start take about 0.1 s where the default takes 0.7 s. A Node has the times of a network from the
// beginning, 100 ms and 1 s if nothing else is said.
package elastic
