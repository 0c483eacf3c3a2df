package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// Spec is the configuration of a managed bridge, parsed.
type Spec struct {
	IPv4    netip.Prefix // the bridge's own address with the prefix length; zero: no IPv4
	IPv6    netip.Prefix // the same, always a /64
	NAT4    bool
	NAT6    bool
	DHCP4   bool
	Ranges  []Range       // of dynamic leases; never empty with DHCP4
	Expiry  time.Duration // of a lease; 0: endless
	Gateway netip.Addr    // what DHCP calls the router
	Domain  string        // names are NAME and NAME.Domain
	Names   bool          // DNS knows the instances
	Search  []string      // domains that guests complete names with; Domain when empty
	MTU     int           // 0: 1500
	HWAddr  net.HardwareAddr
}

// defaultExpiry and minExpiry of leases are those of LXD's bridges and of DHCP servers in common use.
const (
	defaultExpiry = time.Hour
	minExpiry     = 2 * time.Minute
	defaultDomain = "lxd"
	defaultMTU    = 1500
	minMTU        = 1280 // below it there is no IPv6
	maxMTU        = 65535
	maxSearch     = 200 // bytes of all search domains: they have to fit DHCP's options

	expiryWords = "times such as 3600, 30m, 12h, 2d, 1w of at least 2m, and infinite"
	domainWords = "domain names of letters, digits, hyphens and dots, up to 120 bytes"
)

// ParseConfig reads the keys of a bridge network. It knows nothing of other networks: "auto" must have been replaced by
// an address. Errors are of class InvalidInput and name the key, the value and what is allowed.
func ParseConfig(c api.Config) (Spec, error) {
	s := Spec{DHCP4: true, Expiry: defaultExpiry, Domain: defaultDomain, Names: true}
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	slices.Sort(keys) // the same mistake gives the same error each time
	var ranges string
	for _, k := range keys {
		v := c[k]
		if k == "ipv4.dhcp.ranges" {
			ranges = v
		}
		if v == "" || strings.HasPrefix(k, "user.") {
			continue
		}
		if err := s.set(k, v); err != nil {
			return Spec{}, errs.Classify(errs.InvalidInput, fmt.Errorf("network key %q: %w", k, err))
		}
	}
	return s, s.finish(ranges)
}

func (s *Spec) set(k, v string) (err error) {
	switch k {
	case "ipv4.address":
		s.IPv4, err = parseGateway(v, false)
	case "ipv6.address":
		s.IPv6, err = parseGateway(v, true)
	case "ipv4.nat":
		s.NAT4, err = parseBool(v)
	case "ipv6.nat":
		s.NAT6, err = parseBool(v)
	case "ipv4.dhcp":
		s.DHCP4, err = parseBool(v)
	case "ipv6.dhcp": // addresses are autoconfigured; there is no DHCPv6 to turn on or off yet
		_, err = parseBool(v)
	case "ipv4.dhcp.ranges":
		_, err = ParseRanges(v)
	case "ipv4.dhcp.expiry":
		s.Expiry, err = parseExpiry(v)
	case "ipv4.dhcp.gateway":
		s.Gateway, err = netip.ParseAddr(v)
		if err == nil && !s.Gateway.Is4() {
			err = fmt.Errorf("%q is no IPv4 address", v)
		}
	case "dns.domain":
		s.Domain, err = parseDomain(v)
	case "dns.mode":
		if v != "managed" && v != "none" {
			err = fmt.Errorf("value %q: allowed are managed and none", v)
		}
		s.Names = v == "managed"
	case "dns.search":
		s.Search, err = parseSearch(v)
	case "bridge.mtu":
		s.MTU, err = strconv.Atoi(v)
		if err != nil || s.MTU < minMTU || s.MTU > maxMTU {
			err = fmt.Errorf("value %q: allowed is %d-%d", v, minMTU, maxMTU)
		}
	case "bridge.hwaddr":
		s.HWAddr, err = ParseHWAddr(v)
	default:
		err = errors.New("unknown")
	}
	return err
}

