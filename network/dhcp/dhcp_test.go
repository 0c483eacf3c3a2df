package dhcp_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/shoal-project/shoal/network/dhcp"
)

// table is leases as a map, with the calls that change something counted.
type table struct {
	addrs    map[string]string // hardware address → address
	names    map[string]string // hardware address → instance
	bound    map[string]string
	released int
}

func (l *table) Known(hw net.HardwareAddr) bool { return l.names[hw.String()] != "" }

func (l *table) Offer(_ context.Context, hw net.HardwareAddr) (netip.Addr, string, error) {
	a, ok := l.addrs[hw.String()]
	if !ok {
		return netip.Addr{}, "", errors.New("no address left")
	}
	return netip.MustParseAddr(a), l.names[hw.String()], nil
}

func (l *table) Bind(_ context.Context, hw net.HardwareAddr, a netip.Addr) error {
	l.bound[hw.String()] = a.String()
	return nil
}

func (l *table) Release(context.Context, net.HardwareAddr) error { l.released++; return nil }

var (
	webHW      = net.HardwareAddr{0, 0x16, 0x3e, 0, 0, 1}
	strangerHW = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	nobodyHW   = net.HardwareAddr{2, 0, 0, 0, 0, 10}
)

func responder() (*dhcp.Responder, *table) {
	l := &table{
		addrs: map[string]string{webHW.String(): "10.1.2.10", strangerHW.String(): "10.1.2.20"},
		names: map[string]string{webHW.String(): "web"}, bound: map[string]string{},
	}
	return &dhcp.Responder{Leases: l, Config: dhcp.Config{
		Server: netip.MustParsePrefix("10.1.2.1/24"), Router: netip.MustParseAddr("10.1.2.254"), DNS: []netip.Addr{netip.MustParseAddr("10.1.2.1")},
		Domain: "lxd", Search: []string{"a.example", "lxd"}, MTU: 1400, Lease: time.Hour, Strange: 10 * time.Minute,
	}}, l
}

func packet(t testing.TB, hw net.HardwareAddr, mt dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(mt)}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func requested(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(ip)))
}

func server(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(ip)))
}

// TestReply walks through the states of a client (RFC 2131, 4.3) and what does not belong there.
func TestReply(t *testing.T) {
	const none = dhcpv4.MessageTypeNone
	ciaddr := func(ip string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(ip)) }
	for _, tt := range []struct {
		name string
		hw   net.HardwareAddr
		give dhcpv4.MessageType
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType
		addr string
		to   string
	}{
		{"discover", webHW, dhcpv4.MessageTypeDiscover, nil, dhcpv4.MessageTypeOffer, "10.1.2.10", "255.255.255.255"},
		{"discover wishes are wishes", webHW, dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{requested("10.1.2.99")}, dhcpv4.MessageTypeOffer, "10.1.2.10", "255.255.255.255"},
		{"discover, pool empty", nobodyHW, dhcpv4.MessageTypeDiscover, nil, none, "", ""},
		{"selecting", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("10.1.2.10"), server("10.1.2.1")}, dhcpv4.MessageTypeAck, "10.1.2.10", "255.255.255.255"},
		{"selecting another server", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("10.1.2.10"), server("10.1.2.77")}, none, "", ""},
		{"selecting another's address", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("10.1.2.20"), server("10.1.2.1")}, dhcpv4.MessageTypeNak, "", "255.255.255.255"},
		{"rebooting", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("10.1.2.10")}, dhcpv4.MessageTypeAck, "10.1.2.10", "255.255.255.255"},
		{"rebooting in another network", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("192.168.1.5")}, dhcpv4.MessageTypeNak, "", "255.255.255.255"},
		{"renewing", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{ciaddr("10.1.2.10")}, dhcpv4.MessageTypeAck, "10.1.2.10", "10.1.2.10"},
		{"renewing a lost lease", webHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{ciaddr("10.1.2.11")}, dhcpv4.MessageTypeNak, "", "255.255.255.255"},
		{"request for nothing", webHW, dhcpv4.MessageTypeRequest, nil, none, "", ""},
		{"request, pool empty", nobodyHW, dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{requested("10.1.2.10")}, dhcpv4.MessageTypeNak, "", "255.255.255.255"},
		{"inform", webHW, dhcpv4.MessageTypeInform, []dhcpv4.Modifier{ciaddr("10.1.2.50")}, dhcpv4.MessageTypeAck, "0.0.0.0", "10.1.2.50"},
		{"inform from elsewhere", webHW, dhcpv4.MessageTypeInform, []dhcpv4.Modifier{ciaddr("192.0.2.50")}, none, "", ""},
		{"release", webHW, dhcpv4.MessageTypeRelease, []dhcpv4.Modifier{ciaddr("10.1.2.10")}, none, "", ""},
		{"decline", webHW, dhcpv4.MessageTypeDecline, []dhcpv4.Modifier{requested("10.1.2.10")}, none, "", ""},
		{"a server's message", webHW, dhcpv4.MessageTypeOffer, nil, none, "", ""},
		{"through a relay", webHW, dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{dhcpv4.WithRelay(net.ParseIP("192.0.2.1"))}, none, "", ""},
		{"multicast hardware address", net.HardwareAddr{1, 0, 0, 0, 0, 1}, dhcpv4.MessageTypeDiscover, nil, none, "", ""},
		{"short hardware address", net.HardwareAddr{0, 1}, dhcpv4.MessageTypeDiscover, nil, none, "", ""},
		{"no hardware address", make(net.HardwareAddr, 6), dhcpv4.MessageTypeDiscover, nil, none, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, l := responder()
			out, to, _ := r.Reply(t.Context(), packet(t, tt.hw, tt.give, tt.mods...))
			if tt.want == none {
				if out != nil {
					t.Fatalf("answered: %s", out.Summary())
				}
				return
			}
			if out == nil || out.MessageType() != tt.want || to.IP.String() != tt.to || to.Port != 68 || !out.ServerIdentifier().Equal(net.ParseIP("10.1.2.1")) {
				t.Fatalf("answer %v to %v", out, to)
			}
			if tt.addr != "" && out.YourIPAddr.String() != tt.addr {
				t.Errorf("address %s, want %s", out.YourIPAddr, tt.addr)
			}
			if (l.bound[tt.hw.String()] != "") != (tt.want == dhcpv4.MessageTypeAck && tt.give == dhcpv4.MessageTypeRequest) {
				t.Errorf("bound %v", l.bound)
			}
			if tt.want == dhcpv4.MessageTypeNak && (out.Router() != nil || !out.YourIPAddr.IsUnspecified()) {
				t.Errorf("a refusal with gifts: %s", out.Summary())
			}
		})
	}
}

