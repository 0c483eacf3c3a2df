package bridge

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/shoal-project/shoal/api"
)

// Interface is an interface of the host.
type Interface struct {
	Name  string
	Type  string // as in api.Network: bridge, physical, loopback, vlan, bond or unknown
	Owned bool   // a bridge made by this owner
}

// Interfaces lists the interfaces of the host. Host ends of instances' interfaces are left out, as clients expect.
func (h *Host) Interfaces() ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []Interface
	for _, l := range links {
		if l.Type() == "veth" && (l.Attrs().Group == Group || strings.HasPrefix(l.Attrs().Name, "veth")) {
			continue
		}
		out = append(out, Interface{Name: l.Attrs().Name, Type: kind(l), Owned: l.Type() == "bridge" && l.Attrs().Alias == h.label})
	}
	return out, nil
}

func kind(l netlink.Link) string {
	switch {
	case l.Attrs().Flags&net.FlagLoopback != 0:
		return "loopback"
	case l.Type() == "bridge", l.Type() == "vlan", l.Type() == "bond":
		return l.Type()
	case l.Type() == "device" && l.Attrs().EncapType == "ether":
		return "physical"
	}
	return "unknown"
}

// State returns addresses, counters and the like of an interface; ok is false when there is none of that name.
func (h *Host) State(name string) (st api.NetworkState, ok bool, err error) {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return st, false, nil
	}
	if err != nil {
		return st, false, fmt.Errorf("look for interface %s: %w", name, err)
	}
	a := link.Attrs()
	st = api.NetworkState{Addresses: []api.NetworkStateAddress{}, Hwaddr: a.HardwareAddr.String(), Mtu: a.MTU, State: "down", Type: "unknown"}
	if a.Flags&net.FlagUp != 0 {
		st.State = "up"
	}
	switch {
	case a.Flags&net.FlagLoopback != 0:
		st.Type = "loopback"
	case a.Flags&net.FlagPointToPoint != 0:
		st.Type = "point-to-point"
	case a.Flags&net.FlagBroadcast != 0:
		st.Type = "broadcast"
	}
	if s := a.Statistics; s != nil {
		st.Counters = counters(s)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return st, false, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, ad := range addrs {
		st.Addresses = append(st.Addresses, stateAddress(toPrefix(ad.IPNet).Addr().Is4(), ad))
	}
	if link.Type() == "bridge" {
		st.Bridge = bridgeState(link)
	}
	return st, true, nil
}

func stateAddress(v4 bool, ad netlink.Addr) api.NetworkStateAddress {
	p := toPrefix(ad.IPNet)
	out := api.NetworkStateAddress{Family: "inet6", Address: p.Addr().String(), Netmask: strconv.Itoa(p.Bits()), Scope: "global"}
	if v4 {
		out.Family = "inet"
	}
	switch {
	case p.Addr().IsLoopback():
		out.Scope = "local"
	case p.Addr().IsLinkLocalUnicast():
		out.Scope = "link"
	}
	return out
}

// bridgeState fills in what rtnetlink's library does not parse from sysfs; where that is missing, from the defaults.
func bridgeState(l netlink.Link) *api.NetworkStateBridge {
	a := l.Attrs()
	dir := "/sys/class/net/" + a.Name + "/bridge/"
	num := func(file string, scale uint64) uint64 {
		b, _ := os.ReadFile(dir + file)
		n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return n * scale
	}
	b := &api.NetworkStateBridge{
		ID:            "8000." + hex.EncodeToString(a.HardwareAddr),
		STP:           num("stp_state", 1) != 0,
		ForwardDelay:  num("forward_delay", 1),
		VLANDefault:   num("default_pvid", 1),
		VLANFiltering: num("vlan_filtering", 1) != 0,
		UpperDevices:  []string{},
	}
	if id, err := os.ReadFile(dir + "bridge_id"); err == nil {
		b.ID = strings.TrimSpace(string(id))
	}
	links, err := netlink.LinkList()
	if err != nil {
		return b
	}
	for _, p := range links {
		if p.Attrs().MasterIndex == a.Index {
			b.UpperDevices = append(b.UpperDevices, p.Attrs().Name)
		}
	}
	return b
}

func counters(s *netlink.LinkStatistics) api.NetworkCounters {
	return api.NetworkCounters{
		BytesReceived: int64(s.RxBytes), BytesSent: int64(s.TxBytes),
		PacketsReceived: int64(s.RxPackets), PacketsSent: int64(s.TxPackets),
		ErrorsReceived: int64(s.RxErrors), ErrorsSent: int64(s.TxErrors),
		PacketsDroppedInbound: int64(s.RxDropped), PacketsDroppedOutbound: int64(s.TxDropped),
	}
}
