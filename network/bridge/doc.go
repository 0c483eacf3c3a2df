// Package bridge moves links: it makes the bridges of managed networks, puts one end of a pair of virtual
// interfaces into an instance, sets the kernel's switches that routing needs, and lists what interfaces the
// host has. It speaks rtnetlink and knows no state, no leases and no configuration keys; package network does.
//
// Whose is it? Everything made here is born in link group [Group] and labelled, in its ifalias, with the owner's
// id ("shoal:ID" on bridges, "shoal:ID:OWNER" on host ends). The kernel's own table is therefore the only record
// of what exists: after a crash or restart [Host.Ports] and [Host.Bridges] read it back. A link of our group without a
// label is one whose maker died between two calls; it may be taken over or removed. A bridge of the wanted name
// that is neither is somebody else's and is never touched.
//
// All calls act in the network namespace of the calling process, take no locks across calls and are idempotent.
package bridge
