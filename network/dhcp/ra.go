package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// Lifetimes that guests are told. The router's is three times the longest pause between advertisements, so that one lost
// packet or a restart of the daemon takes nobody's route away.
const (
	routerLifetime    = 30 * time.Minute
	validLifetime     = 24 * time.Hour
	preferredLifetime = 4 * time.Hour
	maxInterval       = 10 * time.Minute
	solicitedRate     = 10 // answers a second
)

// Advertisement is what guests are told about IPv6.
type Advertisement struct {
	Prefix netip.Prefix // guests make addresses in it
	HWAddr net.HardwareAddr
	MTU    int // 0: nothing is said
	DNS    []netip.Addr
	Search []string
}

// Bytes returns the ICMPv6 message, the checksum left to the kernel.
func (a Advertisement) Bytes() []byte {
	m := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(m[6:], uint16(routerLifetime/time.Second))
	if len(a.HWAddr) == 6 {
		m = append(append(m, 1, 1), a.HWAddr...)
	}
	if a.MTU >= 1280 {
		m = binary.BigEndian.AppendUint32(append(m, 5, 1, 0, 0), uint32(a.MTU))
	}
	if a.Prefix.IsValid() { // on-link, autonomous
		m = append(m, 3, 4, byte(a.Prefix.Bits()), 0xc0)
		m = seconds(seconds(m, validLifetime), preferredLifetime)
		m = append(append(m, 0, 0, 0, 0), a.Prefix.Masked().Addr().AsSlice()...)
	}
	if len(a.DNS) > 0 {
		m = seconds(append(m, 25, byte(1+2*len(a.DNS)), 0, 0), routerLifetime)
		for _, d := range a.DNS {
			m = append(m, d.AsSlice()...)
		}
	}
	if len(a.Search) > 0 {
		var names []byte
		for _, d := range a.Search {
			for label := range strings.SplitSeq(d, ".") {
				names = append(append(names, byte(len(label))), label...)
			}
			names = append(names, 0)
		}
		for len(names)%8 != 0 {
			names = append(names, 0)
		}
		m = append(seconds(append(m, 31, byte(1+len(names)/8), 0, 0), routerLifetime), names...)
	}
	return m
}

func seconds(m []byte, d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(m, uint32(d/time.Second))
}

// Advertiser sends router advertisements on one interface.
type Advertiser struct {
	conn   *ipv6.PacketConn
	cancel context.CancelFunc
	done   sync.WaitGroup
}

var allNodes, allRouters = net.ParseIP("ff02::1"), net.ParseIP("ff02::2")

// Advertise sends a on the interface until Close: at once, each 3–10 minutes, and to guests that ask.
func Advertise(ifname string, a Advertisement, log *slog.Logger) (*Advertiser, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("advertise router on %s: %w", ifname, err)
	}
	lc := net.ListenConfig{Control: bindToDevice(ifname)}
	raw, err := lc.ListenPacket(context.Background(), "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("advertise router on %s: %w", ifname, err)
	}
	p := ipv6.NewPacketConn(raw)
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(p.SetMulticastHopLimit(255), p.SetHopLimit(255), p.SetMulticastInterface(ifi), p.SetMulticastLoopback(false),
		p.SetICMPFilter(&f), p.SetControlMessage(ipv6.FlagHopLimit, true), p.JoinGroup(ifi, &net.IPAddr{IP: allRouters}))
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("advertise router on %s: %w", ifname, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ad := &Advertiser{conn: p, cancel: cancel}
	msg := a.Bytes()
	ad.done.Go(func() { ad.now(ctx, ifname, msg) })
	ad.done.Go(func() { ad.onRequest(ctx, ifname, msg, log.With("network", ifname)) })
	return ad, nil
}

// Close stops the advertiser and waits for it. Guests keep what they were told for as long as it is valid.
func (a *Advertiser) Close() error {
	a.cancel()
	err := a.conn.Close()
	a.done.Wait()
	return err
}

func (a *Advertiser) send(ifname string, msg []byte, to net.IP) error {
	_, err := a.conn.WriteTo(msg, nil, &net.IPAddr{IP: to, Zone: ifname})
	return err
}

func (a *Advertiser) now(ctx context.Context, ifname string, msg []byte) {
	for {
		_ = a.send(ifname, msg, allNodes) // nobody listens on a bridge without guests: an error then is no news
		wait := maxInterval*3/10 + rand.N(maxInterval*7/10)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// onRequest answers solicitations, to the guest alone where it has an address already.
func (a *Advertiser) onRequest(ctx context.Context, ifname string, msg []byte, log *slog.Logger) {
	limit := rate.NewLimiter(solicitedRate, 2*solicitedRate)
	buf := make([]byte, 2048)
	for {
		n, cm, from, err := a.conn.ReadFrom(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Debug("read router solicitation", "err", err)
			if !pause(ctx) {
				return
			}
			continue
		}
		// A hop limit of 255 proves that no router passed it on (RFC 4861, 6.1.1).
		if n < 8 || buf[0] != 133 || cm == nil || cm.HopLimit != 255 || !limit.Allow() {
			continue
		}
		to := allNodes
		if ip, ok := from.(*net.IPAddr); ok && ip.IP.IsLinkLocalUnicast() {
			to = ip.IP
		}
		if err := a.send(ifname, msg, to); err != nil && !errors.Is(err, unix.ENETUNREACH) {
			log.Debug("send router advertisement", "err", err)
		}
	}
}

// pause waits a moment after an error that may come again at once; false when ctx ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}
