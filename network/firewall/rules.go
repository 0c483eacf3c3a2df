package firewall

import (
	"fmt"
	"net/netip"
	"strings"
)

// Network is what a bridge needs.
type Network struct {
	Bridge string
	IPv4   netip.Prefix // the bridge's own address with prefix length; zero: none
	IPv6   netip.Prefix
	NAT4   bool // masquerade what leaves the network
	NAT6   bool
	DHCP   bool
	DNS    bool
}

// Rules is all that the table holds, in the order given.
type Rules []Network

// Rule is one rule: every field that is set must match, then Verdict. The zero value of a field matches all.
type Rule struct {
	In      string       // input interface
	NotIn   []string     // input interface is none of these
	Out     string       // output interface
	Src     netip.Prefix // source address; its host part is ignored
	Dst     netip.Prefix // destination address
	NotDst  netip.Prefix // destination address outside
	Proto   string       // udp, tcp
	Port    uint16       // destination port, with Proto
	Verdict string       // accept, drop or masquerade
}

// Chain is a base chain and its rules.
type Chain struct {
	Name     string
	Hook     string // input, forward or postrouting
	Priority int
	Rules    []Rule
}

// Chains returns the chains of the table, always the same ones, with the rules that the networks need.
func (rs Rules) Chains() []Chain {
	in := Chain{Name: "input", Hook: "input", Priority: 0}
	fwd := Chain{Name: "forward", Hook: "forward", Priority: 0}
	post := Chain{Name: "postrouting", Hook: "postrouting", Priority: 100}
	for _, n := range rs {
		in.Rules = append(in.Rules, n.input()...)
		fwd.Rules = append(fwd.Rules, Rule{In: n.Bridge, Verdict: "accept"}, Rule{Out: n.Bridge, Verdict: "accept"})
		for _, f := range []struct {
			on bool
			p  netip.Prefix
		}{{n.NAT4, n.IPv4}, {n.NAT6, n.IPv6}} {
			if f.on && f.p.IsValid() {
				post.Rules = append(post.Rules, Rule{Src: f.p.Masked(), NotDst: f.p.Masked(), Verdict: "masquerade"})
			}
		}
	}
	return []Chain{in, fwd, post}
}

// input lets guests reach our DHCP and DNS, and nobody from elsewhere our DNS: it must not become an open resolver.
func (n Network) input() (out []Rule) {
	if n.DHCP {
		out = append(out, Rule{In: n.Bridge, Proto: "udp", Port: 67, Verdict: "accept"})
	}
	if !n.DNS {
		return out
	}
	for _, proto := range []string{"udp", "tcp"} {
		out = append(out, Rule{In: n.Bridge, Proto: proto, Port: 53, Verdict: "accept"})
	}
	for _, p := range []netip.Prefix{n.IPv4, n.IPv6} {
		if !p.IsValid() {
			continue
		}
		host := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		for _, proto := range []string{"udp", "tcp"} {
			out = append(out, Rule{NotIn: []string{n.Bridge, "lo"}, Dst: host, Proto: proto, Port: 53, Verdict: "drop"})
		}
	}
	return out
}

// String returns the rule as nft prints it.
func (r Rule) String() string {
	var b []string
	add := func(format string, a ...any) { b = append(b, fmt.Sprintf(format, a...)) }
	if r.In != "" {
		add("iifname %q", r.In)
	}
	for _, n := range r.NotIn {
		add("iifname != %q", n)
	}
	if r.Out != "" {
		add("oifname %q", r.Out)
	}
	if r.Src.IsValid() {
		add("%s saddr %s", family(r.Src), short(r.Src))
	}
	if r.Dst.IsValid() {
		add("%s daddr %s", family(r.Dst), short(r.Dst))
	}
	if r.NotDst.IsValid() {
		add("%s daddr != %s", family(r.NotDst), short(r.NotDst))
	}
	if r.Proto != "" {
		add("%s dport %d", r.Proto, r.Port)
	}
	return strings.Join(append(b, r.Verdict), " ")
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ip"
	}
	return "ip6"
}

func short(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
