package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network/bridge"
)

// Three tables hold the addresses of a network. One transaction changes them together, so they never disagree, and an
// address or hardware address that is a key cannot be had twice.
//
//	network-nics       NETWORK/DNSNAME/PROJECT/INSTANCE/DEVICE → nicRecord   what an instance's interface has
//	network-addresses  NETWORK/ADDRESS                         → addrRecord  whose an address is
//	network-hwaddrs    NETWORK/HWADDR                          → hwRecord    who sends from a hardware address
//
// Records of NICs live from the first Attach or Reserve until Forget. What is not a NIC of ours but asks for an
// address (something nested in a guest) gets a *stray* lease: no nicRecord, an expiry, few of them, first to go.

type nicRecord struct {
	HWAddr string     `json:"hwaddr"`
	IPv4   netip.Addr `json:"ipv4"`
	IPv6   netip.Addr `json:"ipv6"` // what the guest gives itself from the router advertisement
	Static bool       `json:"static"`
}

type addrRecord struct {
	NIC     string    `json:"nic,omitempty"` // key in network-nics; empty: a stray lease
	HWAddr  string    `json:"hwaddr"`
	Static  bool      `json:"static,omitempty"`
	Expires time.Time `json:"expires,omitzero"` // of a stray lease
}

type hwRecord struct {
	NIC  string     `json:"nic,omitempty"`
	Addr netip.Addr `json:"addr,omitzero"` // of a stray lease
}

// errRace says that a transaction lost against another one and is to be tried again from the start.
var errRace = fmt.Errorf("address tables changed meanwhile")

const (
	maxTries   = 16
	quickTries = 16 // of single addresses, before all of them are read
)

type leases struct {
	db    *state.DB
	nics  *state.Table[nicRecord]
	addrs *state.Table[addrRecord]
	hws   *state.Table[hwRecord]
	now   func() time.Time
}

func newLeases(db *state.DB, now func() time.Time) *leases {
	return &leases{
		db:    db,
		nics:  state.NewTable[nicRecord](db, "network-nics", 1),
		addrs: state.NewTable[addrRecord](db, "network-addresses", 1),
		hws:   state.NewTable[hwRecord](db, "network-hwaddrs", 1),
		now:   now,
	}
}

// dnsName is the name of an instance below the network's domain: its own, in other projects than the default one
// followed by the project's.
func dnsName(project api.ProjectName, instance api.InstanceName) string {
	n := strings.ToLower(instance.String())
	if project.IsZero() || project == api.DefaultProject {
		return n
	}
	return n + "." + strings.ToLower(project.String())
}

func nicKey(n NIC) string {
	return state.Key(n.Network.String(), dnsName(n.Project, n.Instance), n.Project.String(), n.Instance.String(), n.Device.String())
}

// nicLabel names a NIC in errors and in the labels of host ends.
func nicLabel(key string) string {
	if p := state.SplitKey(key); len(p) == 5 {
		return p[0] + "/" + p[2] + "/" + p[3] + "/" + p[4]
	}
	return key
}

// claim gives the NIC its addresses, the same as before where that is possible, and returns them.
// errs.Exists when its static or hardware address is somebody else's, errs.NoSpace when the pool is empty.
func (l *leases) claim(ctx context.Context, spec Spec, n NIC) (nicRecord, error) {
	return retry(func() (nicRecord, error) { return l.claimOnce(ctx, spec, n) })
}

func retry[T any](f func() (T, error)) (out T, err error) {
	for range maxTries {
		if out, err = f(); err != errRace {
			return out, err
		}
	}
	return out, errs.Conflict("claim an address: %v", err)
}

