// Package fault does to a real daemon what must never happen and does: it is killed at any moment, the machine goes down,
// clients send rubbish or hang up, disks fill, programs are missing. Afterwards a user finds a clear error, instances
// that were left alone, and no remains: every test ends with the comparison of records and host.
//
// All of it is ring 2, and every daemon lives in namespaces of its own, see package harness.
package fault
