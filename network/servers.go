package network

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/shoal-project/shoal/network/dhcp"
	"github.com/shoal-project/shoal/network/dns"
)

type servers struct {
	log *slog.Logger
	up  *dns.Upstream

	mu   sync.Mutex
	ours map[netip.Addr]bool // where our own DNS answers: forwarding to it would go round for ever
}

// NewServers returns the real servers: DHCP, DNS and router advertisements inside this process. Queries for names that are
// no instance's go to the resolvers of /etc/resolv.conf.
func NewServers(log *slog.Logger) Servers {
	s := &servers{log: log, ours: map[netip.Addr]bool{}}
	s.up = dns.NewUpstream("/etc/resolv.conf", s.isOurs)
	return s
}

func (s *servers) isOurs(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ours[a]
}

func (s *servers) setOurs(addrs []netip.Addr, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		s.ours[a] = on
	}
}

type closeFunc func()

func (f closeFunc) Close() error { f(); return nil }

// Serve starts the servers of one network, all or none.
func (s *servers) Serve(network string, spec Spec, src Source) (io.Closer, error) {
	var started closers
	add := func(c io.Closer, err error) error {
		if err != nil {
			return errors.Join(err, started.Close())
		}
		started = append(started, c)
		return nil
	}
	if spec.DHCP4 {
		if err := add(dhcp.Serve(network, &dhcp.Responder{Config: dhcpConfig(spec), Leases: src}, s.log)); err != nil {
			return nil, err
		}
	}
	if spec.IPv6.IsValid() {
		ad, err := advertisement(network, spec)
		if err != nil {
			return nil, errors.Join(err, started.Close())
		}
		if err := add(dhcp.Advertise(network, ad, s.log)); err != nil {
			return nil, err
		}
	}
	h := &dns.Handler{Domain: spec.Domain, Forward: s.up, Local: isLocal, Log: s.log.With("network", network)}
	if spec.Names {
		h.Names = src
	}
	var addrs []netip.Addr
	for _, p := range []netip.Prefix{spec.IPv4, spec.IPv6} {
		if p.IsValid() {
			h.Prefixes = append(h.Prefixes, p.Masked())
			addrs = append(addrs, p.Addr())
		}
	}
	s.setOurs(addrs, true)
	started = append(started, closeFunc(func() { s.setOurs(addrs, false) }))
	if err := add(dns.Listen(addrs, h)); err != nil {
		return nil, err
	}
	return started, nil
}

func dhcpConfig(spec Spec) dhcp.Config {
	return dhcp.Config{
		Server: spec.IPv4, Router: spec.Gateway, DNS: []netip.Addr{spec.IPv4.Addr()}, Domain: spec.Domain, Search: spec.Search,
		MTU: spec.MTU, Lease: spec.Expiry, Strange: strayTime(spec),
	}
}

func advertisement(network string, spec Spec) (dhcp.Advertisement, error) {
	ifi, err := net.InterfaceByName(network)
	if err != nil {
		return dhcp.Advertisement{}, err
	}
	search := spec.Search
	if len(search) == 0 {
		search = []string{spec.Domain}
	}
	return dhcp.Advertisement{Prefix: spec.IPv6, HWAddr: ifi.HardwareAddr, MTU: spec.MTU, DNS: []netip.Addr{spec.IPv6.Addr()}, Search: search}, nil
}

type closers []io.Closer

// Close stops all of them, the last one first.
func (c closers) Close() error {
	var err error
	for i := len(c) - 1; i >= 0; i-- {
		err = errors.Join(err, c[i].Close())
	}
	return err
}

// isLocal reports whether the host has this address.
func isLocal(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, x := range addrs {
		if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr() == a {
			return true
		}
	}
	return false
}