func (l *leases) claimOnce(ctx context.Context, spec Spec, n NIC) (nicRecord, error) {
	hw, err := ParseHWAddr(n.HWAddr)
	if err != nil {
		return nicRecord{}, err
	}
	key := nicKey(n)
	old, err := l.nics.Get(key)
	if err != nil && !errs.IsNotFound(err) {
		return nicRecord{}, err
	}
	found := err == nil
	rec := nicRecord{HWAddr: hw.String(), IPv6: bridge.EUI64(spec.IPv6, hw), Static: n.IPv4.IsValid()}
	c := &claim{l: l, net: n.Network.String(), key: key}
	if rec.IPv4, err = c.chooseIPv4(spec, n, hw, old.Value); err != nil {
		return nicRecord{}, err
	}
	if found && rec == old.Value {
		return rec, nil
	}
	if err := c.moveHWAddr(old.Value.HWAddr, rec.HWAddr); err != nil {
		return nicRecord{}, err
	}
	c.moveAddr(old.Value.IPv4, rec)
	if found {
		old.Value = rec
		c.ops = append(c.ops, l.nics.UpdateOp(old))
	} else {
		c.ops = append(c.ops, l.nics.CreateOp(key, rec))
	}
	return rec, c.commit(ctx)
}

// claim is one attempt at a transaction.
type claim struct {
	l        *leases
	net, key string
	ops      []state.Op
	evict    *state.Item[addrRecord] // the stray lease whose address is taken
	dropped  map[string]bool         // hardware addresses of stray leases that ops already handle
}

func (c *claim) commit(ctx context.Context) error {
	_, err := c.l.db.Txn(ctx, c.ops...)
	if errs.IsConflict(err) || errs.IsExists(err) {
		return errRace
	}
	return err
}

func (c *claim) chooseIPv4(spec Spec, n NIC, hw net.HardwareAddr, old nicRecord) (netip.Addr, error) {
	if n.IPv4.IsValid() {
		return n.IPv4, c.checkStatic(spec, n)
	}
	if !spec.DHCP4 {
		return netip.Addr{}, nil
	}
	if old.IPv4.IsValid() && !old.Static && inRanges(spec, old.IPv4) {
		return old.IPv4, nil
	}
	return c.free(spec, hw)
}

func inRanges(spec Spec, a netip.Addr) bool {
	for _, r := range spec.Ranges {
		if r.Contains(a) && a != spec.IPv4.Addr() && a != spec.Gateway {
			return true
		}
	}
	return false
}

func (c *claim) checkStatic(spec Spec, n NIC) error {
	switch a := n.IPv4; {
	case !spec.DHCP4:
		return errs.Invalid("ipv4.address %s of device %q: network %q has no DHCP for IPv4", a, n.Device, c.net)
	case !a.Is4() || !wholeRange(spec.IPv4).Contains(a):
		return errs.Invalid("ipv4.address %s of device %q: not an address for hosts of network %q (%s)", a, n.Device, c.net, wholeRange(spec.IPv4))
	case a == spec.IPv4.Addr() || a == spec.Gateway:
		return errs.Invalid("ipv4.address %s of device %q: is the router of network %q", a, n.Device, c.net)
	}
	it, err := c.l.addrs.Get(state.Key(c.net, n.IPv4.String()))
	switch {
	case errs.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case it.Value.NIC == "":
		c.evict = &it
	case it.Value.NIC != c.key:
		return errs.Exists("ipv4.address %s of device %q: in use by %s", n.IPv4, n.Device, nicLabel(it.Value.NIC))
	}
	return nil
}

// free finds an address that nobody has; else the one whose stray lease ends first.
func (c *claim) free(spec Spec, hw net.HardwareAddr) (netip.Addr, error) {
	tries := 0
	for a := range candidates(spec.Ranges, hw, spec.IPv4.Addr(), spec.Gateway) { // mostly the first one is free
		if _, err := c.l.addrs.Get(state.Key(c.net, a.String())); errs.IsNotFound(err) {
			return a, nil
		} else if tries++; err != nil || tries == quickTries {
			break
		}
	}
	used := map[string]state.Item[addrRecord]{}
	var oldest *state.Item[addrRecord]
	for _, it := range c.l.addrs.List(state.Prefix(c.net)) {
		a := state.SplitKey(it.Key)[1]
		used[a] = it
		if addr, _ := netip.ParseAddr(a); it.Value.NIC == "" && inRanges(spec, addr) && (oldest == nil || it.Value.Expires.Before(oldest.Value.Expires)) {
			oldest = &it
		}
	}
	for a := range candidates(spec.Ranges, hw, spec.IPv4.Addr(), spec.Gateway) {
		it, ok := used[a.String()]
		if !ok {
			return a, nil
		}
		if it.Value.NIC == "" && it.Value.HWAddr == hw.String() { // a stray that became one of ours keeps its address
			c.evict = &it
			return a, nil
		}
	}
	if oldest != nil {
		c.evict = oldest
		return netip.ParseAddr(state.SplitKey(oldest.Key)[1])
	}
	return netip.Addr{}, errs.NoSpace("network %q has no free address left in %v", c.net, spec.Ranges)
}

