// Package lifecycle starts services in order, keeps them running and stops them in reverse order.
//
// A [Service] is a function that works until its context ends and says when it can be used. [Group.Run] starts the
// next service when the one before is ready, so a service may use all that stand before it for its whole life. It stops
// the last first, each with a budget of its own: one that hangs is named in the log and left behind, it does not keep the
// others from stopping.
//
// An error before readiness means that the daemon cannot start: everything is stopped again and the error returned. An
// error, or a panic, of a running service with Restart set means: start it again after a pause that doubles from
// one second to half a minute. Without Restart it ends the group.
//
// Nothing here survives the process. What must be finished or undone after a crash is the journal's business.
package lifecycle
