package dhcp

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// Leases says who has which address.
type Leases interface {
	// Known reports whether a hardware address is an instance's. It is asked for every packet and must be cheap.
	Known(hw net.HardwareAddr) bool
	// Offer returns the address for a hardware address and the name of the instance that has it, "" for a stranger.
	// It changes nothing. An error means that there is no address.
	Offer(ctx context.Context, hw net.HardwareAddr) (addr netip.Addr, instance string, err error)
	// Bind makes the address that Offer returned a lease, or makes it longer.
	Bind(ctx context.Context, hw net.HardwareAddr, addr netip.Addr) error
	// Release ends the lease of a stranger.
	Release(ctx context.Context, hw net.HardwareAddr) error
}

// Config is what guests are told.
type Config struct {
	Server  netip.Prefix // the bridge's address with the prefix length
	Router  netip.Addr
	DNS     []netip.Addr
	Domain  string
	Search  []string
	MTU     int           // 0: nothing is said
	Lease   time.Duration // 0: endless
	Strange time.Duration // a stranger's lease
}

// Responder answers packets. It has no state of its own and is safe for concurrent use.
type Responder struct {
	Config Config
	Leases Leases
}

// Reply returns the answer to a client's packet and where it goes to, nil when it deserves none. The error says why
// a well-formed request could not be answered, for the log.
func (r *Responder) Reply(ctx context.Context, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, *net.UDPAddr, error) {
	if !acceptable(m) {
		return nil, nil, nil
	}
	if id := m.ServerIdentifier(); id != nil && !id.Equal(r.server()) {
		return nil, nil, nil // the guest has chosen another server
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		addr, name, err := r.Leases.Offer(ctx, m.ClientHWAddr)
		if err != nil || !addr.IsValid() {
			return nil, nil, err
		}
		return r.answer(m, dhcpv4.MessageTypeOffer, addr, name)
	case dhcpv4.MessageTypeRequest:
		return r.request(ctx, m)
	case dhcpv4.MessageTypeInform:
		return r.inform(m)
	case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline:
		return nil, nil, r.Leases.Release(ctx, m.ClientHWAddr)
	}
	return nil, nil, nil
}

func acceptable(m *dhcpv4.DHCPv4) bool {
	hw := m.ClientHWAddr
	return m.OpCode == dhcpv4.OpcodeBootRequest && m.HWType == iana.HWTypeEthernet && len(hw) == 6 && hw[0]&1 == 0 &&
		[6]byte(hw) != [6]byte{} && isUnspecified(m.GatewayIPAddr)
}

func isUnspecified(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }

// request covers the states of a client in which it sends DHCPREQUEST (RFC 2131, 4.3.2): selecting, rebooting, renewing and
// rebinding. Here one rule does for all: the address asked for is the one that this hardware address has, or it is refused.
func (r *Responder) request(ctx context.Context, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, *net.UDPAddr, error) {
	want := m.RequestedIPAddress()
	if isUnspecified(want) {
		want = m.ClientIPAddr
	}
	if isUnspecified(want) {
		return nil, nil, nil
	}
	addr, name, err := r.Leases.Offer(ctx, m.ClientHWAddr)
	if err != nil || !addr.IsValid() || !want.Equal(addr.AsSlice()) {
		nak, to, _ := r.nak(m)
		return nak, to, err
	}
	if err := r.Leases.Bind(ctx, m.ClientHWAddr, addr); err != nil {
		nak, to, _ := r.nak(m)
		return nak, to, err
	}
	return r.answer(m, dhcpv4.MessageTypeAck, addr, name)
}

func (r *Responder) server() net.IP { return r.Config.Server.Addr().AsSlice() }

func (r *Responder) nak(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, *net.UDPAddr, error) {
	out, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(r.server())))
	return out, broadcast(), err
}

// inform gives the options, but no address, to a guest that configured itself. The answer goes to an address of this
// network only: it would otherwise be a way to send packets to anybody.
func (r *Responder) inform(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, *net.UDPAddr, error) {
	a, ok := netip.AddrFromSlice(m.ClientIPAddr.To4())
	if !ok || !r.Config.Server.Contains(a) {
		return nil, nil, nil
	}
	out, err := dhcpv4.NewReplyFromRequest(m, append(r.options(""), dhcpv4.WithMessageType(dhcpv4.MessageTypeAck))...)
	return out, &net.UDPAddr{IP: m.ClientIPAddr, Port: dhcpv4.ClientPort}, err
}

func (r *Responder) answer(m *dhcpv4.DHCPv4, t dhcpv4.MessageType, addr netip.Addr, name string) (*dhcpv4.DHCPv4, *net.UDPAddr, error) {
	lease := r.Config.Lease
	if name == "" {
		lease = r.Config.Strange
	}
	seconds := uint32(0xffffffff)
	if lease > 0 {
		seconds = uint32(lease / time.Second)
	}
	mods := append(r.options(name), dhcpv4.WithMessageType(t), dhcpv4.WithYourIP(addr.AsSlice()), dhcpv4.WithLeaseTime(seconds))
	out, err := dhcpv4.NewReplyFromRequest(m, mods...)
	to := broadcast()
	if !isUnspecified(m.ClientIPAddr) && m.ClientIPAddr.Equal(addr.AsSlice()) {
		to = &net.UDPAddr{IP: m.ClientIPAddr, Port: dhcpv4.ClientPort}
	}
	return out, to, err
}

// broadcast is where answers go to guests that have no address yet; every client takes them there.
func broadcast() *net.UDPAddr { return &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort} }

func (r *Responder) options(name string) []dhcpv4.Modifier {
	c := r.Config
	mods := []dhcpv4.Modifier{
		dhcpv4.WithServerIP(r.server()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(r.server())),
		dhcpv4.WithNetmask(net.CIDRMask(c.Server.Bits(), 32)),
	}
	if c.Router.IsValid() {
		mods = append(mods, dhcpv4.WithRouter(c.Router.AsSlice()))
	}
	if len(c.DNS) > 0 {
		var ips []net.IP
		for _, a := range c.DNS {
			ips = append(ips, a.AsSlice())
		}
		mods = append(mods, dhcpv4.WithDNS(ips...))
	}
	if c.Domain != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptDomainName(c.Domain)))
	}
	if len(c.Search) > 0 {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: c.Search})))
	}
	if name != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(name)))
	}
	if c.MTU > 0 {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(c.MTU >> 8), byte(c.MTU)})))
	}
	return mods
}
