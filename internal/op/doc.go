// Package op keeps operations: what clients start, watch, wait for and cancel.
//
// A room that has something long to do returns a [Spec]; rest hands it to [Registry.Start], which runs it
// in a goroutine of its own and answers with the operation. Every change of status or metadata is published
// as an event with the full object, the final one always: clients of LXD's lineage wait for nothing else. A final
// operation can be read for [KeepFinal] more.
//
// # Websockets
//
// A Spec names its sockets; each gets a random secret of 256 bits, shown once, in the object that Start
// returns, never in events or in Get. [Registry.Connect] compares in constant time, accepts a secret once,
// and not after [SecretLife]. Run gets the socket from [Handle.Socket], which gives up after [ConnectWait].
//
// # Crash
//
// Operations live in the memory of this daemon. One that the daemon's death cut off is gone from the list;
// what it had begun is finished or undone by the journal of the room that began it.
package op