func TestOptions(t *testing.T) {
	r, _ := responder()
	out, _, err := r.Reply(t.Context(), packet(t, webHW, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptHostName("evil"))))
	if err != nil {
		t.Fatal(err)
	}
	back, err := dhcpv4.FromBytes(out.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	if back.HostName() != "web" || back.DomainName() != "lxd" || back.IPAddressLeaseTime(0) != time.Hour || !back.Router()[0].Equal(net.ParseIP("10.1.2.254")) ||
		!back.DNS()[0].Equal(net.ParseIP("10.1.2.1")) || !bytes.Equal(back.SubnetMask(), net.CIDRMask(24, 32)) ||
		!bytes.Equal(back.Options.Get(dhcpv4.OptionInterfaceMTU), []byte{5, 120}) || len(back.DomainSearch().Labels) != 2 {
		t.Errorf("%s", back.Summary())
	}
	if out, _, _ = r.Reply(t.Context(), packet(t, strangerHW, dhcpv4.MessageTypeDiscover)); out.HostName() != "" || out.IPAddressLeaseTime(0) != 10*time.Minute {
		t.Errorf("a stranger was told %s", out.Summary())
	}
}

// TestBudgets: floods are cut short, and nobody's flood takes another's budget.
func TestBudgets(t *testing.T) {
	r, l := responder()
	otherHW := net.HardwareAddr{0, 0x16, 0x3e, 0, 0, 2}
	l.addrs[otherHW.String()], l.names[otherHW.String()] = "10.1.2.11", "other"
	discover := func(hw net.HardwareAddr) []byte { return packet(t, hw, dhcpv4.MessageTypeDiscover).ToBytes() }
	got := dhcp.Flood(r, 2000, discover(strangerHW), discover(webHW), discover(otherHW))
	for i, who := range []string{"a stranger", "an instance", "another instance"} {
		if got[i] < 20 || got[i] > 200 {
			t.Errorf("%d answers to %s", got[i], who)
		}
	}
}

func FuzzHandle(f *testing.F) {
	r, _ := responder()
	f.Add(packet(f, webHW, dhcpv4.MessageTypeDiscover).ToBytes())
	f.Add(packet(f, webHW, dhcpv4.MessageTypeRequest, requested("10.1.2.10"), server("10.1.2.1"), dhcpv4.WithOption(dhcpv4.OptHostName("x"))).ToBytes())
	f.Add(packet(f, strangerHW, dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IPv4(10, 1, 2, 3))).ToBytes())
	f.Add([]byte{1, 1, 6})
	f.Fuzz(func(t *testing.T, b []byte) {
		out := dhcp.Handle(r, b)
		if out == nil {
			return
		}
		m, err := dhcpv4.FromBytes(out)
		if err != nil {
			t.Fatalf("unreadable answer: %v", err)
		}
		if a := m.YourIPAddr.String(); a != "0.0.0.0" && a != "10.1.2.10" && a != "10.1.2.20" {
			t.Fatalf("gave away %s", a)
		}
	})
}

// TestAdvertisement compares with the message as RFC 4861 and RFC 8106 lay it out.
func TestAdvertisement(t *testing.T) {
	got := dhcp.Advertisement{
		Prefix: netip.MustParsePrefix("fd42:1::1/64"), HWAddr: webHW, MTU: 1400, DNS: []netip.Addr{netip.MustParseAddr("fd42:1::1")}, Search: []string{"lxd", "a.bc"},
	}.Bytes()
	prefix := netip.MustParseAddr("fd42:1::").As16()
	dns := netip.MustParseAddr("fd42:1::1").As16()
	want := bytes.Join([][]byte{
		{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, // router for 1800 s
		{1, 1, 0, 0x16, 0x3e, 0, 0, 1},                      // link-layer address
		{5, 1, 0, 0, 0, 0, 5, 120},                          // MTU
		{3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0}, prefix[:],
		{25, 3, 0, 0, 0, 0, 7, 8}, dns[:],
		{31, 3, 0, 0, 0, 0, 7, 8, 3, 'l', 'x', 'd', 0, 1, 'a', 2, 'b', 'c', 0, 0, 0, 0, 0, 0},
	}, nil)
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if len(got)%8 != 0 {
		t.Errorf("%d bytes", len(got))
	}
}
