package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

const maxConns = 128 // TCP connections of one address

// Server answers on a few addresses.
type Server struct {
	servers []*dns.Server
	done    sync.WaitGroup
}

// Listen answers on port 53 of the addresses, by UDP and TCP, until Close. All or none.
func Listen(addrs []netip.Addr, h dns.Handler) (*Server, error) {
	return listen(addrs, 53, h)
}

func listen(addrs []netip.Addr, port uint16, h dns.Handler) (*Server, error) {
	s := &Server{}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, port)
		pc, err := net.ListenPacket("udp", at.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for DNS on %s: %w", at, err), s.Close())
		}
		s.servers = append(s.servers, &dns.Server{PacketConn: pc, Handler: h, UDPSize: udpSize})
		ln, err := net.Listen("tcp", at.String())
		if err != nil {
			pc.Close()
			s.servers = s.servers[:len(s.servers)-1]
			return nil, errors.Join(fmt.Errorf("listen for DNS on %s: %w", at, err), s.Close())
		}
		s.servers = append(s.servers, &dns.Server{
			Listener: netutil.LimitListener(ln, maxConns), Handler: h, MaxTCPQueries: 100,
			ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, IdleTimeout: func() time.Duration { return 5 * time.Second },
		})
		s.run(s.servers[len(s.servers)-2:])
	}
	return s, nil
}

// run returns when the servers are running: one that was never started cannot be shut down.
func (s *Server) run(servers []*dns.Server) {
	var started sync.WaitGroup
	for _, srv := range servers {
		started.Add(1)
		srv.NotifyStartedFunc = started.Done
		s.done.Go(func() { _ = srv.ActivateAndServe() })
	}
	started.Wait()
}

// Close stops answering and waits a moment for answers that are under way.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
	defer cancel()
	for _, srv := range s.servers {
		_ = srv.ShutdownContext(ctx)
	}
	s.done.Wait()
	return nil
}
