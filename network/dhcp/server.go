package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// Packets a second that are looked at: of each instance's interface, and of all strangers together.
const (
	knownRate = 10
	strayRate = 20
	maxKnown  = 4096    // interfaces whose budget is remembered
	rcvBuf    = 4 << 20 // bytes: packets of one guest wait behind those of another
)

// Server answers DHCPv4 on one interface.
type Server struct {
	conn   net.PacketConn
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Serve listens on the interface until Close.
func Serve(ifname string, r *Responder, log *slog.Logger) (*Server, error) {
	lc := net.ListenConfig{Control: bindToDevice(ifname)}
	conn, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", dhcpv4.ServerPort))
	if err != nil {
		return nil, fmt.Errorf("listen for DHCP on %s: %w", ifname, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{conn: conn, cancel: cancel}
	l := newLoop(r, log.With("network", ifname), strayRate, knownRate)
	s.done.Go(func() { l.run(ctx, conn) })
	return s, nil
}

// bindToDevice makes a socket receive from and send to one interface only; several servers share the port that way.
func bindToDevice(ifname string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifname),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rcvBuf))
		})
		return errors.Join(cerr, err)
	}
}

// Close stops the server and waits for it.
func (s *Server) Close() error {
	s.cancel()
	err := s.conn.Close()
	s.done.Wait()
	return err
}

type loop struct {
	r         *Responder
	log       *slog.Logger
	stray     *rate.Limiter
	knownRate rate.Limit
	known     map[[6]byte]*rate.Limiter
}

func newLoop(r *Responder, log *slog.Logger, stray, known rate.Limit) *loop {
	return &loop{r: r, log: log, stray: rate.NewLimiter(stray, 2*strayRate), knownRate: known, known: map[[6]byte]*rate.Limiter{}}
}

// chaddr is where the client's hardware address stands in a packet (RFC 2131, 2).
const chaddr = 28

// spare reports whether a packet is over its sender's budget. It looks at nothing but the hardware address: what a guest
// sends in excess must be gone from the socket faster than it comes in.
func (l *loop) spare(b []byte) bool {
	if len(b) < chaddr+6 {
		return true
	}
	hw := [6]byte(b[chaddr : chaddr+6])
	if !l.r.Leases.Known(hw[:]) {
		return !l.stray.Allow()
	}
	lim := l.known[hw]
	if lim == nil {
		if len(l.known) >= maxKnown {
			clear(l.known)
		}
		lim = rate.NewLimiter(l.knownRate, 2*knownRate)
		l.known[hw] = lim
	}
	return !lim.Allow()
}

// run handles one packet after the other: what a guest sends waits in the socket's buffer, which is bounded.
func (l *loop) run(ctx context.Context, conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, _, err := conn.ReadFrom(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the interface went down or away; it may come back
			l.log.Debug("read DHCP packet", "err", err)
			if !pause(ctx) {
				return
			}
			continue
		}
		if out, to := l.handle(ctx, buf[:n]); out != nil {
			if _, err := conn.WriteTo(out, to); err != nil && ctx.Err() == nil {
				l.log.Debug("send DHCP packet", "err", err)
			}
		}
	}
}

// handle turns bytes into bytes. A panic on a guest's packet must not end the daemon.
func (l *loop) handle(ctx context.Context, b []byte) (out []byte, to net.Addr) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("DHCP packet caused a panic", "err", p)
			out = nil
		}
	}()
	if l.spare(b) {
		return nil, nil
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, nil
	}
	reply, addr, err := l.r.Reply(ctx, m)
	if err != nil {
		l.log.Warn("DHCP request not answered", "hwaddr", m.ClientHWAddr.String(), "err", err)
	}
	if reply == nil {
		return nil, nil
	}
	return reply.ToBytes(), addr
}
