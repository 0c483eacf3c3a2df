package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

// NodeConfig says how a machine takes part in a cluster. All but Targets, Domain, API, Ping, Offline and Socket must be set.
type NodeConfig struct {
	// Config of the member, when this machine has one. Of Tick and Election 0 means 100 ms and 1 s; 50 ms and 500 ms suit a local network
	// with solid disks. They must be the same on all machines. Name must be the name in the certificate.
	Config
	Listener net.Listener // the machine's one port; it belongs to the node, which closes it
	Address  string       // host:port under which the others reach it; it may change from one start to the next
	Domain   string       // failure domain; voters are spread over them
	Certs    pki.Files
	API      http.Handler // serves what comes to the port and is not the database's

	Targets Targets       // until the keys say otherwise; zero means 3 voters and 2 standbys
	Ping    time.Duration // how often the leader asks each machine; 0 means 1 s
	Offline time.Duration // after how long without an answer a machine counts as dead; 0 means 20 s
	Socket  string        // path of a unix socket, for root only, on which etcdctl can be used where a copy runs; "" is none
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

func (c NodeConfig) withDefaults() (NodeConfig, error) {
	if c.Tick == 0 {
		c.Tick, c.Election = 100*time.Millisecond, time.Second
	}
	var err error
	if c.Config, err = c.Config.withDefaults(); err != nil {
		return c, err
	}
	if !nodeName.MatchString(c.Name) {
		return c, errs.Invalid("machine name %q: must have 1 to 63 letters, digits, dots, dashes and underscores, and begin and end with a letter or digit", c.Name)
	}
	if host, p, err := net.SplitHostPort(c.Address); err != nil || host == "" || p == "" || p == "0" {
		return c, errs.Invalid("machine address %q: must be HOST:PORT under which the other machines reach it", c.Address)
	}
	if c.Listener == nil {
		return c, errs.Invalid("a machine of a cluster needs a listener")
	}
	if err := c.Certs.Check(); err != nil {
		return c, err
	}
	if c.Targets == (Targets{}) {
		c.Targets = Targets{Voters: 3, Standbys: 2}
	}
	if err := c.Targets.check(); err != nil {
		return c, err
	}
	if c.Ping == 0 {
		c.Ping = time.Second
	}
	if c.Offline == 0 {
		c.Offline = 20 * time.Second
	}
	if c.Offline < 2*c.Ping {
		return c, errs.Invalid("a machine must not count as dead after %v when it is asked every %v", c.Offline, c.Ping)
	}
	c.address, c.certs = c.Address, c.Certs
	return c, nil
}

// Node is this machine's part in the database of a cluster, whatever its role. Safe for concurrent use.
type Node struct {
	cfg    NodeConfig
	log    *slog.Logger
	port   *port
	socket *socket
	caller caller

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	wake    chan struct{} // the controller should look again
	publish chan struct{} // the own record should be looked at

	life sync.Mutex // held while the role changes; taken before mu

	mu       sync.Mutex
	id       identity // zero: idle, part of no cluster
	member   *Member
	starting bool
	view     View
	peers    peers
	session  *session
	writes   context.Context // see Writes
	lost     context.CancelFunc
	changed  chan struct{} // closed and replaced when view, role or client change
}

// peers are the addresses that a start without any copy begins with. They are hints.
type peers struct {
	Voters []string `json:"voters"`
	All    []string `json:"all"`
}

// Open starts this machine's part as it was left: with a copy of the database it starts that, once it is sure that the copy is still wanted;
// a spare waits for orders; a machine that is in no cluster does nothing until [Node.Bootstrap] or [Node.Join]. It does not wait for a
// majority: without one the machine can be looked at and recovered. A data directory that the cluster has no use for is moved aside, never deleted.
func Open(ctx context.Context, cfg NodeConfig) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, caller: newCaller(cfg.Certs), wake: make(chan struct{}, 1), publish: make(chan struct{}, 1), changed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.newLeader()
	n.loadPeers()
	id, ok, err := cfg.loadIdentity()
	if err != nil {
		return nil, err
	}
	if !ok && cfg.hasData() {
		return nil, errs.Invalid("%s holds a database but %s is missing", cfg.data(), cfg.identityFile())
	}
	if ok {
		n.id, n.starting = id, id.Phase != spare
	}
	if cfg.Socket != "" {
		if n.socket, err = listenSocket(cfg.Socket, n.current); err != nil {
			return nil, err
		}
	}
	n.port = newPort(cfg.Listener, cfg.Certs, n.orders(), cfg.API)
	if ok {
		if err := n.boot(ctx); err != nil {
			n.Close(ctx)
			return nil, err
		}
	}
	n.wg.Go(n.control)
	n.wg.Go(n.publishing)
	return n, nil
}

