// Package daemon puts the rooms together: it fills their dependencies, starts them in order, lists the drivers
// (builtin.go) and stops everything. It decides nothing else.
//
// # Start
//
// Lock of the directory → socket (every endpoint answers 503) → database → services → instances that still run are
// adopted → networks → ready (sd_notify) → autostart. A step that fails ends the daemon with an error that names it.
//
// # Stop
//
// SIGTERM, SIGINT or PUT /internal/shutdown: new requests are refused, operations may finish, what still runs is ended,
// services stop in the reverse order, each within its budget. Instances are never touched: their monitors outlive the
// daemon.
//
// # Crash
//
// kill -9 at any time leaves a stale socket, which the next start replaces, and a lock that the kernel has released.
package daemon
