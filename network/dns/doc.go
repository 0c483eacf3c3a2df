// Package dns answers the guests of one bridge: for the names and addresses of instances itself, for all else from the
// host's resolvers.
//
// [Handler] is the decision (what a query gets), [Listen] the sockets. The name NAME and NAME.DOMAIN are an
// instance's; what [Names] does not know below the domain, or asks for one label only, does not exist, and is never
// asked of anybody else. Reverse names of the network's own prefixes are answered the same way.
//
// It is no open resolver: a query must come from the network itself or from an address of this host, whatever way it
// took. Queries on their way to the host's resolvers are bounded in number, time and size.
package dns