// Close stops this machine's part and changes no membership: a leader hands over first, for at most 1.5 s.
func (n *Node) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.once.Do(func() {
			n.cancel()
			n.life.Lock()
			n.takeDown(ctx)
			n.life.Unlock()
			n.setRemote(nil)
			n.port.close()
			n.socket.close()
			n.wg.Wait()
			n.caller.close()
		})
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// current returns the running member or nil.
func (n *Node) current() *Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

func (n *Node) identity() identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

// keep writes the identity down and then goes by it. A zero identity is that of an idle machine.
func (n *Node) keep(id identity) error {
	var err error
	if id == (identity{}) {
		if err = os.Remove(n.cfg.identityFile()); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = syncDir(n.cfg.Dir)
		}
	} else {
		id.Format = clusterFormat
		err = n.cfg.save(id)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.id = id
	n.notify()
	return nil
}

// notify tells waiters that something has changed; n.mu is held.
func (n *Node) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status returns what this machine knows of itself. It asks nobody.
func (n *Node) Status() Status {
	n.mu.Lock()
	id, m, starting, seen := n.id, n.member, n.starting, n.view.Version
	n.mu.Unlock()
	s := Status{Name: n.cfg.Name, ID: id.Node, Member: id.Member, Cluster: id.Cluster, Epoch: id.Epoch, Running: starting || m != nil, Seen: seen}
	if m == nil {
		return s
	}
	h := m.Health()
	s.Role, s.Member, s.Cluster = Voter, h.Member, h.Cluster
	if m.etcd.Server.IsLearner() {
		s.Role = Standby
	}
	s.Leader, s.Quorum, s.Term, s.Applied, s.Revision = h.IsLeader, h.HasLeader, h.Term, h.Applied, h.Revision
	return s
}

// Health returns the state of this machine's copy, false when it has none.
func (n *Node) Health() (Health, bool) {
	if m := n.current(); m != nil {
		return m.Health(), true
	}
	return Health{}, false
}

// Members returns the cluster as the leader saw it last, and a channel that is closed when that, or this machine's own role, has changed. It asks nobody:
// without a leader it is as old as the leader's last beat. Do not change what it returns.
func (n *Node) Members() (View, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view, n.changed
}

func (n *Node) setView(v View) {
	var all []string
	for _, m := range v.Members {
		all = append(all, m.Address)
	}
	p := peers{Voters: v.voters(), All: all}
	n.mu.Lock()
	if was, is := n.view.leader(), v.leader(); was != "" && is != was && n.member == nil {
		n.newLeaderLocked() // a machine with a copy knows by itself
	}
	n.view = v
	moved := !slices.Equal(p.Voters, n.peers.Voters) || !slices.Equal(p.All, n.peers.All)
	n.peers = p
	n.notify()
	n.mu.Unlock()
	if moved {
		n.savePeers(p)
		n.setRemote(p.Voters)
	}
}

func (n *Node) peersFile() string { return filepath.Join(n.cfg.Dir, "peers.json") }

func (n *Node) loadPeers() {
	b, err := os.ReadFile(n.peersFile())
	if err == nil {
		err = json.Unmarshal(b, &n.peers)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("the addresses of the other machines cannot be read; the leader will bring them", "err", err)
	}
}

func (n *Node) savePeers(p peers) {
	b, err := json.Marshal(p)
	if err == nil {
		err = writeFile(n.peersFile(), b)
	}
	if err != nil {
		n.log.Warn("the addresses of the other machines could not be kept", "err", err)
	}
}

// others returns the addresses of the other machines.
func (n *Node) others() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.peers.All), func(a string) bool { return a == n.cfg.Address })
}
