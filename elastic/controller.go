package elastic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// controller brings the cluster to the wanted roles, on the leader and for as long as it leads. It decides by what is there now, never by what has happened:
// whatever it misses, or leaves half done when it dies, the next pass or the next leader sees.
type controller struct {
	n      *Node
	m      *Member
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	seen     map[string]*sighting // by name of the machine
	view     View
	versions int

	left map[string]time.Time // when a member with that address was removed
	said string               // the last failure, to say it once
}

// sighting is what is known of a machine. A new leader knows nothing: until Offline has passed nobody is dead.
type sighting struct {
	rec    record
	last   time.Time     // of its last answer; zero: none yet
	silent time.Duration // for which it was asked and has not answered; the time in which this process did not run is none of it
	status Status
	orders int // sent; an answer to a question from before the last order is not listened to
	kick   chan struct{}
	stop   context.CancelFunc
}

// control runs a controller while this machine leads.
func (n *Node) control() {
	t := time.NewTicker(n.cfg.Ping)
	defer t.Stop()
	var c *controller
	defer func() { c.end() }()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.wake:
		case <-t.C:
		}
		m := n.current()
		if m != nil && (!m.leads() || m.stopped() || n.identity().Phase != member) {
			m = nil
		}
		if c != nil && c.m != m {
			c.end()
			c = nil
		}
		if m == nil {
			continue
		}
		if c == nil {
			n.log.Info("this machine leads the database")
			c = n.lead(m)
		}
		for c.pass() && m.leads() && c.ctx.Err() == nil {
		}
	}
}

func (n *Node) lead(m *Member) *controller {
	c := &controller{n: n, m: m, seen: map[string]*sighting{}, left: map[string]time.Time{}}
	c.ctx, c.cancel = context.WithCancel(n.ctx)
	c.wg.Go(c.watch)
	return c
}

func (c *controller) end() {
	if c != nil {
		c.cancel()
		c.wg.Wait()
	}
}

// watch wakes the controller when a record or a target changes.
func (c *controller) watch() {
	for c.ctx.Err() == nil {
		for r := range c.m.client.Watch(clientv3.WithRequireLeader(c.ctx), Prefix, clientv3.WithPrefix()) {
			if slices.ContainsFunc(r.Events, func(e *clientv3.Event) bool { return string(e.Kv.Key) != nudgeKey }) {
				poke(c.n.wake)
			}
		}
		select {
		case <-time.After(c.n.cfg.Ping):
		case <-c.ctx.Done():
		}
	}
}

// pass looks and does one step; true when the next should follow at once.
func (c *controller) pass() bool {
	ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
	recs, voters, standbys, rev, err := desk{c.m.client}.everything(ctx)
	cancel()
	if err != nil {
		return c.failed("read the machines' records", err)
	}
	targets, problem := ParseTargets(voters, standbys, c.n.cfg.Targets)
	c.attendTo(recs)
	members := c.m.etcd.Server.Cluster().Members()
	now := time.Now()
	ps, ids := c.peers(recs, members, now)
	c.setView(ps, recs, targets, problem)
	step := Decide(ps, targets)
	if step.Action == None {
		c.said = ""
		return false
	}
	begin := time.Now()
	if err := c.do(step, recs[step.Name], ids[step.Name], rev); err != nil {
		return c.failed(fmt.Sprintf("%s %s", step.Action, step.Name), err)
	}
	c.said = ""
	c.n.log.Info("the database's machines change", "do", string(step.Action), "member", step.Name, "why", step.Why, "took", time.Since(begin).Round(time.Millisecond))
	return true
}

// failed says so, once for each kind, and has it tried again soon.
func (c *controller) failed(what string, err error) bool {
	if errors.Is(rpctypes.Error(err), rpctypes.ErrUnhealthy) { // after each change etcd waits for five quiet seconds
		c.n.log.Debug("a change of the database's machines has to wait", "do", what, "err", err)
	} else if text := what + ": " + err.Error(); text != c.said && c.ctx.Err() == nil {
		c.said = text
		c.n.log.Warn("a change of the database's machines failed; it is tried again", "do", what, "err", err)
	}
	select {
	case <-time.After(200 * time.Millisecond):
		poke(c.n.wake)
	case <-c.ctx.Done():
	}
	return false
}