// finish checks what depends on more than one key and fills in what follows from others.
func (s *Spec) finish(ranges string) error {
	bad := func(format string, a ...any) error { return errs.Invalid("network key "+format, a...) }
	if !s.IPv4.IsValid() {
		s.DHCP4 = false
		if s.NAT4 || ranges != "" || s.Gateway.IsValid() {
			return bad(`"ipv4.address": needed by ipv4.nat, ipv4.dhcp.ranges and ipv4.dhcp.gateway`)
		}
	}
	if !s.IPv6.IsValid() && s.NAT6 {
		return bad(`"ipv6.address": needed by ipv6.nat`)
	}
	if s.IPv4.IsValid() && !s.Gateway.IsValid() {
		s.Gateway = s.IPv4.Addr()
	}
	if s.Gateway.IsValid() && !s.IPv4.Contains(s.Gateway) {
		return bad(`"ipv4.dhcp.gateway": %s is not in %s`, s.Gateway, s.IPv4.Masked())
	}
	if !s.DHCP4 {
		return nil
	}
	if ranges == "" {
		s.Ranges = []Range{wholeRange(s.IPv4)}
		return nil
	}
	s.Ranges, _ = ParseRanges(ranges) // was parsed by set
	whole := wholeRange(s.IPv4)
	for _, r := range s.Ranges {
		if !whole.Contains(r.From) || !whole.Contains(r.To) {
			return bad(`"ipv4.dhcp.ranges": %s is not within %s`, r, whole)
		}
	}
	return nil
}

func parseGateway(v string, six bool) (netip.Prefix, error) {
	if v == "none" {
		return netip.Prefix{}, nil
	}
	family, example := "IPv4", "10.1.2.1/24"
	if six {
		family, example = "IPv6", "fd42:1:2:3::1/64"
	}
	p, err := netip.ParsePrefix(v)
	if err != nil || p.Addr().Is6() != six || p.Addr().Is4In6() || p.Addr().Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("value %q: allowed are an %s address with prefix length such as %s, auto and none", v, family, example)
	}
	a := p.Addr()
	if !a.IsGlobalUnicast() {
		return netip.Prefix{}, fmt.Errorf("value %q: not an address that a host can have", v)
	}
	if six {
		if p.Bits() != 64 {
			return netip.Prefix{}, fmt.Errorf("value %q: the prefix length must be 64, guests configure themselves", v)
		}
		if a == p.Masked().Addr() {
			return netip.Prefix{}, fmt.Errorf("value %q: names the network, not an address in it", v)
		}
		return p, nil
	}
	if p.Bits() < 8 || p.Bits() > 30 {
		return netip.Prefix{}, fmt.Errorf("value %q: the prefix length must be 8-30", v)
	}
	if !wholeRange(p).Contains(a) {
		return netip.Prefix{}, fmt.Errorf("value %q: is the network's first or last address", v)
	}
	return p, nil
}

func parseBool(v string) (bool, error) {
	b, ok := schema.ParseBool(v)
	if !ok {
		return false, fmt.Errorf("value %q: allowed are true and false", v)
	}
	return b, nil
}

// parseExpiry reads 90, 90s, 30m, 12h, 2d, 1w or infinite.
func parseExpiry(v string) (time.Duration, error) {
	if v == "infinite" {
		return 0, nil
	}
	unit := time.Second
	digits := v
	if i := len(v) - 1; i > 0 {
		if u, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[v[i]]; ok {
			unit, digits = u, v[:i]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	d := time.Duration(n) * unit
	if err != nil || n > 1<<31/uint64(unit/time.Second) || d < minExpiry {
		return 0, fmt.Errorf("value %q: allowed are %s", v, expiryWords)
	}
	return d, nil
}

// parseDomain accepts DNS domains of letters, digits and hyphens, in lower case afterwards, without a final dot.
func parseDomain(v string) (string, error) {
	v = strings.ToLower(v)
	ok := len(v) >= 1 && len(v) <= 120
	for label := range strings.SplitSeq(v, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if !ok {
		return "", fmt.Errorf("value %q: allowed are %s", v, domainWords)
	}
	return v, nil
}

// parseSearch reads domains separated by commas.
func parseSearch(v string) (out []string, err error) {
	if len(v) > maxSearch {
		return nil, fmt.Errorf("value of %d bytes: at most %d", len(v), maxSearch)
	}
	for d := range strings.SplitSeq(v, ",") {
		if d, err = parseDomain(strings.TrimSpace(d)); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// ParseHWAddr accepts 48-bit unicast hardware addresses in the form 00:16:3e:12:34:56.
func ParseHWAddr(v string) (net.HardwareAddr, error) {
	hw, err := net.ParseMAC(v)
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 || strings.Count(v, ":") != 5 || slices.Equal(hw, make(net.HardwareAddr, 6)) {
		return nil, errs.Invalid("hardware address %q: allowed are unicast addresses such as 00:16:3e:12:34:56", v)
	}
	return hw, nil
}
