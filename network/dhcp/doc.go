// Package dhcp configures the guests of a bridge: it answers DHCPv4 and advertises the IPv6 router and prefix.
//
// It keeps nothing: which address a guest has is what [Leases] says. [Responder.Reply] is the whole of the protocol
// (RFC 2131, without relays) as a function of a packet, [Serve] the socket around it; [Advertise] sends what
// [Advertisement] describes (RFC 4861, with RDNSS and DNSSL of RFC 8106), now and then and when asked.
//
// Packets come from guests, so nothing in them is believed: the hardware address says which lease is meant, the
// client's own idea of its name is ignored, and what is malformed gets no answer. Strangers (hardware addresses that are
// no instance's) have one budget of packets together and each instance's interface has its own, so that none starves another.
package dhcp
