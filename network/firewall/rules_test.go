package firewall_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/network/firewall"
)

// TestChains reads the rules as text; that the kernel gets the same is what the tests of package network see with nft.
func TestChains(t *testing.T) {
	rules := firewall.Rules{
		{Bridge: "br0", IPv4: netip.MustParsePrefix("10.1.2.1/24"), IPv6: netip.MustParsePrefix("fd42::1/64"), NAT4: true, NAT6: true, DHCP: true, DNS: true},
		{Bridge: "br1", IPv4: netip.MustParsePrefix("10.1.3.1/24"), DNS: true},
		{Bridge: "br2", NAT4: true, NAT6: true},
	}
	var b strings.Builder
	for _, c := range rules.Chains() {
		b.WriteString(c.Name + " " + c.Hook + "\n")
		for _, r := range c.Rules {
			b.WriteString("\t" + r.String() + "\n")
		}
	}
	want := `input input
	iifname "br0" udp dport 67 accept
	iifname "br0" udp dport 53 accept
	iifname "br0" tcp dport 53 accept
	iifname != "br0" iifname != "lo" ip daddr 10.1.2.1 udp dport 53 drop
	iifname != "br0" iifname != "lo" ip daddr 10.1.2.1 tcp dport 53 drop
	iifname != "br0" iifname != "lo" ip6 daddr fd42::1 udp dport 53 drop
	iifname != "br0" iifname != "lo" ip6 daddr fd42::1 tcp dport 53 drop
	iifname "br1" udp dport 53 accept
	iifname "br1" tcp dport 53 accept
	iifname != "br1" iifname != "lo" ip daddr 10.1.3.1 udp dport 53 drop
	iifname != "br1" iifname != "lo" ip daddr 10.1.3.1 tcp dport 53 drop
forward forward
	iifname "br0" accept
	oifname "br0" accept
	iifname "br1" accept
	oifname "br1" accept
	iifname "br2" accept
	oifname "br2" accept
postrouting postrouting
	ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 masquerade
	ip6 saddr fd42::/64 ip6 daddr != fd42::/64 masquerade
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
