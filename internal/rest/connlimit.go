package rest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

// limits bound what the network can make the daemon hold. A connection is of a stranger until a request with a trusted certificate has
// come over it; the time that a handshake and a request's header may take is HeaderTimeout.
type limits struct {
	total     int // connections of everybody
	strangers int // of those that are not trusted, together
	perHost   int // of those, from one address; of IPv6 from one network of 64 bits
}

const (
	maxConns     = 8192
	maxStrangers = 512
	maxPerHost   = 64
)

func (l limits) orDefault() limits {
	if l.total == 0 {
		return limits{maxConns, maxStrangers, maxPerHost}
	}
	return l
}

// connTable knows all connections from the network.
type connTable struct {
	limits limits

	mu        sync.Mutex
	conns     map[*netConn]struct{}
	strangers int
	byHost    map[netip.Prefix]int // strangers
}

// netConn is a connection that leaves the table when it is closed.
type netConn struct {
	net.Conn
	table *connTable
	host  netip.Prefix

	// Guarded by table.mu.
	gone    bool
	trusted string // fingerprint
}

func newConnTable(l limits) *connTable {
	return &connTable{limits: l.orDefault(), conns: map[*netConn]struct{}{}, byHost: map[netip.Prefix]int{}}
}

func hostOf(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the number of bits fits
	return p
}

// enter admits a connection, or says that there are too many.
func (t *connTable) enter(c net.Conn) (*netConn, bool) {
	n := &netConn{Conn: c, table: t, host: hostOf(c.RemoteAddr())}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) >= t.limits.total || t.strangers >= t.limits.strangers || t.byHost[n.host] >= t.limits.perHost {
		return nil, false
	}
	t.conns[n] = struct{}{}
	t.strangers++
	t.byHost[n.host]++
	return n, true
}

// known takes a connection out of the strangers; t.mu is held.
func (t *connTable) known(n *netConn) {
	t.strangers--
	if t.byHost[n.host]--; t.byHost[n.host] == 0 {
		delete(t.byHost, n.host)
	}
}

// Close closes the connection and makes room for another.
func (n *netConn) Close() error {
	n.table.mu.Lock()
	if !n.gone {
		n.gone = true
		delete(n.table.conns, n)
		if n.trusted == "" {
			n.table.known(n)
		}
	}
	n.table.mu.Unlock()
	return n.Conn.Close()
}

// listener admits connections of l within the limits and closes the others at once.
func (t *connTable) listener(l net.Listener) net.Listener { return &limitedListener{l, t} }

type limitedListener struct {
	net.Listener
	table *connTable
}

// Accept waits for the next connection that is admitted.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if n, ok := l.table.enter(c); ok {
			return n, nil
		}
		_ = c.Close()
	}
}

type connKey struct{}

// context remembers a request's connection.
func (t *connTable) context(ctx context.Context, c net.Conn) context.Context {
	if tc, ok := c.(*tls.Conn); ok {
		if n, ok := tc.NetConn().(*netConn); ok {
			return context.WithValue(ctx, connKey{}, n)
		}
	}
	return ctx
}

// trustConn notes that a request with a trusted certificate has come over the connection of ctx.
func trustConn(ctx context.Context, fingerprint string) {
	n, ok := ctx.Value(connKey{}).(*netConn)
	if !ok || fingerprint == "" {
		return
	}
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	if !n.gone && n.trusted == "" {
		n.table.known(n)
		n.trusted = fingerprint
	}
}

// revoke closes the connections of a certificate.
func (t *connTable) revoke(fingerprint string) {
	for _, n := range t.pick(func(n *netConn) bool { return n.trusted == fingerprint }) {
		_ = n.Close()
	}
}

// closeAll closes every connection, also those that http.Server has given away.
func (t *connTable) closeAll() {
	for _, n := range t.pick(func(*netConn) bool { return true }) {
		_ = n.Close()
	}
}

func (t *connTable) pick(which func(*netConn) bool) []*netConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*netConn
	for n := range t.conns {
		if which(n) {
			out = append(out, n)
		}
	}
	return out
}
