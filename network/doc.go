// Package network runs the managed networks of this machine: bridges with DHCP, DNS, router advertisements and NAT,
// all inside the daemon, and puts instances on them.
//
// A network is a record (table "networks": its name and configuration keys, see [ParseConfig]) and what follows from
// it on the host: a bridge, its addresses, rules in the packet filter, servers. [Service.Run] brings that up
// for every record when the daemon starts and removes bridges without a record; one network that cannot be brought up is listed as
// Errored with its reason and does not keep the others from working. Stopping the daemon stops the servers and leaves
// all the rest as it is: instances keep their links and addresses.
//
// An instance's interface is a [NIC]. [Service.Attach] claims its addresses (lease.go: one transaction, so that no two
// can have the same), makes the link (room bridge) and that is all: DHCP and DNS answer from the same tables, so a
// lease is there before the guest asks for it, is the same after stop and start and after a restart of the daemon,
// and ends with [Service.Forget]. A name in DNS comes from the instance's name, never from what a guest says.
//
// Rooms below: bridge (links), firewall (nftables), dhcp (DHCPv4 and router advertisements), dns. They know nothing
// of tables and keys; this package joins them.
package network
