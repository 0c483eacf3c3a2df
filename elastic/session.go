package elastic

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

// session is a client and how long it is the one to use.
type session struct {
	client *clientv3.Client
	life   context.Context
	end    context.CancelFunc
	remote []string // addresses of the voters; nil in memory
}

func newSession(c *clientv3.Client, remote []string) *session {
	s := &session{client: c, remote: remote}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Client returns a client of the database and a context that ends when another takes its place: in memory where a copy runs, over the network to all voters
// elsewhere. While there is none it waits, within ctx. Calls and watches that are under way when it ends should be cancelled and, if they may be, done again.
func (n *Node) Client(ctx context.Context) (*clientv3.Client, context.Context, error) {
	for {
		n.mu.Lock()
		s, changed, idle := n.session, n.changed, n.id == (identity{})
		n.mu.Unlock()
		switch {
		case s != nil:
			return s.client, s.life, nil
		case n.ctx.Err() != nil:
			return nil, nil, errs.Unavailable("the database is closed")
		case idle:
			return nil, nil, errs.Unavailable("this machine is in no cluster")
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
		case <-ctx.Done():
			return nil, nil, errs.Unavailable("no machine with a copy of the database is known: %w", context.Cause(ctx))
		}
	}
}

// settle is how long writes may go on after a leader was elected, in parts of the election timeout: what the old one has passed on is committed by then.
const settle = 5

// Writes returns a context that ends when a write that is under way now has been lost with its leader, or nobody can tell: etcd says so after seven seconds only.
func (n *Node) Writes() context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.writes
}

// newLeader gives up what was asked of the old one.
func (n *Node) newLeader() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.newLeaderLocked()
}

func (n *Node) newLeaderLocked() {
	if n.lost != nil {
		time.AfterFunc(n.cfg.Election/settle, n.lost)
	}
	n.writes, n.lost = context.WithCancel(n.ctx)
}

// setMember makes m the copy of this machine, nil for none, and its client the one to use.
func (n *Node) setMember(m *Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.member = m
	old := n.session
	if m != nil {
		n.session = newSession(m.client, nil)
	} else if old != nil && old.remote == nil {
		n.session = nil
		if n.ctx.Err() == nil {
			n.dialLocked(n.peers.Voters)
		}
	}
	if old != nil && old != n.session {
		old.end()
		if old.remote != nil {
			n.wg.Go(func() { old.client.Close() }) // may wait for calls
		}
	}
	n.notify()
}

// setRemote changes the voters that a machine without a copy talks to; none closes the connection. It takes a new client for others: etcd's
// SetEndpoints races with a connection that is being made.
func (n *Node) setRemote(voters []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.session
	if old != nil && (old.remote == nil || slices.Equal(old.remote, voters)) {
		return
	}
	n.session = nil
	n.dialLocked(voters)
	if old != nil {
		old.end()
		n.wg.Go(func() { old.client.Close() })
	}
	n.notify()
}

// retry calls f, which may be called twice, with the client of the moment, again when that has ended meanwhile.
func (n *Node) retry(ctx context.Context, f func(*clientv3.Client) error) error {
	for {
		c, life, err := n.Client(ctx)
		if err != nil {
			return err
		}
		if err = f(c); err == nil || life.Err() == nil || ctx.Err() != nil {
			return err
		}
	}
}

func (n *Node) dialLocked(voters []string) {
	if len(voters) == 0 || n.ctx.Err() != nil {
		return
	}
	voters = slices.Clone(voters)
	c, err := dial(voters, n.cfg.Certs)
	if err != nil {
		n.log.Error("no connection to the database can be made", "err", err)
		return
	}
	n.session = newSession(c, voters)
}

func endpoints(addresses []string) []string {
	out := slices.Clone(addresses)
	for i, a := range out {
		out[i] = "http://" + a // the dialer does TLS
	}
	return out
}

// dial returns a client of the voters at addresses. It does not wait for them.
func dial(addresses []string, certs pki.Files) (*clientv3.Client, error) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: certs.Dial(protocol)}
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints(addresses), DialTimeout: 3 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream: true, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return d.DialContext(ctx, "tcp", a) })},
	})
}
