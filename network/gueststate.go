package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// GuestState returns the interfaces, addresses and counters in the network namespace of a process, the loopback
// interface too, by name. HostName stays empty: the caller knows which NIC is which. errs.NotFound when the process
// is gone. Names and addresses are the guest's word.
func (s *Service) GuestState(_ context.Context, pid int) (map[string]api.InstanceStateNetwork, error) {
	ns, err := netns.GetFromPid(pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errs.NotFound("process %d is gone", pid)
	}
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("look into the network namespace of process %d: %w", pid, err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces of process %d: %w", pid, err)
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of process %d: %w", pid, err)
	}
	out := make(map[string]api.InstanceStateNetwork, len(links))
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		out[l.Attrs().Name] = guestLink(l.Attrs())
	}
	for _, a := range addrs {
		dev, ok := out[names[a.LinkIndex]]
		if !ok {
			continue
		}
		dev.Addresses = append(dev.Addresses, guestAddr(a))
		out[names[a.LinkIndex]] = dev
	}
	return out, nil
}

func guestLink(a *netlink.LinkAttrs) api.InstanceStateNetwork {
	dev := api.InstanceStateNetwork{
		Addresses: []api.InstanceStateNetworkAddress{}, Hwaddr: a.HardwareAddr.String(), Mtu: a.MTU, State: "down", Type: "unknown",
	}
	if a.Flags&net.FlagUp != 0 {
		dev.State = "up"
	}
	switch {
	case a.Flags&net.FlagLoopback != 0:
		dev.Type = "loopback"
	case a.Flags&net.FlagPointToPoint != 0:
		dev.Type = "point-to-point"
	case a.Flags&net.FlagBroadcast != 0:
		dev.Type = "broadcast"
	}
	if st := a.Statistics; st != nil {
		dev.Counters = api.NetworkCounters{
			BytesReceived: int64(st.RxBytes), BytesSent: int64(st.TxBytes), PacketsReceived: int64(st.RxPackets), PacketsSent: int64(st.TxPackets),
			ErrorsReceived: int64(st.RxErrors), ErrorsSent: int64(st.TxErrors),
			PacketsDroppedInbound: int64(st.RxDropped), PacketsDroppedOutbound: int64(st.TxDropped),
		}
	}
	return dev
}

func guestAddr(a netlink.Addr) api.InstanceStateNetworkAddress {
	out := api.InstanceStateNetworkAddress{Family: "inet", Address: a.IP.String(), Scope: "global"}
	if a.IP.To4() == nil {
		out.Family = "inet6"
	}
	ones, _ := a.Mask.Size()
	out.Netmask = strconv.Itoa(ones)
	switch {
	case a.IP.IsLoopback():
		out.Scope = "local"
	case a.IP.IsLinkLocalUnicast():
		out.Scope = "link"
	}
	return out
}
