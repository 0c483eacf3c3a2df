package bridge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// Port is one interface of an instance on a bridge.
type Port struct {
	Owner    string // what the host end is labelled with, ≤ 230 bytes
	Bridge   string
	HostName string // empty: "veth" and eight random hexadecimal digits
	Name     string // inside the instance
	HWAddr   net.HardwareAddr
	MTU      int // 0: 1500
	PID      int // a process in the instance's network namespace
}

// Plug makes the pair of interfaces of p and returns the host end's name. The inner end is born in the namespace of
// p.PID, with name, hardware address and MTU, and down: moving it there would cost 12–25 ms of kernel time, and what
// brings it up is the guest's business. The host end is up on the bridge when Plug returns. See Plugged for what has been
// done already; a link of the same owner under the wanted host name makes room. errs.NotFound without bridge or process, errs.Exists when a name is taken.
func (h *Host) Plug(ctx context.Context, p Port) (string, error) {
	br, err := netlink.LinkByName(p.Bridge)
	if isNotFound(err) {
		return "", errs.NotFound("bridge %q", p.Bridge)
	}
	if err != nil {
		return "", fmt.Errorf("look for bridge %s: %w", p.Bridge, err)
	}
	if p.HostName != "" {
		if err := h.makeRoom(p); err != nil {
			return "", err
		}
	}
	for range 8 {
		name := p.HostName
		if name == "" {
			name = randomName()
		}
		err = h.plug(p, name, br)
		if p.HostName == "" && errs.IsExists(err) && !h.nameTaken(p) {
			continue
		}
		if err != nil {
			return "", err
		}
		return name, nil
	}
	return "", err
}

// makeRoom deletes the host end that a former life of the same NIC left under the wanted name.
func (h *Host) makeRoom(p Port) error {
	link, err := netlink.LinkByName(p.HostName)
	if err != nil || link.Type() != "veth" || link.Attrs().Alias != h.label+":"+p.Owner {
		return nil // free, or somebody else's: making the link will tell
	}
	if err := netlink.LinkDel(link); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete interface %s: %w", p.HostName, err)
	}
	return nil
}

// nameTaken reports whether the name inside the instance, not the random one outside, is what exists.
func (h *Host) nameTaken(p Port) bool {
	inside, err := linksOf(p.PID)
	return err != nil || inside[p.Name]
}

func (h *Host) plug(p Port, name string, br netlink.Link) error {
	la := netlink.NewLinkAttrs()
	la.Name, la.Group, la.MTU = name, Group, p.MTU
	veth := netlink.NewVeth(la)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = p.Name, p.HWAddr, uint32(p.MTU)
	veth.PeerNamespace = netlink.NsPid(p.PID)
	switch err := netlink.LinkAdd(veth); {
	case errors.Is(err, unix.EEXIST):
		return errs.Exists("interface %q or, in process %d, %q exists already", name, p.PID, p.Name)
	case errors.Is(err, unix.ESRCH):
		return errs.NotFound("process %d, whose network namespace should get %q", p.PID, p.Name)
	case err != nil:
		return fmt.Errorf("make interface pair %s and %s: %w", name, p.Name, err)
	}
	err := h.connect(veth, p, br)
	if err != nil {
		_ = netlink.LinkDel(veth)
	}
	return err
}

// connect labels the host end first: from then on a crash leaves nothing unknown behind.
func (h *Host) connect(veth *netlink.Veth, p Port, br netlink.Link) error {
	if err := netlink.LinkSetAlias(veth, h.label+":"+p.Owner); err != nil {
		return fmt.Errorf("label %s: %w", veth.Name, err)
	}
	// No address of its own on the host end: what arrives there belongs to the bridge.
	if err := writeSysctl("ipv6/conf/"+veth.Name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(veth, br); err != nil {
		return fmt.Errorf("put %s on bridge %s: %w", veth.Name, p.Bridge, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("bring up %s: %w", veth.Name, err)
	}
	return nil
}

// Plugged reports whether the link host is this owner's end of p and its other end lives in the network namespace of
// p.PID, on p.Bridge.
func (h *Host) Plugged(host string, p Port) bool {
	link, err := netlink.LinkByName(host)
	if err != nil || link.Attrs().Alias != h.label+":"+p.Owner {
		return false
	}
	br, err := netlink.LinkByName(p.Bridge)
	if err != nil || link.Attrs().MasterIndex != br.Attrs().Index {
		return false
	}
	id, err := netlink.GetNetNsIdByPid(p.PID)
	return err == nil && id >= 0 && id == link.Attrs().NetNsID
}

// Unplug deletes a host end, and with it the interface inside; nil when it is gone. It takes about 25 ms. errs.Exists
// when the link was not made by this owner.
func (h *Host) Unplug(ctx context.Context, host string) error { return h.Condemn(host)() }

// Condemn looks a host end up now and returns what deletes it, as Unplug does, whenever that is convenient: this very
// link, not another one that has the name by then.
func (h *Host) Condemn(host string) (remove func() error) {
	link, err := netlink.LinkByName(host)
	if isNotFound(err) {
		return h.condemnShaper(host)
	}
	if err != nil {
		return func() error { return fmt.Errorf("look for interface %s: %w", host, err) }
	}
	if a := link.Attrs(); link.Type() != "veth" || !strings.HasPrefix(a.Alias, h.label+":") && !(a.Alias == "" && a.Group == Group) {
		return func() error { return errs.Exists("interface %q was not made by this daemon", host) }
	}
	shaper := h.condemnShaper(host)
	return func() error {
		if err := netlink.LinkDel(link); err != nil && !isNotFound(err) { // by its index
			return fmt.Errorf("delete interface %s: %w", host, err)
		}
		return shaper()
	}
}

// Ports returns the host ends of this owner: link name → [Port].Owner. The owner of one whose maker died before it was
// labelled is "".
func (h *Host) Ports() (map[string]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := map[string]string{}
	for _, l := range links {
		a := l.Attrs()
		owner, ok := strings.CutPrefix(a.Alias, h.label+":")
		if l.Type() == "veth" && (ok || a.Alias == "" && a.Group == Group) {
			out[a.Name] = owner
		}
	}
	return out, nil
}

func randomName() string {
	var b [4]byte
	rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])
}
