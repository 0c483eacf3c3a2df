package network_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/network"
)

func TestParseConfig(t *testing.T) {
	s, err := network.ParseConfig(api.Config{
		"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "ipv4.dhcp.ranges": "10.1.2.10-10.1.2.19, 10.1.2.30-10.1.2.39",
		"ipv4.dhcp.expiry": "2d", "ipv4.dhcp.gateway": "10.1.2.254", "ipv6.address": "none", "ipv6.dhcp": "true",
		"dns.domain": "Example.COM", "dns.search": "a.example, b.example", "bridge.mtu": "9000", "user.x": "anything\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.IPv4.String() != "10.1.2.1/24" || !s.NAT4 || !s.DHCP4 || len(s.Ranges) != 2 || s.Expiry != 48*time.Hour ||
		s.Gateway.String() != "10.1.2.254" || s.IPv6.IsValid() || s.Domain != "example.com" || !s.Names ||
		!slices.Equal(s.Search, []string{"a.example", "b.example"}) || s.MTU != 9000 {
		t.Errorf("%+v", s)
	}
	s, err = network.ParseConfig(api.Config{"ipv4.address": "10.1.2.1/30"})
	if err != nil || len(s.Ranges) != 1 || s.Ranges[0].String() != "10.1.2.1-10.1.2.2" || s.Gateway != s.IPv4.Addr() || s.Domain != "lxd" || s.NAT4 {
		t.Errorf("defaults: %+v, %v", s, err)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, key, value, want string
	}{
		{"unknown key", "ipv4.adress", "10.1.2.1/24", "unknown"},
		{"key with case", "IPv4.address", "10.1.2.1/24", "unknown"},
		{"raw lines", "raw.dnsmasq", "dhcp-script=/bin/sh", "unknown"},
		{"no prefix length", "ipv4.address", "10.1.2.2", "allowed"},
		{"wrong family", "ipv4.address", "fd42::1/64", "allowed"},
		{"mapped", "ipv6.address", "::ffff:10.1.2.1/64", "allowed"},
		{"zone", "ipv6.address", "fe80::1%eth0/64", "allowed"},
		{"network address", "ipv4.address", "10.1.2.0/24", "first or last"},
		{"broadcast address", "ipv4.address", "10.1.2.255/24", "first or last"},
		{"multicast", "ipv4.address", "224.0.0.1/24", "not an address"},
		{"too small", "ipv4.address", "10.1.2.1/31", "8-30"},
		{"too large", "ipv4.address", "10.1.2.1/7", "8-30"},
		{"v6 length", "ipv6.address", "fd42::1/80", "64"},
		{"v6 network", "ipv6.address", "fd42::/64", "names the network"},
		{"bool", "ipv4.nat", "maybe", "true and false"},
		{"range outside", "ipv4.dhcp.ranges", "10.1.3.1-10.1.3.9", "not within"},
		{"range backwards", "ipv4.dhcp.ranges", "10.1.2.9-10.1.2.1", "allowed"},
		{"ranges overlap", "ipv4.dhcp.ranges", "10.1.2.2-10.1.2.9,10.1.2.4-10.1.2.5", "overlap"},
		{"range with broadcast", "ipv4.dhcp.ranges", "10.1.2.2-10.1.2.255", "not within"},
		{"expiry", "ipv4.dhcp.expiry", "1s", "at least 2m"},
		{"expiry overflow", "ipv4.dhcp.expiry", "2147483647w", "allowed"},
		{"gateway", "ipv4.dhcp.gateway", "10.9.9.9", "not in"},
		{"domain injection", "dns.domain", "lxd\naddress=/x/1.2.3.4", "allowed"},
		{"domain dots", "dns.domain", "a..b", "allowed"},
		{"domain long", "dns.domain", strings.Repeat("a.", 80) + "a", "allowed"},
		{"search", "dns.search", "ok,-bad", "allowed"},
		{"mode", "dns.mode", "dynamic", "managed and none"},
		{"mtu", "bridge.mtu", "100", "1280"},
		{"mtu text", "bridge.mtu", "0x600", "1280"},
		{"hwaddr multicast", "bridge.hwaddr", "01:16:3e:00:00:01", "unicast"},
		{"hwaddr short", "bridge.hwaddr", "00:16:3e:00:00", "unicast"},
		{"hwaddr dots", "bridge.hwaddr", "0016.3e00.0001", "unicast"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := api.Config{"ipv4.address": "10.1.2.1/24"}
			c[tt.key] = tt.value
			_, err := network.ParseConfig(c)
			if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `"`+tt.key+`"`) {
				t.Errorf("error %v, want one of bad input that names %q and says %q", err, tt.key, tt.want)
			}
		})
	}
}

