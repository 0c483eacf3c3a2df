package bridge

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// MaxRate is the highest rate that a port can be limited to, in bits per second; more would not fit the kernel's numbers.
const MaxRate = 400_000_000_000

// Rates are the limits of a port in bits per second; 0 is none.
type Rates struct {
	Ingress int64 // towards the instance
	Egress  int64 // from the instance
}

// Shape gives the host end of a port exactly these limits. Idempotent; traffic goes on while limits change. What goes
// towards the instance waits in a token bucket on the host end. What comes from it is led through an interface of its own
// (ifb) that has the bucket: a queue, unlike a filter that drops, lets a sender get the whole rate. errs.Unsupported when
// the kernel lacks these, errs.NotFound without the host end.
func (h *Host) Shape(host string, r Rates) error {
	for _, n := range []int64{r.Ingress, r.Egress} {
		if n < 0 || n > MaxRate {
			return errs.Invalid("rate of %d bits per second: allowed are 0–%d", n, int64(MaxRate))
		}
	}
	link, err := netlink.LinkByName(host)
	if isNotFound(err) {
		return errs.NotFound("interface %q", host)
	}
	if err != nil {
		return fmt.Errorf("look for interface %s: %w", host, err)
	}
	if err := bucket(link, r.Ingress); err != nil {
		return fmt.Errorf("limit what %s sends to the instance: %w", host, err)
	}
	if r.Egress == 0 {
		err = h.unshape(link)
	} else {
		err = h.shapeEgress(link, r.Egress)
	}
	if err != nil {
		return fmt.Errorf("limit what %s gets from the instance: %w", host, err)
	}
	return nil
}

// bucket makes a token bucket the link's queue, or takes it away when bits is 0. It lets 10 ms of traffic and one large
// packet through at once and holds back 50 ms at most.
func bucket(link netlink.Link, bits int64) error {
	if bits == 0 {
		return dropQdisc(link, "tbf")
	}
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	rate := max(uint64(bits)/8, 1)
	burst := uint32(rate/100 + 64<<10)
	return supported(netlink.QdiscReplace(&netlink.Tbf{QdiscAttrs: attrs, Rate: rate, Limit: uint32(rate/20) + burst, Buffer: netlink.Xmittime(rate, burst)}))
}

// dropQdisc deletes the link's queues of a type; nil when there is none.
func dropQdisc(link netlink.Link, typ string) error {
	qdiscs, err := netlink.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Type() == typ {
			if err := netlink.QdiscDel(q); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
	}
	return nil
}

func (h *Host) shapeEgress(link netlink.Link, bits int64) error {
	ifb, err := h.shaper(link)
	if err != nil {
		return err
	}
	if ifb != nil {
		return bucket(ifb, bits)
	}
	if err := dropQdisc(link, "ingress"); err != nil {
		return err
	}
	if ifb, err = h.newShaper(link.Attrs().Name); err != nil {
		return err
	}
	if err := bucket(ifb, bits); err != nil {
		return err
	}
	in := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS}}
	if err := netlink.QdiscAdd(in); err != nil {
		return supported(err)
	}
	return supported(netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: ingressHandle, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(ifb.Attrs().Index)},
	}))
}

// ingressHandle is ffff:, which the kernel gives the queue of what arrives.
const ingressHandle = 0xffff << 16

// shaper returns the interface that what comes from the instance is led through; nil when it is not, or not wholly.
func (h *Host) shaper(link netlink.Link) (netlink.Link, error) {
	host := link.Attrs().Name
	ifb, err := netlink.LinkByName(shaperName(host))
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if ifb.Type() != "ifb" || ifb.Attrs().Group != Group {
		return nil, errs.Exists("interface %q was not made by this daemon for %s", ifb.Attrs().Name, host)
	}
	filters, err := netlink.FilterList(link, ingressHandle)
	if err != nil {
		return nil, err
	}
	for _, f := range filters {
		u, ok := f.(*netlink.U32)
		if !ok || ifb.Attrs().Alias != h.label+":"+host {
			continue
		}
		for _, act := range u.Actions {
			if m, ok := act.(*netlink.MirredAction); ok && m.Ifindex == ifb.Attrs().Index {
				return ifb, nil
			}
		}
	}
	return nil, nil
}

// newShaper makes the interface that a host end's egress limit sits on, up. One of a former life of the name makes room:
// it may be about to be deleted.
func (h *Host) newShaper(host string) (netlink.Link, error) {
	if err := h.condemnShaper(host)(); err != nil {
		return nil, err
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.Group = shaperName(host), Group
	ifb := &netlink.Ifb{LinkAttrs: la}
	if err := netlink.LinkAdd(ifb); err != nil {
		return nil, supported(err)
	}
	if err := netlink.LinkSetAlias(ifb, h.label+":"+host); err != nil {
		return nil, err
	}
	if err := writeSysctl("ipv6/conf/"+la.Name+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	return ifb, netlink.LinkSetUp(ifb)
}

// unshape lets what comes from the instance through again.
func (h *Host) unshape(link netlink.Link) error {
	if err := dropQdisc(link, "ingress"); err != nil {
		return err
	}
	return h.condemnShaper(link.Attrs().Name)()
}

// condemnShaper looks up the interface that a host end's egress limit sits on, and returns what deletes it.
func (h *Host) condemnShaper(host string) (remove func() error) {
	link, err := netlink.LinkByName(shaperName(host))
	if err != nil || link.Type() != "ifb" || link.Attrs().Alias != h.label+":"+host && (link.Attrs().Alias != "" || link.Attrs().Group != Group) {
		return func() error { return nil }
	}
	return func() error {
		if err := netlink.LinkDel(link); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete interface %s: %w", link.Attrs().Name, err)
		}
		return nil
	}
}

// SweepShapers deletes the interfaces of egress limits whose host end is gone.
func (h *Host) SweepShapers() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	there := map[string]bool{}
	for _, l := range links {
		there[l.Attrs().Name] = true
	}
	var problems []error
	for _, l := range links {
		a := l.Attrs()
		host, ours := strings.CutPrefix(a.Alias, h.label+":")
		if l.Type() != "ifb" || a.Group != Group || !ours && a.Alias != "" || there[host] {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !isNotFound(err) {
			problems = append(problems, fmt.Errorf("delete interface %s: %w", a.Name, err))
		}
	}
	return errors.Join(problems...)
}

// shaperName is short enough for an interface whatever the host end is called.
func shaperName(host string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(host))
	return fmt.Sprintf("ifb%08x", h.Sum32())
}

// supported marks what the kernel says when it was built without something.
func supported(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return errs.Classify(errs.UnsupportedClass, fmt.Errorf("this kernel cannot shape traffic (tbf, ifb, u32 and mirred are needed): %w", err))
	}
	return err
}