// peers puts together what Decide needs, and the ids of the members by name. A member without a record belongs to nobody and has to go.
func (c *controller) peers(recs map[string]record, members []*membership.Member, now time.Time) ([]Peer, map[string]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byName := map[string]*membership.Member{}
	for _, m := range members {
		name := m.Name
		if _, ok := recs[name]; !ok || name == "" {
			name = "?" + m.ID.String()
			for _, r := range recs { // a member has no name before its first start
				if r.Address == address(m.PeerURLs) {
					name = r.Name
				}
			}
		}
		byName[name] = m
	}
	var out []Peer
	ids := map[string]uint64{}
	for name, m := range byName {
		ids[name] = uint64(m.ID)
		if _, ok := recs[name]; !ok {
			out = append(out, c.peer(record{Name: name, Leaving: true}, m, now))
		}
	}
	for _, r := range recs {
		out = append(out, c.peer(r, byName[r.Name], now))
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return out, ids
}

func (c *controller) peer(r record, m *membership.Member, now time.Time) Peer {
	p := Peer{Name: r.Name, Domain: r.Domain, Leaving: r.Leaving}
	var id string
	if m != nil {
		p.Role, id = Voter, m.ID.String()
		if m.IsLearner {
			p.Role = Standby
		}
	}
	if r.Name == c.n.cfg.Name {
		p.Online, p.Fresh, p.Running, p.Leader = true, true, true, true
		return p
	}
	s := c.seen[r.Name]
	if s == nil {
		return p
	}
	p.Online = s.silent < c.n.cfg.Offline
	if s.last.IsZero() {
		p.Running = true
		return p
	}
	p.Fresh = now.Sub(s.last) < max(2*time.Second, 2*c.n.cfg.Ping)
	p.Running = s.status.Running && (s.status.Member == "" || s.status.Member == id)
	return p
}

// setView tells every machine what the cluster looks like, if that has changed.
func (c *controller) setView(ps []Peer, recs map[string]record, t Targets, problem error) {
	id := c.n.identity()
	v := View{Cluster: id.Cluster, Epoch: id.Epoch, Targets: t}
	if problem != nil {
		v.Problem = problem.Error()
	}
	for _, p := range ps {
		if r, ok := recs[p.Name]; ok {
			v.Members = append(v.Members, MemberInfo{Name: p.Name, Address: r.Address, Domain: p.Domain, Role: p.Role, Online: p.Online, Leader: p.Leader, Leaving: p.Leaving})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v.Version = c.view.Version
	if v.Version != "" && reflect.DeepEqual(v, c.view) {
		return
	}
	if problem != nil && v.Problem != c.view.Problem {
		c.n.log.Warn("the wanted size of the database is not valid, the default is used", "err", problem)
	}
	c.versions++
	v.Version = fmt.Sprintf("%s/%d/%d", c.n.cfg.Name, c.m.etcd.Server.Term(), c.versions)
	c.view = v
	c.n.setView(v)
	for _, s := range c.seen {
		poke(s.kick)
	}
}

// attendTo has each machine asked, and only those that have a record.
func (c *controller) attendTo(recs map[string]record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.seen {
		if r, ok := recs[name]; !ok || r.Address != s.rec.Address || r.ID != s.rec.ID {
			s.stop()
			delete(c.seen, name)
		}
	}
	for name, r := range recs {
		if c.seen[name] != nil || name == c.n.cfg.Name {
			continue
		}
		ctx, cancel := context.WithCancel(c.ctx)
		s := &sighting{rec: r, kick: make(chan struct{}, 1), stop: cancel}
		c.seen[name] = s
		c.wg.Go(func() { c.ask(ctx, s) })
	}
}

// ask pings a machine until ctx ends.
func (c *controller) ask(ctx context.Context, s *sighting) {
	const patience = time.Second
	before := time.Now()
	for {
		id := c.n.identity()
		c.mu.Lock()
		p, orders := ping{Cluster: id.Cluster, Epoch: id.Epoch}, s.orders
		if v := c.view; v.Version != s.status.Seen && v.Version != "" {
			p.View = &v
		}
		c.mu.Unlock()
		var st Status
		pctx, cancel := context.WithTimeout(ctx, patience)
		err := c.n.caller.call(pctx, s.rec.Address, "ping", p, &st)
		cancel()
		now := time.Now()
		c.mu.Lock()
		if err == nil && st.ID == s.rec.ID {
			if s.orders == orders {
				if now.Sub(s.last) > 2*c.n.cfg.Ping || s.status.Running != st.Running || s.status.Member != st.Member {
					poke(c.n.wake)
				}
				s.status = st
			}
			s.last, s.silent = now, 0
		} else if s.silent += asked(now.Sub(before), c.n.cfg.Ping, patience); s.silent >= c.n.cfg.Offline {
			poke(c.n.wake)
		}
		c.mu.Unlock()
		before = now
		select {
		case <-time.After(c.n.cfg.Ping):
		case <-s.kick:
		case <-ctx.Done():
			return
		}
	}
}

// asked is how much of the time between two answers that did not come counts: where it is far longer than a question can take, this process did not run.
func asked(elapsed, pause, patience time.Duration) time.Duration {
	if elapsed > 2*(pause+patience) {
		return pause
	}
	return elapsed
}

// heard takes the answer to an order for the machine's state.
func (c *controller) heard(name string, change func(*sighting)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.seen[name]; s != nil {
		s.orders++
		change(s)
	}
}
