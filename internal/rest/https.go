package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// DefaultPort is where the API listens when an address names no port.
const DefaultPort = "8443"

// HTTPS serves the API over TLS on an address that can be changed while it runs. Safe for concurrent use.
//
// A new address is opened before the old one is closed wherever the kernel allows it; when it cannot be opened the old one stays.
// Requests that run on the old address end by themselves. Connections are bounded, see [limits].
type HTTPS struct {
	srv   *Server
	hs    *http.Server
	tls   *tls.Config
	conns *connTable

	mu     sync.Mutex
	l      net.Listener
	addr   string // as it was asked for
	closed bool
	wg     sync.WaitGroup
}

// NewHTTPS returns a server that listens nowhere yet. cert is shown to clients; they are asked for theirs, and a handshake succeeds
// without one or with any: who is trusted is decided by fingerprint for each request.
func NewHTTPS(s *Server, cert *tls.Certificate) *HTTPS {
	h := &HTTPS{srv: s, hs: s.HTTPServer(), conns: newConnTable(limits{})}
	h.hs.Protocols = new(http.Protocols)
	h.hs.Protocols.SetHTTP1(true)
	h.hs.ConnContext = h.conns.context
	h.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
	}
	return h
}

// ParseHTTPSAddress returns the host:port that a value of core.https_address means: a host, a port after a colon, or both; without a host
// all addresses, without a port [DefaultPort]. Empty stays empty: not to listen.
func ParseHTTPSAddress(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	bad := func(why string) error {
		return errs.Invalid("Invalid address %q: %s; allowed are IP addresses and host names, with or without a port, such as 10.0.0.1:8443, [::]:8443 or :8443", s, why)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), DefaultPort
		if _, perr := netip.ParseAddr(host); perr != nil && strings.ContainsAny(host, ":[]") {
			return "", bad("it cannot be split into host and port")
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", bad("the port has to be a number from 1 to 65535")
	}
	if len(host) > 253 || strings.ContainsFunc(host, func(c rune) bool {
		return c > 0x7e || c <= ' ' || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-%_", c)
	}) {
		return "", bad("the host has characters that no host has")
	}
	return net.JoinHostPort(host, port), nil
}

// Listen serves on an address from now on, on none when it is empty. When it fails, everything is as it was before.
func (h *HTTPS) Listen(ctx context.Context, addr string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errs.Unavailable("the daemon is shutting down")
	}
	if addr == h.addr {
		return nil
	}
	if addr == "" {
		h.swap(nil, "")
		return nil
	}
	l, err := bind(ctx, addr)
	if errors.Is(err, syscall.EADDRINUSE) && h.l != nil && port(addr) == port(h.l.Addr().String()) {
		// It may be our own old listener that is in the way, as from 127.0.0.1:8443 to :8443.
		if l, err = h.bindInstead(ctx, addr); err != nil {
			return err
		}
	}
	if err != nil {
		return errs.Invalid("cannot listen on %s: %w", addr, err)
	}
	h.swap(l, addr)
	return nil
}

// bindInstead closes the present listener to open another, and opens it again when that fails.
func (h *HTTPS) bindInstead(ctx context.Context, addr string) (net.Listener, error) {
	old, was := h.l, h.addr
	_ = old.Close()
	l, err := bind(ctx, addr)
	if err == nil {
		return l, nil
	}
	err = errs.Invalid("cannot listen on %s: %w", addr, err)
	again, aerr := bind(ctx, old.Addr().String())
	if aerr != nil {
		h.l, h.addr = nil, ""
		h.srv.d.Logger.Error("the API does not listen on its old address any more", "address", was, "err", aerr)
		return nil, errors.Join(err, fmt.Errorf("and not on %s any more: %w", was, aerr))
	}
	h.swap(again, was)
	return nil, err
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func bind(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// swap serves on l and closes the listener before it.
func (h *HTTPS) swap(l net.Listener, addr string) {
	old := h.l
	h.l, h.addr = l, addr
	if l != nil {
		tl := tls.NewListener(h.conns.listener(l), h.tls)
		h.wg.Go(func() {
			if err := h.hs.Serve(tl); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				h.srv.d.Logger.Error("the API does not listen any more", "address", addr, "err", err)
			}
		})
	}
	if old != nil {
		_ = old.Close()
	}
}

// Address is where it listens, empty when nowhere.
func (h *HTTPS) Address() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.l == nil {
		return ""
	}
	return h.l.Addr().String()
}

// Addresses are host:port by which other machines can reach the listener: those of the host's interfaces when it listens on all, loopback
// and link-local ones only when there are no others.
func (h *HTTPS) Addresses() []string {
	at := h.Address()
	if at == "" {
		return []string{}
	}
	ap, err := netip.ParseAddrPort(at)
	if err != nil || !ap.Addr().IsUnspecified() {
		return []string{at}
	}
	ifaces, err := net.InterfaceAddrs()
	if err != nil {
		h.srv.d.Logger.Warn("the host's addresses are not known", "err", err)
		return []string{}
	}
	out, local := []string{}, []string{}
	for _, a := range ifaces {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); !ok || (ap.Addr().Is4() && ip.Is6()) {
			continue
		}
		s := netip.AddrPortFrom(ip, ap.Port()).String()
		switch {
		case ip.IsGlobalUnicast():
			out = append(out, s)
		case ip.IsLoopback():
			local = append(local, s)
		}
	}
	if len(out) == 0 {
		out = local
	}
	slices.Sort(out)
	return out
}

// revokeGrace lets the reply to the request that took a certificate away reach its sender, who may be its owner. New requests on these
// connections are refused from the moment of the change on.
const revokeGrace = time.Second

// Revoke closes the connections of a certificate soon, also those that have become websockets.
func (h *HTTPS) Revoke(fingerprint string) {
	time.AfterFunc(revokeGrace, func() { h.conns.revoke(fingerprint) })
}

// Close stops listening and waits for requests to end, until ctx does.
func (h *HTTPS) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	err := h.hs.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, h.hs.Close())
	}
	h.conns.closeAll()
	h.wg.Wait()
	return err
}
