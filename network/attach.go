package network

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/network/bridge"
)

// maxIfName is the longest name that the kernel gives an interface.
const maxIfName = 15

// Reserve claims the NIC's addresses, without a link: what an instance's configuration wants is refused when it is
// written, not when the instance starts. Idempotent. errs.InvalidInput when an address does not fit the network,
// errs.Exists when it or the hardware address is somebody else's, errs.NoSpace when the pool is empty.
func (s *Service) Reserve(ctx context.Context, nic NIC) error {
	_, _, err := s.claim(ctx, nic)
	return wrapNIC("reserve", nic, err)
}

// Attach claims the NIC's addresses, makes its link and gives it its limits; see the contract in package instance. For a NIC
// that is attached only the limits change. The interface inside is
// down: what brings it up and asks DHCP is the guest. errs.Unavailable when the network is not up.
func (s *Service) Attach(ctx context.Context, nic NIC) (string, error) {
	host, err := s.attach(ctx, nic)
	return host, wrapNIC("attach", nic, err)
}

func wrapNIC(doing string, nic NIC, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s to network %s: %w", doing, nic.Device, nic.Network, err)
}

func (s *Service) attach(ctx context.Context, nic NIC) (string, error) {
	if err := checkNIC(nic); err != nil {
		return "", err
	}
	if err := s.NetworkExists(nic.Project, nic.Network); err != nil {
		return "", err
	}
	if err := s.Reason(nic.Network.String()); err != nil {
		return "", errs.Classify(errs.UnavailableClass, err)
	}
	spec, rec, err := s.claim(ctx, nic)
	if err != nil {
		return "", err
	}
	hw, err := ParseHWAddr(rec.HWAddr)
	if err != nil {
		return "", err
	}
	label := nicLabel(nicKey(nic))
	port := bridge.Port{Owner: label, Bridge: nic.Network.String(), HostName: nic.HostName, Name: nic.Name, HWAddr: hw, MTU: nic.MTU, PID: nic.PID}
	if port.MTU == 0 {
		port.MTU = spec.MTU
	}
	if port.MTU == 0 {
		port.MTU = defaultMTU
	}
	for _, have := range s.hostEnds(label) {
		if s.d.Links.Plugged(have, port) && (nic.HostName == "" || nic.HostName == have) {
			return have, s.d.Links.Shape(have, bridge.Rates{Ingress: nic.Ingress, Egress: nic.Egress})
		}
		s.dropPort(label, have) // of a former life of the instance: its namespace is dying and takes the link along
		s.unplugLater(have)
	}
	host, err := s.d.Links.Plug(ctx, port)
	if err != nil {
		return "", err
	}
	s.addPort(label, host)
	if nic.Ingress == 0 && nic.Egress == 0 {
		return host, nil // a new link has no limits
	}
	return host, s.d.Links.Shape(host, bridge.Rates{Ingress: nic.Ingress, Egress: nic.Egress})
}

func checkNIC(nic NIC) error {
	for _, n := range []string{nic.Name, nic.HostName} {
		if len(n) > maxIfName || n == "." || n == ".." || n == "lo" {
			return errs.Invalid("interface name %q: allowed are 1-%d characters", n, maxIfName)
		}
		for _, c := range []byte(n) {
			if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
				return errs.Invalid("interface name %q: blanks, slashes, colons and percent signs are not allowed", n)
			}
		}
	}
	if nic.Name == "" {
		return errs.Invalid("interface name inside the instance is missing")
	}
	if nic.MTU != 0 && (nic.MTU < 68 || nic.MTU > 65535) {
		return errs.Invalid("mtu %d: allowed is 68-65535", nic.MTU)
	}
	if nic.PID <= 0 {
		return errs.Invalid("process %d: not the init of an instance", nic.PID)
	}
	if nic.IPv6.IsValid() {
		return errs.Unsupported("ipv6.address %s: addresses for IPv6 are autoconfigured", nic.IPv6)
	}
	return nil
}

// claim gives the NIC its addresses while its network cannot go away.
func (s *Service) claim(ctx context.Context, nic NIC) (Spec, nicRecord, error) {
	s.live.RLock()
	defer s.live.RUnlock()
	it, err := s.networks.Get(recordKey(nic.Network.String()))
	if errs.IsNotFound(err) {
		return Spec{}, nicRecord{}, errs.NotFound("network %q not found", nic.Network)
	}
	if err != nil {
		return Spec{}, nicRecord{}, err
	}
	spec, err := ParseConfig(it.Value.Config)
	if err != nil {
		return Spec{}, nicRecord{}, err
	}
	rec, err := s.leases.claim(ctx, spec, nic)
	return spec, rec, err
}

// Detach removes the link; nil when it is gone. Addresses stay the NIC's. When the instance's namespace is gone the
// kernel removes the link with it and Detach does not wait for that; else it takes about 25 ms.
func (s *Service) Detach(ctx context.Context, nic NIC) error {
	label := nicLabel(nicKey(nic))
	for _, host := range s.hostEnds(label) {
		if nic.PID <= 0 || !alive(nic.PID) {
			s.unplugLater(host)
		} else if err := s.d.Links.Unplug(ctx, host); err != nil {
			return wrapNIC("detach", nic, err)
		}
		s.dropPort(label, host)
	}
	return nil
}

func alive(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err == nil
}

// Forget removes the link, if there is one, and gives back addresses and names; nil when there are none.
func (s *Service) Forget(ctx context.Context, nic NIC) error {
	if err := s.Detach(ctx, nic); err != nil {
		return err
	}
	return wrapNIC("release addresses of", nic, s.leases.release(ctx, nicKey(nic)))
}

// Lease returns what the NIC was given: its IPv4 address (zero: none) and the IPv6 address that it will give itself.
func (s *Service) Lease(nic NIC) (api.NetworkLease, bool) {
	it, err := s.leases.nics.Get(nicKey(nic))
	if err != nil {
		return api.NetworkLease{}, false
	}
	return leaseOf(nic.Instance.String(), it.Value), true
}

// hostEnds returns the links that are known for a NIC: one, or none, or for a moment more.
func (s *Service) hostEnds(label string) []string {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	return slices.Clone(s.ports[label])
}

func (s *Service) addPort(label, host string) {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	s.ports[label] = append(s.ports[label], host)
}

func (s *Service) dropPort(label, host string) {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	s.ports[label] = slices.DeleteFunc(s.ports[label], func(h string) bool { return h == host })
	if len(s.ports[label]) == 0 {
		delete(s.ports, label)
	}
}

// unplugLater deletes a host end that nobody waits for. The name is free for the same NIC's next life at once.
func (s *Service) unplugLater(host string) {
	remove := s.d.Links.Condemn(host)
	s.bg.Go(func() {
		if err := remove(); err != nil {
			s.d.Logger.Warn("remove interface", "err", err)
		}
	})
}
