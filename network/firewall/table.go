package firewall

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// socketBuffer is large enough for thousands of rules in one message; the default fails with "message too long".
const socketBuffer = 16 << 20

// Table is one nftables table of family inet in the network namespace of this process.
type Table struct {
	name string
}

// New returns the table of that name; nothing happens until Replace.
func New(name string) *Table { return &Table{name: name} }

func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithSockOptions(
		func(c *netlink.Conn) error { return c.SetWriteBuffer(socketBuffer) },
		func(c *netlink.Conn) error { return c.SetReadBuffer(socketBuffer) },
	))
	if err != nil {
		return nil, fmt.Errorf("talk to nftables: %w", err)
	}
	return c, nil
}

// Replace makes the table hold exactly rules, in one transaction. Idempotent. errs.Unsupported when the kernel lacks
// what the rules need.
func (t *Table) Replace(ctx context.Context, rules Rules) error {
	c, err := dial()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: t.name}
	c.AddTable(table) // so that the deletion cannot fail
	c.DelTable(table)
	c.AddTable(table)
	for _, ch := range rules.Chains() {
		nc := &nftables.Chain{Name: ch.Name, Table: table, Type: nftables.ChainTypeFilter, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(ch.Priority))}
		switch ch.Hook {
		case "input":
			nc.Hooknum = nftables.ChainHookInput
		case "forward":
			nc.Hooknum = nftables.ChainHookForward
		case "postrouting":
			nc.Hooknum, nc.Type = nftables.ChainHookPostrouting, nftables.ChainTypeNAT
		}
		c.AddChain(nc)
		for _, r := range ch.Rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: nc, Exprs: exprs(r)})
		}
	}
	if err := c.Flush(); err != nil {
		return errs.Classify(errs.UnsupportedClass, fmt.Errorf("write nftables table %q: %w", t.name, err))
	}
	return nil
}

// Remove deletes the table; nil when there is none.
func (t *Table) Remove(ctx context.Context) error {
	c, err := dial()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: t.name}
	c.AddTable(table)
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete nftables table %q: %w", t.name, err)
	}
	return nil
}

// Obstacles returns, one sentence each, the chains of other tables that drop forwarded packets by default: there our
// networks reach nothing beyond the host. Docker makes one.
func (t *Table) Obstacles(ctx context.Context) ([]string, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range []struct {
		fam  nftables.TableFamily
		name string
	}{{nftables.TableFamilyINet, "inet"}, {nftables.TableFamilyIPv4, "ip"}, {nftables.TableFamilyIPv6, "ip6"}} {
		chains, err := c.ListChainsOfTableFamily(f.fam)
		if err != nil {
			return nil, fmt.Errorf("list nftables chains: %w", err)
		}
		for _, ch := range chains {
			if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
				continue
			}
			out = append(out, fmt.Sprintf("chain %s of nftables table %s %s drops forwarded packets by default: instances may not reach other networks (Docker does this; accept the bridges there, in DOCKER-USER)", ch.Name, f.name, ch.Table.Name))
		}
	}
	return out, nil
}

func exprs(r Rule) (out []expr.Any) {
	name := func(key expr.MetaKey, op expr.CmpOp, n string) {
		b := make([]byte, unix.IFNAMSIZ)
		copy(b, n)
		out = append(out, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: b})
	}
	if r.In != "" {
		name(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.In)
	}
	for _, n := range r.NotIn {
		name(expr.MetaKeyIIFNAME, expr.CmpOpNeq, n)
	}
	if r.Out != "" {
		name(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.Out)
	}
	if p := firstValid(r.Src, r.Dst, r.NotDst); p.IsValid() {
		proto := byte(unix.NFPROTO_IPV4)
		if p.Addr().Is6() {
			proto = unix.NFPROTO_IPV6
		}
		out = append(out, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}})
	}
	out = append(out, address(r.Src, true, expr.CmpOpEq)...)
	out = append(out, address(r.Dst, false, expr.CmpOpEq)...)
	out = append(out, address(r.NotDst, false, expr.CmpOpNeq)...)
	if r.Proto != "" {
		proto := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[r.Proto]
		out = append(out,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, r.Port)})
	}
	switch r.Verdict {
	case "masquerade":
		return append(out, &expr.Masq{})
	case "accept":
		return append(out, &expr.Verdict{Kind: expr.VerdictAccept})
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
}

func firstValid(ps ...netip.Prefix) netip.Prefix {
	for _, p := range ps {
		if p.IsValid() {
			return p
		}
	}
	return netip.Prefix{}
}

// address matches the source or destination address of an IPv4 or IPv6 header.
func address(p netip.Prefix, src bool, op expr.CmpOp) []expr.Any {
	if !p.IsValid() {
		return nil
	}
	size, offset := uint32(4), uint32(12)
	if p.Addr().Is6() {
		size, offset = 16, 8
	}
	if !src {
		offset += size
	}
	out := []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
	if !p.IsSingleIP() {
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), int(size)*8), Xor: make([]byte, size)})
	}
	return append(out, &expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()})
}
