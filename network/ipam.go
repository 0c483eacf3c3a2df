package network

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// Range is a run of IPv4 addresses, both ends in it.
type Range struct{ From, To netip.Addr }

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// Size is the number of addresses.
func (r Range) Size() uint64 { return uint64(u32(r.To)) - uint64(u32(r.From)) + 1 }

func (r Range) String() string { return r.From.String() + "-" + r.To.String() }

// ParseRanges reads "10.0.0.2-10.0.0.9,10.0.0.20-10.0.0.29": at most 32 ranges that do not overlap.
func ParseRanges(v string) ([]Range, error) {
	var out []Range
	for part := range strings.SplitSeq(v, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
		a, err1 := netip.ParseAddr(strings.TrimSpace(from))
		b, err2 := netip.ParseAddr(strings.TrimSpace(to))
		if !ok || err1 != nil || err2 != nil || !a.Is4() || !b.Is4() || b.Less(a) {
			return nil, fmt.Errorf("value %q: allowed are ranges such as 10.0.0.2-10.0.0.9, separated by commas", part)
		}
		r := Range{a, b}
		for _, o := range out {
			if o.Contains(a) || o.Contains(b) || r.Contains(o.From) {
				return nil, fmt.Errorf("ranges %s and %s overlap", o, r)
			}
		}
		if out = append(out, r); len(out) > 32 {
			return nil, fmt.Errorf("more than 32 ranges")
		}
	}
	return out, nil
}

// wholeRange is all host addresses of an IPv4 prefix.
func wholeRange(p netip.Prefix) Range {
	first := u32(p.Masked().Addr())
	last := first | uint32(1<<(32-p.Bits())-1)
	return Range{addr4(first + 1), addr4(last - 1)}
}

// candidates yields every address of the ranges once, skipping those that are reserved. It begins at a place that
// follows from the hardware address, so that an interface that lost its lease most likely gets the same one again.
func candidates(ranges []Range, hw net.HardwareAddr, reserved ...netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		var total uint64
		for _, r := range ranges {
			total += r.Size()
		}
		if total == 0 {
			return
		}
		h := fnv.New64a()
		h.Write(hw)
		start := h.Sum64() % total
		for i := range total {
			a := nth(ranges, (start+i)%total)
			if !slices.Contains(reserved, a) && !yield(a) {
				return
			}
		}
	}
}

func nth(ranges []Range, n uint64) netip.Addr {
	for _, r := range ranges {
		if n < r.Size() {
			return addr4(u32(r.From) + uint32(n))
		}
		n -= r.Size()
	}
	return netip.Addr{}
}

func u32(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// pickIPv4 chooses a free 10.x.y.1/24.
func pickIPv4(rnd *rand.Rand, taken []netip.Prefix) (netip.Prefix, error) {
	start := rnd.Uint32N(1 << 16)
	for i := range uint32(1 << 16) {
		n := (start + i) & 0xffff
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), 24)
		if !overlaps(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, errs.Unavailable("no 10.x.y.0/24 is free on this host: set ipv4.address")
}

// pickIPv6 chooses a fd42:…::1/64.
func pickIPv6(rnd *rand.Rand, taken []netip.Prefix) (netip.Prefix, error) {
	for range 1000 {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], 0xfd42<<48|rnd.Uint64()>>16)
		b[15] = 1
		if p := netip.PrefixFrom(netip.AddrFrom16(b), 64); !overlaps(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, errs.Unavailable("no fd42::/16 network is free on this host: set ipv6.address")
}

func overlaps(p netip.Prefix, taken []netip.Prefix) bool {
	return slices.ContainsFunc(taken, p.Overlaps)
}