// TestKeysAreParsed: what the table of keys allows and documents, ParseConfig understands, and nothing else.
func TestKeysAreParsed(t *testing.T) {
	good := map[string]string{
		"bridge.hwaddr": "00:16:3e:00:00:01", "bridge.mtu": "1500", "dns.domain": "lxd", "dns.mode": "none", "dns.search": "a.b,c", "ipv4.address": "10.1.2.1/24", "ipv4.dhcp": "true",
		"ipv4.dhcp.expiry": "1h", "ipv4.dhcp.gateway": "10.1.2.3", "ipv4.dhcp.ranges": "10.1.2.9-10.1.2.10", "ipv4.nat": "true", "ipv6.address": "fd42::1/64", "ipv6.dhcp": "no", "ipv6.nat": "1", "user.*": "x\ny",
	}
	n := 0
	for k := range network.ConfigKeys().Keys() {
		n++
		v, ok := good[k.Name]
		if !ok {
			t.Errorf("no value to try for %s", k.Name)
		}
		if err := network.ConfigKeys().ValidateKey(strings.Replace(k.Name, "*", "x", 1), v, ""); err != nil {
			t.Error(err)
		}
		c := api.Config{"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42::1/64"}
		c[strings.Replace(k.Name, "*", "x", 1)] = v
		if _, err := network.ParseConfig(c); err != nil {
			t.Error(err)
		}
	}
	if n != len(good) {
		t.Errorf("%d keys", n)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("ipv4.address", "10.1.2.1/24", "10.1.2.3-10.1.2.9,10.1.2.20-10.1.2.22")
	f.Add("dns.domain", "example.com", "10.1.2.1-10.1.2.1")
	f.Add("ipv4.dhcp.expiry", "1w", "0.0.0.0-255.255.255.255")
	f.Fuzz(func(t *testing.T, key, value, ranges string) {
		s, err := network.ParseConfig(api.Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": ranges, key: value})
		if err != nil {
			if !errs.Is(err, errs.InvalidInput) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		for _, r := range s.Ranges {
			if r.Size() == 0 || !s.IPv4.Contains(r.From) || !s.IPv4.Contains(r.To) {
				t.Fatalf("range %v outside %v", r, s.IPv4)
			}
		}
		if strings.ContainsAny(s.Domain, " \n\r\x00/") || s.Expiry < 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// TestCandidatesCoverThePool: each address once, none of the reserved ones, in an order that follows from the hardware address.
func TestCandidatesCoverThePool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranges []network.Range
		var want uint64
		at := uint32(0)
		for range rapid.IntRange(1, 4).Draw(t, "ranges") {
			from := at + rapid.Uint32Range(1, 5).Draw(t, "gap")
			at = from + rapid.Uint32Range(0, 40).Draw(t, "len")
			r := network.Range{From: ip4(from), To: ip4(at)}
			ranges = append(ranges, r)
			want += r.Size()
		}
		hw := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "hw"))
		reserved := ranges[0].From
		seen := map[netip.Addr]bool{}
		var order []netip.Addr
		for a := range network.Candidates(ranges, hw, reserved) {
			if seen[a] || a == reserved || !slices.ContainsFunc(ranges, func(r network.Range) bool { return r.Contains(a) }) {
				t.Fatalf("%s twice, reserved or outside", a)
			}
			seen[a] = true
			order = append(order, a)
		}
		if uint64(len(seen)) != want-1 {
			t.Fatalf("%d addresses of %d", len(seen), want-1)
		}
		if again := slices.Collect(network.Candidates(ranges, hw, reserved)); !slices.Equal(order, again) {
			t.Fatal("another order the second time")
		}
	})
}

func ip4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestPickStaysClearOfWhatIsTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var taken []netip.Prefix
		for range rapid.IntRange(0, 30).Draw(t, "n") {
			a := ip4(rapid.Uint32Range(0, 1<<24-1).Draw(t, "addr"))
			taken = append(taken, netip.PrefixFrom(a, rapid.IntRange(9, 32).Draw(t, "bits")).Masked())
		}
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		p, err := network.PickIPv4(rnd, taken)
		free := false
		for n := range 1 << 16 {
			q := netip.PrefixFrom(ip4(uint32(n)<<8), 24)
			if !slices.ContainsFunc(taken, q.Overlaps) {
				free = true
				break
			}
		}
		if (err == nil) != free {
			t.Fatalf("%v, but free: %v", err, free)
		}
		if err == nil && (slices.ContainsFunc(taken, p.Overlaps) || p.Bits() != 24 || p.Addr().As4()[0] != 10 || p.Addr().As4()[3] != 1) {
			t.Fatalf("picked %s", p)
		}
		p6, err := network.PickIPv6(rnd, nil)
		if _, perr := network.ParseConfig(api.Config{"ipv6.address": p6.String()}); err != nil || perr != nil || !strings.HasPrefix(p6.String(), "fd42:") {
			t.Fatalf("picked %s: %v, %v", p6, err, perr)
		}
	})
}
