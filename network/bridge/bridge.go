package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// Group is the link group of everything made here; "ip link show group 23054" lists it.
const Group = 0x5a0e

const aliasPrefix = "shoal:"

// Host is the links of this network namespace, seen by one owner. Safe for concurrent use.
type Host struct {
	label string
}

// New returns the links of this network namespace. id tells this daemon from another one on the same host: a short
// word that stays the same over restarts.
func New(id string) *Host { return &Host{label: aliasPrefix + id} }

// Config is what a bridge should be.
type Config struct {
	Name   string
	HWAddr net.HardwareAddr
	MTU    int            // 0: 1500
	Addrs  []netip.Prefix // with the host part: 10.1.2.1/24
}

// Ensure makes the bridge, or takes over the one that this owner made before, gives it exactly the addresses of c
// (link-local ones are left alone) and brings it up. errs.Exists when another link has the name.
func (h *Host) Ensure(ctx context.Context, c Config) error {
	link, err := h.bridge(c)
	if err != nil {
		return err
	}
	for key, val := range map[string]string{
		"ipv6/conf/" + c.Name + "/disable_ipv6": "0",
		"ipv6/conf/" + c.Name + "/accept_ra":    "0", // we are the router here; a guest must not become ours
		"ipv6/conf/" + c.Name + "/autoconf":     "0",
		"ipv6/conf/" + c.Name + "/accept_dad":   "0",
	} {
		if err := writeSysctl(key, val); err != nil {
			return fmt.Errorf("bridge %s: %w", c.Name, err)
		}
	}
	attrs := link.Attrs()
	if c.MTU != 0 && attrs.MTU != c.MTU {
		if err := netlink.LinkSetMTU(link, c.MTU); err != nil {
			return fmt.Errorf("bridge %s: set mtu %d: %w", c.Name, c.MTU, err)
		}
	}
	if c.HWAddr != nil && attrs.HardwareAddr.String() != c.HWAddr.String() {
		if err := netlink.LinkSetHardwareAddr(link, c.HWAddr); err != nil {
			return fmt.Errorf("bridge %s: set hwaddr %s: %w", c.Name, c.HWAddr, err)
		}
	}
	if err := syncAddrs(link, c); err != nil {
		return fmt.Errorf("bridge %s: %w", c.Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bridge %s: bring up: %w", c.Name, err)
	}
	return nil
}

// bridge finds or makes the bridge and labels it.
func (h *Host) bridge(c Config) (netlink.Link, error) {
	link, err := netlink.LinkByName(c.Name)
	if err == nil {
		if a := link.Attrs(); link.Type() != "bridge" || a.Alias != h.label && !(a.Alias == "" && a.Group == Group) {
			return nil, errs.Exists("interface %q exists already and was not made by this daemon: remove it or choose another name", c.Name)
		}
	} else {
		if !isNotFound(err) {
			return nil, fmt.Errorf("look for interface %s: %w", c.Name, err)
		}
		la := netlink.NewLinkAttrs()
		la.Name, la.Group, la.HardwareAddr, la.MTU = c.Name, Group, c.HWAddr, c.MTU
		br := &netlink.Bridge{LinkAttrs: la}
		if err := netlink.LinkAdd(br); err != nil {
			return nil, fmt.Errorf("make bridge %s: %w", c.Name, err)
		}
		link = br
	}
	if link.Attrs().Alias != h.label {
		if err := netlink.LinkSetAlias(link, h.label); err != nil {
			return nil, fmt.Errorf("label bridge %s: %w", c.Name, err)
		}
	}
	return link, nil
}

// syncAddrs adds what is missing and removes what is too much. Addresses skip duplicate address detection: on a
// bridge without a running port it would never end, and servers could not bind.
func syncAddrs(link netlink.Link, c Config) error {
	want := slices.Clone(c.Addrs)
	hasV6 := slices.ContainsFunc(want, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if hasV6 && c.HWAddr != nil {
		want = append(want, netip.PrefixFrom(LinkLocal(c.HWAddr), 64)) // the kernel adds it only with the first port
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range have {
		p := toPrefix(a.IPNet)
		if i := slices.Index(want, p); i >= 0 {
			want = slices.Delete(want, i, i+1)
			continue
		}
		if p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	for _, p := range want {
		a := &netlink.Addr{IPNet: toIPNet(p), Flags: unix.IFA_F_NODAD}
		if p.Addr().Is4() && p.Bits() < 31 {
			a.Broadcast = net.IP(lastAddr(p).AsSlice())
		}
		if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	return nil
}

// Remove deletes the bridge; nil when it is gone, errs.Exists when the link of that name is not ours.
func (h *Host) Remove(ctx context.Context, name string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for interface %s: %w", name, err)
	}
	if a := link.Attrs(); link.Type() != "bridge" || a.Alias != h.label && !(a.Alias == "" && a.Group == Group) {
		return errs.Exists("interface %q was not made by this daemon", name)
	}
	if err := netlink.LinkDel(link); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete bridge %s: %w", name, err)
	}
	return nil
}

// Bridges returns the names of the bridges that this owner made, in no order.
func (h *Host) Bridges() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []string
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Alias == h.label {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}

// Taken returns the prefixes that the host uses: addresses of its interfaces and its routes, the default route left
// out. Networks that choose their own addresses stay clear of them.
func (h *Host) Taken() ([]netip.Prefix, error) {
	var out []netip.Prefix
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		out = append(out, toPrefix(a.IPNet).Masked())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p := toPrefix(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// LinkLocal returns the link-local address that follows from a hardware address (RFC 4291, modified EUI-64).
func LinkLocal(hw net.HardwareAddr) netip.Addr {
	return EUI64(netip.MustParsePrefix("fe80::/64"), hw)
}

// EUI64 returns the address that a host with this hardware address gives itself in a /64 prefix, the zero Addr when
// hw is no 48-bit address or p no IPv6 /64.
func EUI64(p netip.Prefix, hw net.HardwareAddr) netip.Addr {
	if len(hw) != 6 || !p.Addr().Is6() || p.Bits() != 64 {
		return netip.Addr{}
	}
	a := p.Masked().Addr().As16()
	copy(a[8:], []byte{hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
	return netip.AddrFrom16(a)
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func isNotFound(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.As(err, &nf) || errors.Is(err, syscall.ENODEV) || err != nil && strings.Contains(err.Error(), "Link not found")
}
