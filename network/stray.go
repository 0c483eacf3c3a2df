package network

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// maxStrays bounds the stray leases of a network, whatever the number of hardware addresses that a guest makes up.
const maxStrays = 48

// strayLimit is how many stray leases a network may have: never more than a quarter of its pool.
func strayLimit(spec Spec) int {
	var total uint64
	for _, r := range spec.Ranges {
		total += r.Size()
	}
	return int(min(maxStrays, total/4))
}

// strayTime is how long a stray lease lasts; endless ones would stay for ever.
func strayTime(spec Spec) time.Duration {
	if spec.Expiry == 0 || spec.Expiry > 24*time.Hour {
		return 24 * time.Hour
	}
	return spec.Expiry
}

// strayOffer returns the address that a stray hardware address has or would get. It writes nothing.
func (l *leases) strayOffer(network string, spec Spec, hw net.HardwareAddr) (netip.Addr, error) {
	a, _, err := l.strayFind(network, spec, hw)
	return a, err
}

// strayFind also returns the record that has to make room, nil when the address is free.
func (l *leases) strayFind(network string, spec Spec, hw net.HardwareAddr) (netip.Addr, *state.Item[addrRecord], error) {
	if it, err := l.hws.Get(state.Key(network, hw.String())); err == nil && it.Value.Addr.IsValid() {
		a, err := l.addrs.Get(state.Key(network, it.Value.Addr.String()))
		if err == nil && a.Value.NIC == "" && a.Value.HWAddr == hw.String() && inRanges(spec, it.Value.Addr) {
			return it.Value.Addr, &a, nil
		}
	}
	used := map[string]bool{}
	var strays []state.Item[addrRecord]
	for _, it := range l.addrs.List(state.Prefix(network)) {
		used[state.SplitKey(it.Key)[1]] = true
		if it.Value.NIC == "" {
			strays = append(strays, it)
		}
	}
	if len(strays) < strayLimit(spec) {
		for a := range candidates(spec.Ranges, hw, spec.IPv4.Addr(), spec.Gateway) {
			if !used[a.String()] {
				return a, nil, nil
			}
		}
	}
	for _, it := range strays {
		if a, err := netip.ParseAddr(state.SplitKey(it.Key)[1]); err == nil && inRanges(spec, a) && !it.Value.Expires.After(l.now()) {
			return a, &it, nil
		}
	}
	return netip.Addr{}, nil, errs.NoSpace("network %q has no lease left for unknown hardware addresses (%d given out)", network, len(strays))
}

// strayBind makes the address that strayOffer named a lease, or makes the lease longer. It writes only when a quarter of
// the time has passed, so that a client that asks all the time costs nothing.
func (l *leases) strayBind(ctx context.Context, network string, spec Spec, hw net.HardwareAddr, want netip.Addr) error {
	_, err := retry(func() (struct{}, error) {
		a, old, err := l.strayFind(network, spec, hw)
		if err != nil {
			return struct{}{}, err
		}
		if a != want {
			return struct{}{}, errs.Exists("address %s is not the one that %s would get", want, hw)
		}
		rec := addrRecord{HWAddr: hw.String(), Expires: l.now().Add(strayTime(spec))}
		c := &claim{l: l, net: network}
		switch {
		case old == nil:
			c.ops = append(c.ops, l.addrs.CreateOp(state.Key(network, a.String()), rec))
		case old.Value.HWAddr == rec.HWAddr && old.Value.Expires.Sub(l.now()) > strayTime(spec)*3/4:
			return struct{}{}, nil
		default:
			if it, err := l.hws.Get(state.Key(network, old.Value.HWAddr)); err == nil && old.Value.HWAddr != rec.HWAddr && it.Value.NIC == "" {
				c.ops = append(c.ops, l.hws.DeleteOp(it))
			}
			old.Value = rec
			c.ops = append(c.ops, l.addrs.UpdateOp(*old))
		}
		it, err := l.hws.Get(state.Key(network, rec.HWAddr))
		switch {
		case errs.IsNotFound(err):
			c.ops = append(c.ops, l.hws.CreateOp(state.Key(network, rec.HWAddr), hwRecord{Addr: a}))
		case err != nil:
			return struct{}{}, err
		case it.Value.NIC != "":
			return struct{}{}, errRace // became a NIC of ours meanwhile
		case it.Value.Addr != a:
			it.Value.Addr = a
			c.ops = append(c.ops, l.hws.UpdateOp(it))
		}
		return struct{}{}, c.commit(ctx)
	})
	return err
}

// strayRelease ends a stray lease; nil when there is none.
func (l *leases) strayRelease(ctx context.Context, network string, hw net.HardwareAddr) error {
	_, err := retry(func() (struct{}, error) {
		it, err := l.hws.Get(state.Key(network, hw.String()))
		if err != nil || it.Value.NIC != "" {
			return struct{}{}, nil
		}
		c := &claim{l: l, net: network, ops: []state.Op{l.hws.DeleteOp(it)}}
		if a, err := l.addrs.Get(state.Key(network, it.Value.Addr.String())); err == nil && a.Value.NIC == "" && a.Value.HWAddr == hw.String() {
			c.ops = append(c.ops, l.addrs.DeleteOp(a))
		}
		return struct{}{}, c.commit(ctx)
	})
	return err
}
