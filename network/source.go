package network

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// Source is what the servers of a network know of its guests. Safe for concurrent use; every call reads the tables, so
// nothing in a server can be out of date.
type Source interface {
	// Known reports whether a hardware address is an instance's.
	Known(hw net.HardwareAddr) bool
	// Offer returns the address for a hardware address, and the name of the instance that has it, "" for a stranger.
	// errs.NoSpace when there is none left for it. It writes nothing.
	Offer(ctx context.Context, hw net.HardwareAddr) (addr netip.Addr, instance string, err error)
	// Bind makes what Offer returned a lease. For instances it is one already.
	Bind(ctx context.Context, hw net.HardwareAddr, addr netip.Addr) error
	// Release ends a stranger's lease; instances keep theirs.
	Release(ctx context.Context, hw net.HardwareAddr) error
	// Addrs returns the addresses of a name below the network's domain, without the domain; ok is false when there is
	// no such name.
	Addrs(name string) (addrs []netip.Addr, ok bool)
	// Name returns the name of an address, without the domain; "" when it has none.
	Name(addr netip.Addr) string
}

type source struct {
	s       *Service
	network string
	spec    Spec
}

func (src *source) Known(hw net.HardwareAddr) bool {
	it, err := src.s.leases.hws.Get(state.Key(src.network, hw.String()))
	return err == nil && it.Value.NIC != ""
}

func (src *source) Offer(ctx context.Context, hw net.HardwareAddr) (netip.Addr, string, error) {
	l := src.s.leases
	it, err := l.hws.Get(state.Key(src.network, hw.String()))
	if err != nil || it.Value.NIC == "" {
		a, err := l.strayOffer(src.network, src.spec, hw)
		return a, "", err
	}
	rec, err := l.nics.Get(it.Value.NIC)
	if err != nil {
		return netip.Addr{}, "", err
	}
	nic, err := parseNICKey(it.Value.NIC)
	if err != nil {
		return netip.Addr{}, "", err
	}
	a := rec.Value.IPv4
	if !rec.Value.Static && !inRanges(src.spec, a) { // the network was given other addresses
		nic.HWAddr = rec.Value.HWAddr
		fresh, err := l.claim(ctx, src.spec, nic)
		if err != nil {
			return netip.Addr{}, "", err
		}
		a = fresh.IPv4
	}
	return a, nic.Instance.String(), nil
}

func (src *source) Bind(ctx context.Context, hw net.HardwareAddr, addr netip.Addr) error {
	if src.Known(hw) {
		return nil
	}
	return src.s.leases.strayBind(ctx, src.network, src.spec, hw, addr)
}

func (src *source) Release(ctx context.Context, hw net.HardwareAddr) error {
	return src.s.leases.strayRelease(ctx, src.network, hw)
}

func (src *source) Addrs(name string) (addrs []netip.Addr, ok bool) {
	for _, it := range src.s.leases.nics.List(state.Prefix(src.network, strings.ToLower(name))) {
		ok = true
		for _, a := range []netip.Addr{it.Value.IPv4, it.Value.IPv6} {
			if a.IsValid() {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, ok
}

func (src *source) Name(addr netip.Addr) string {
	if addr.Is4() {
		it, err := src.s.leases.addrs.Get(state.Key(src.network, addr.String()))
		if err != nil || it.Value.NIC == "" {
			return ""
		}
		return state.SplitKey(it.Value.NIC)[1]
	}
	hw := hwOfEUI64(addr)
	if hw == nil {
		return ""
	}
	it, err := src.s.leases.hws.Get(state.Key(src.network, hw.String()))
	if err != nil || it.Value.NIC == "" {
		return ""
	}
	return state.SplitKey(it.Value.NIC)[1]
}

// hwOfEUI64 is the inverse of bridge.EUI64; nil when the address was not made that way.
func hwOfEUI64(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	if b[11] != 0xff || b[12] != 0xfe {
		return nil
	}
	return net.HardwareAddr{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
}

func parseNICKey(key string) (NIC, error) {
	p := state.SplitKey(key)
	if len(p) != 5 {
		return NIC{}, errs.Invalid("key %q is not one of an interface", key)
	}
	var n NIC
	var err [4]error
	n.Network, err[0] = api.ParseNetworkName(p[0])
	n.Project, err[1] = api.ParseProjectName(p[2])
	n.Instance, err[2] = api.ParseInstanceName(p[3])
	n.Device, err[3] = api.ParseDeviceName(p[4])
	for _, e := range err {
		if e != nil {
			return NIC{}, e
		}
	}
	return n, nil
}

// Leases lists what a network gave out: its own addresses ("gateway"), those of instances of the project ("static" or
// "dynamic"), and those of strangers (dynamic, without a name), sorted by name and address.
func (s *Service) Leases(ctx context.Context, project api.ProjectName, name api.NetworkName) ([]api.NetworkLease, error) {
	it, err := s.get(name.String())
	if err != nil {
		return nil, err
	}
	spec, err := ParseConfig(it.Value.Config)
	if err != nil {
		return nil, err
	}
	out := []api.NetworkLease{}
	for _, p := range []netip.Prefix{spec.IPv4, spec.IPv6} {
		if p.IsValid() {
			out = append(out, api.NetworkLease{Hostname: name.String() + ".gw", Address: p.Addr().String(), Type: "gateway", Location: "none"})
		}
	}
	for _, it := range s.leases.nics.List(state.Prefix(name.String())) {
		nic, err := parseNICKey(it.Key)
		if err != nil || nic.Project != project && !project.IsZero() {
			continue
		}
		l := leaseOf(nic.Instance.String(), it.Value)
		if l.Address != "" {
			out = append(out, l)
		}
		if it.Value.IPv6.IsValid() {
			l.Address, l.Type = it.Value.IPv6.String(), "dynamic"
			out = append(out, l)
		}
	}
	for _, it := range s.leases.addrs.List(state.Prefix(name.String())) {
		if it.Value.NIC == "" && it.Value.Expires.After(s.d.Clock.Now()) {
			out = append(out, api.NetworkLease{Hwaddr: it.Value.HWAddr, Address: state.SplitKey(it.Key)[1], Type: "dynamic", Location: "none"})
		}
	}
	slices.SortStableFunc(out, func(a, b api.NetworkLease) int { return strings.Compare(a.Hostname, b.Hostname) })
	return out, nil
}

func leaseOf(instance string, rec nicRecord) api.NetworkLease {
	l := api.NetworkLease{Hostname: instance, Hwaddr: rec.HWAddr, Type: "dynamic", Location: "none"}
	if rec.IPv4.IsValid() {
		l.Address = rec.IPv4.String()
	}
	if rec.Static {
		l.Type = "static"
	}
	return l
}
