package network

import (
	"github.com/shoal-project/shoal/internal/schema"
)

// ConfigKeys returns the keys of a bridge network. Which values go together is for [ParseConfig] to say.
func ConfigKeys() *schema.Table {
	autoNone := schema.OneOf("auto", "none")
	return schema.New("",
		schema.Key{Name: "bridge.hwaddr", Type: schema.MAC(), Live: true, Doc: "hardware address of the bridge; made up when not set"},
		schema.Key{Name: "bridge.mtu", Type: schema.Int(minMTU, maxMTU), Default: "1500", Live: true, Doc: "largest packet, in bytes"},
		schema.Key{Name: "dns.domain", Type: schema.Custom("domain", domainWords, func(v string) error { _, err := parseDomain(v); return err }), Default: defaultDomain, Live: true, Doc: "domain that instances' names are in"},
		schema.Key{Name: "dns.mode", Type: schema.OneOf("managed", "none"), Default: "managed", Live: true, Doc: "whether DNS knows the names of instances"},
		schema.Key{Name: "dns.search", Type: schema.Custom("domains", domainWords+", separated by commas", func(v string) error { _, err := parseSearch(v); return err }), Live: true, Doc: "domains that guests complete names with; dns.domain when not set"},
		schema.Key{Name: "ipv4.address", Type: schema.Or(autoNone, schema.CIDR(32)), Live: true, Doc: "address of the bridge with prefix length; auto when not set at creation"},
		schema.Key{Name: "ipv4.dhcp", Type: schema.Bool(), Default: "true", Live: true, Doc: "whether guests are given addresses by DHCP"},
		schema.Key{Name: "ipv4.dhcp.expiry", Type: schema.Custom("duration", expiryWords, func(v string) error { _, err := parseExpiry(v); return err }), Default: "1h", Live: true, Doc: "how long a lease lasts"},
		schema.Key{Name: "ipv4.dhcp.gateway", Type: schema.Addr(32), Live: true, Doc: "router that guests are told; the bridge when not set"},
		schema.Key{Name: "ipv4.dhcp.ranges", Type: schema.Custom("ranges", "ranges such as 10.0.0.2-10.0.0.9, separated by commas", func(v string) error { _, err := ParseRanges(v); return err }), Live: true, Doc: "addresses for dynamic leases; all of the network when not set"},
		schema.Key{Name: "ipv4.nat", Type: schema.Bool(), Default: "false", Live: true, Doc: "whether what leaves the network gets the host's address; true where the address is chosen automatically"},
		schema.Key{Name: "ipv6.address", Type: schema.Or(autoNone, schema.CIDR(128)), Live: true, Doc: "address of the bridge, a /64; auto when not set at creation"},
		schema.Key{Name: "ipv6.dhcp", Type: schema.Bool(), Default: "true", Live: true, Doc: "kept for clients; guests configure themselves from router advertisements"},
		schema.Key{Name: "ipv6.nat", Type: schema.Bool(), Default: "false", Live: true, Doc: "as ipv4.nat"},
		schema.Key{Name: "user.*", Type: schema.Text(maxConfigValue), Live: true, Doc: "free for users"},
	)
}
