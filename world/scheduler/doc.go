// Package scheduler chooses hosts: of those that take part in a schedule, at most so many, by a strategy, the same for everybody who asks.
//
// # Words
//
// A schedule has a name and a [Spec]: strategy, maximum, filters. A host that takes part is a candidate; it joined ([Scheduler.Join]) and
// holds a [Place] until it withdraws, closes or is lost. The computer is the one scheduler of the cluster that holds the lock and
// computes; every one that runs ([Scheduler.Run]) stands by for it. A [Result] is what was chosen, as it was at one revision of the store.
//
// # What always holds
//
//   - A result names candidates that are alive, each once, and at most Max of them. Readers check it themselves against the same revision, so that a
//     host that died is gone from what they see with its lease, before anything was computed anew, and when there is nobody to compute.
//   - All who see a result of one revision see the same one. A result is written in a transaction that holds while the computer holds its
//     lock, the spec is the one that was looked at, and the result before is the one that was continued: a computer that was cut off
//     changes nothing.
//   - When hosts come and go, no other host moves but where the strategy says so (see [Strategy]).
//   - A withdrawal drains: the host is replaced first, then it leaves; the last one takes the result with it.
//   - One schedule's broken record does not stop the others; it is reported and left as it is.
//
// # Keys
//
// Under the World's namespace, with the leaves that mgmt's scheduler has (a schedule's keys stand together, so that one watch follows it):
//
//	scheduler/schedules/<schedule>/spec            Spec
//	scheduler/schedules/<schedule>/scheduled       the result: hosts in order, and who computed it from what
//	scheduler/schedules/<schedule>/exchange/<host> Candidate, under a lease unless it persists
//	scheduler/computer/…                           the lock of the computer
//
// After kill -9 a candidate's key goes with its lease, and a host that comes back within the time keeps its place when it asked for
// that ([JoinOptions.ReuseLease]). A result refers to nothing else; the next computer continues from it.
package scheduler
