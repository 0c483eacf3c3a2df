package network

import (
	"net/netip"

	"github.com/shoal-project/shoal/api"
)

// NIC is a network interface of a running instance on a managed network.
type NIC struct {
	Project  api.ProjectName
	Instance api.InstanceName
	Device   api.DeviceName
	Network  api.NetworkName
	Name     string     // inside the instance, for example eth0
	HostName string     // on the host; empty: made up
	HWAddr   string     // 00:16:3e:…
	MTU      int        // 0: the network's
	IPv4     netip.Addr // static DHCP lease; zero: dynamic
	IPv6     netip.Addr
	Ingress  int64 // limit towards the instance in bits per second; 0: none
	Egress   int64 // limit from the instance
	PID      int   // the instance's init: its network namespace
}

// SameLink reports whether a and b differ in nothing but what can change while the link is there.
func (n NIC) SameLink(b NIC) bool {
	n.Ingress, n.Egress = b.Ingress, b.Egress
	return n == b
}
