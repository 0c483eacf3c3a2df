package elastic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"

	"github.com/shoal-project/shoal/elastic/pki"
)

// protocol is the name (ALPN) under which clients speak gRPC with the database on the machine's one port.
const protocol = "shoal-db"

// handshakeTime bounds the handshake of a connection.
const handshakeTime = 10 * time.Second

// port serves three things on one listener: gRPC to clients that ask for it by name, raft and the leader's orders to members, and to everybody else
// whatever the daemon has. Only certificates of the cluster reach the first two.
type port struct {
	certs pki.Files
	l     net.Listener
	srv   *http.Server
	web   chan net.Conn // with finished handshakes, not for gRPC
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup

	peers  atomic.Pointer[http.Handler]
	rpc    atomic.Pointer[rpcServer]
	orders http.Handler
	others http.Handler
}

// newPort begins to serve l. The listener belongs to the port from now on.
func newPort(l net.Listener, certs pki.Files, orders, others http.Handler) *port {
	p := &port{certs: certs, l: l, web: make(chan net.Conn), done: make(chan struct{}), orders: orders, others: others}
	p.srv = &http.Server{Handler: p, ReadHeaderTimeout: handshakeTime, ErrorLog: log.New(io.Discard, "", 0), ConnContext: p.connContext}
	p.wg.Go(p.accept)
	p.wg.Go(func() { _ = p.srv.Serve((*webListener)(p)) }) // ends with close
	return p
}

func (p *port) close() {
	p.once.Do(func() {
		close(p.done)
		p.l.Close()
		p.srv.Close()
	})
	p.wg.Wait()
}

func (p *port) accept() {
	config := p.certs.Server(protocol, "h2", "http/1.1")
	for {
		c, err := p.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, for instance
			select {
			case <-p.done:
				return
			case <-time.After(50 * time.Millisecond):
				continue
			}
		}
		p.wg.Go(func() { p.sort(tls.Server(c, config)) })
	}
}

// sort finishes the handshake and hands the connection on.
func (p *port) sort(c *tls.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.NetConn().Close() })
	defer stop()
	go func() { // the handshake ends with the port
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if c.HandshakeContext(ctx) != nil {
		c.Close()
		return
	}
	if c.ConnectionState().NegotiatedProtocol == protocol {
		if r := p.rpc.Load(); r == nil || !stop() || !r.take(c) {
			c.Close()
		}
		return
	}
	if !stop() {
		return
	}
	select {
	case p.web <- c:
	case <-p.done:
		c.Close()
	}
}

// webListener hands connections to the HTTP server.
type webListener port

func (w *webListener) Accept() (net.Conn, error) {
	select {
	case c := <-w.web:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *webListener) Close() error   { return nil }
func (w *webListener) Addr() net.Addr { return w.l.Addr() }

type holderKey struct{}

// connContext finds out once for each connection who is at the other end.
func (p *port) connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		s := t.ConnectionState()
		if h, err := p.certs.Identify(&s); err == nil {
			return context.WithValue(ctx, holderKey{}, h)
		}
	}
	return ctx
}

// holder returns whom the connection's certificate names; zero when it is none of the cluster.
func holder(r *http.Request) pki.Holder {
	h, _ := r.Context().Value(holderKey{}).(pki.Holder)
	return h
}

const ordersPath = "/internal/elastic/"

// raftPaths are those of etcd's handler for other members.
var raftPaths = []string{"/raft", "/members", "/version", "/leases", "/downgrade/"}

func isRaft(path string) bool {
	for _, p := range raftPaths {
		if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

// ServeHTTP decides by path who may pass.
func (p *port) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	next := p.others
	switch {
	case strings.HasPrefix(r.URL.Path, ordersPath):
		next = p.orders
	case isRaft(r.URL.Path):
		next = nil
		if h := p.peers.Load(); h != nil {
			next = *h
		}
	default:
		if next == nil {
			next = http.NotFoundHandler()
		}
		next.ServeHTTP(w, r)
		return
	}
	switch {
	case holder(r).Role != pki.Member:
		http.Error(w, "only members of the cluster may do this: show a member's certificate of this cluster", http.StatusForbidden)
	case next == nil:
		http.Error(w, "no copy of the database runs here", http.StatusServiceUnavailable)
	default:
		next.ServeHTTP(w, r)
	}
}

// attach lets the member be reached.
func (p *port) attach(m *Member) {
	h := etcdhttp.NewPeerHandler(zapLogger(m.cfg.Log), m.etcd.Server)
	p.peers.Store(&h)
	p.rpc.Store(newRPC(m, p.l.Addr()))
}

// detachClients ends the connections of clients at once, detach those of members too.
func (p *port) detachClients() {
	if r := p.rpc.Swap(nil); r != nil {
		r.close()
	}
}

func (p *port) detach() {
	p.detachClients()
	p.peers.Store(nil)
}

// rpcServer is etcd's gRPC server, made for the first connection: most members never see one.
type rpcServer struct {
	m     *Member
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}

	mu     sync.Mutex
	srv    *grpc.Server
	closed bool
	wg     sync.WaitGroup
}

func newRPC(m *Member, addr net.Addr) *rpcServer {
	return &rpcServer{m: m, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// take serves a connection; false when the server is closed.
func (r *rpcServer) take(c net.Conn) bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	if r.srv == nil {
		r.srv = v3rpc.Server(r.m.etcd.Server, nil, nil)
		r.wg.Go(func() { _ = r.srv.Serve((*rpcListener)(r)) }) // ends with close
	}
	r.mu.Unlock()
	select {
	case r.conns <- c:
		return true
	case <-r.done:
		return false
	}
}

func (r *rpcServer) close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	close(r.done)
	srv := r.srv
	r.mu.Unlock()
	if srv != nil {
		srv.Stop()
	}
	r.wg.Wait()
}

type rpcListener rpcServer

func (l *rpcListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *rpcListener) Close() error   { return nil }
func (l *rpcListener) Addr() net.Addr { return l.addr }