// moveHWAddr makes the new hardware address the NIC's and gives up the old one.
func (c *claim) moveHWAddr(old, hw string) error {
	c.dropped = map[string]bool{hw: true}
	if old == hw {
		return nil
	}
	if old != "" {
		if it, err := c.l.hws.Get(state.Key(c.net, old)); err == nil && it.Value.NIC == c.key {
			c.ops = append(c.ops, c.l.hws.DeleteOp(it))
		}
	}
	it, err := c.l.hws.Get(state.Key(c.net, hw))
	switch {
	case errs.IsNotFound(err):
		c.ops = append(c.ops, c.l.hws.CreateOp(state.Key(c.net, hw), hwRecord{NIC: c.key}))
		return nil
	case err != nil:
		return err
	case it.Value.NIC != "" && it.Value.NIC != c.key:
		return errs.Exists("hwaddr %s: in use by %s", hw, nicLabel(it.Value.NIC))
	}
	stray := it.Value.Addr
	it.Value = hwRecord{NIC: c.key}
	c.ops = append(c.ops, c.l.hws.UpdateOp(it))
	if a, err := c.l.addrs.Get(state.Key(c.net, stray.String())); stray.IsValid() && err == nil && a.Value.NIC == "" && (c.evict == nil || c.evict.Key != a.Key) {
		c.ops = append(c.ops, c.l.addrs.DeleteOp(a))
	}
	return nil
}

// moveAddr makes the address of rec the NIC's and gives up the old one.
func (c *claim) moveAddr(old netip.Addr, rec nicRecord) {
	owned := addrRecord{NIC: c.key, HWAddr: rec.HWAddr, Static: rec.Static}
	if old.IsValid() {
		if it, err := c.l.addrs.Get(state.Key(c.net, old.String())); err == nil && it.Value.NIC == c.key {
			if old == rec.IPv4 {
				it.Value = owned
				c.ops = append(c.ops, c.l.addrs.UpdateOp(it))
				return
			}
			c.ops = append(c.ops, c.l.addrs.DeleteOp(it))
		}
	}
	if !rec.IPv4.IsValid() {
		return
	}
	if c.evict == nil {
		c.ops = append(c.ops, c.l.addrs.CreateOp(state.Key(c.net, rec.IPv4.String()), owned))
		return
	}
	it := *c.evict
	if hw, err := c.l.hws.Get(state.Key(c.net, it.Value.HWAddr)); err == nil && !c.dropped[it.Value.HWAddr] && hw.Value.NIC == "" {
		c.ops = append(c.ops, c.l.hws.DeleteOp(hw))
	}
	it.Value = owned
	c.ops = append(c.ops, c.l.addrs.UpdateOp(it))
}

// release gives up all that the NIC has; nil when it has nothing.
func (l *leases) release(ctx context.Context, key string) error {
	_, err := retry(func() (struct{}, error) {
		it, err := l.nics.Get(key)
		if errs.IsNotFound(err) {
			return struct{}{}, nil
		}
		if err != nil {
			return struct{}{}, err
		}
		network := state.SplitKey(key)[0]
		c := &claim{l: l, net: network, key: key, ops: []state.Op{l.nics.DeleteOp(it)}}
		if a, err := l.addrs.Get(state.Key(network, it.Value.IPv4.String())); err == nil && a.Value.NIC == key {
			c.ops = append(c.ops, l.addrs.DeleteOp(a))
		}
		if hw, err := l.hws.Get(state.Key(network, it.Value.HWAddr)); err == nil && hw.Value.NIC == key {
			c.ops = append(c.ops, l.hws.DeleteOp(hw))
		}
		return struct{}{}, c.commit(ctx)
	})
	return err
}
