package elastic

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shoal-project/shoal/internal/errs"
)

// Times of the life of a copy.
const (
	startTime    = 20 * time.Second        // a copy must have arrived in it
	handoverTime = 1500 * time.Millisecond // for all candidates
	candidate    = 700 * time.Millisecond  // for one
)

// boot does what the identity says. Nothing is served yet but the port.
func (n *Node) boot(ctx context.Context) error {
	n.life.Lock()
	defer n.life.Unlock()
	id := n.identity()
	defer n.setStarting(false)
	if id.Phase == restoring {
		var err error
		if id, err = n.finishRestore(id); err != nil {
			return err
		}
	}
	whole := id.Member != "" && (id.Phase == member || id.Phase == "")
	switch {
	case id.Phase == spare:
		n.setRemote(n.peers.Voters)
		return nil
	case id.Phase == joining:
		n.log.Warn("the copy of the database was not complete, it is fetched again when the leader says so")
		return n.becomeSpare(id)
	case !whole:
		n.log.Warn("the first start of the database was interrupted, this machine is in no cluster")
		if err := n.cfg.aside(time.Now()); err != nil {
			return err
		}
		return n.keep(identity{})
	case !n.cfg.hasData() && len(n.others()) > 0:
		n.log.Error("this machine's copy of the database is gone; the cluster has others")
		return n.becomeSpare(id)
	case !n.cfg.hasData():
		return errs.Unavailable("the data of the database is gone from %s: restore a snapshot", n.cfg.data())
	}
	return n.resume(ctx, id)
}

// resume starts the copy that is there, if the others do not say that it is worth nothing. life is held.
func (n *Node) resume(ctx context.Context, id identity) error {
	switch v, about := n.judge(ctx, id); v {
	case superseded:
		n.log.Warn("the cluster was recovered while this machine was away; its copy is moved aside", "epoch", about.Epoch)
		id.Cluster, id.Epoch = about.Cluster, about.Epoch
		return n.becomeSpare(id)
	case outdated:
		n.log.Error("this machine's copy is older than what the cluster has seen of it: was a disk restored? It is moved aside", "starts", id.Starts, "seen", about.Starts)
		id.Starts = about.Starts
		return n.becomeSpare(id)
	case removed:
		n.log.Warn("this machine's copy was removed from the database while it was away; it is moved aside", "member", id.Member)
		return n.becomeSpare(id)
	}
	if id.Node == "" { // was alone until now
		id.Node = newID()
	}
	id.Phase = member
	_, err := n.run(id, "")
	return err
}

func (n *Node) setStarting(is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.starting = is
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// run starts a copy and lets it be reached. It does not wait for it. life is held.
func (n *Node) run(id identity, others string) (*Member, error) {
	id.Starts++
	if err := n.keep(id); err != nil {
		return nil, err
	}
	m, err := startMember(n.cfg.Config, id, others)
	if err != nil {
		return nil, fmt.Errorf("start the database: %w", err)
	}
	n.port.attach(m)
	n.setMember(m)
	n.wg.Go(func() { n.attend(m) })
	return m, nil
}

// attend waits for the member to be ready, for its leaders to change, and for its end, which somebody else may have brought about.
func (n *Node) attend(m *Member) {
	n.wg.Go(func() { // may take long: seven seconds where the copy came as a snapshot, for ever without a majority
		if m.ready(n.ctx, 0) == nil {
			n.noteIDs(m)
			poke(n.publish)
		}
	})
	for {
		poke(n.wake)
		select {
		case <-m.etcd.Server.LeaderChangedNotify():
			n.newLeader()
		case <-m.Done():
			n.fallen(m)
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// fallen picks a copy up that has stopped by itself: because it was removed, or because of its disk.
func (n *Node) fallen(m *Member) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		n.life.Lock()
		if cur := n.current(); n.ctx.Err() != nil || cur != nil && cur != m || cur == nil && n.identity().Phase != member {
			n.life.Unlock()
			return
		}
		n.setStarting(wait == time.Second) // a copy that does not start at once is worth as much as none
		n.takeDown(n.ctx)
		ctx, cancel := context.WithTimeout(n.ctx, startTime)
		err := n.resume(ctx, n.identity())
		cancel()
		n.setStarting(false)
		n.life.Unlock()
		if err == nil {
			return
		}
		n.log.Error("the copy of the database stopped by itself and does not start; it is tried again", "err", err, "after", wait)
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return
		}
	}
}

// takeDown stops the copy, if one runs; a leader hands over before. life is held.
func (n *Node) takeDown(ctx context.Context) {
	m := n.current()
	if m == nil {
		return
	}
	n.port.detachClients()
	n.socket.drop()
	hctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handoverTime)
	if err := m.handOver(hctx); err != nil {
		n.log.Warn("nobody took over as leader; the others elect one", "err", err)
	}
	cancel()
	n.setMember(nil)
	m.kill()
	n.port.detach()
}

// handOver makes another voter the leader, if this member is it and there is another.
func (m *Member) handOver(ctx context.Context) error {
	s := m.etcd.Server
	err := error(nil)
	for _, o := range s.Cluster().Members() {
		if m.stopped() || s.Leader() != s.MemberID() || ctx.Err() != nil {
			break
		}
		if o.ID == s.MemberID() || o.IsLearner {
			continue
		}
		c, cancel := context.WithTimeout(ctx, candidate)
		err = s.MoveLeader(c, uint64(s.MemberID()), uint64(o.ID))
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// becomeSpare stops the copy, moves its data aside and keeps what else id says. life is held.
func (n *Node) becomeSpare(id identity) error {
	n.takeDown(n.ctx)
	id.Phase, id.Member = spare, ""
	if id.Node == "" {
		id.Node = newID()
	}
	// The phase first: after a crash in between the data is moved aside by the next copy.
	if err := n.keep(id); err != nil {
		return err
	}
	if err := n.cfg.aside(time.Now()); err != nil {
		return err
	}
	n.mu.Lock()
	voters := n.peers.Voters
	n.mu.Unlock()
	n.setRemote(voters)
	poke(n.publish)
	return nil
}

// Bootstrap makes this machine the first of a new cluster and returns when the database takes writes. It is never done without being asked for. After a
// crash the machine is in no cluster, or in the new one.
func (n *Node) Bootstrap(ctx context.Context) error {
	n.life.Lock()
	defer n.life.Unlock()
	if n.identity() != (identity{}) {
		return errs.Exists("this machine is in a cluster already")
	}
	id := newIdentity(n.cfg.Name)
	id.Node, id.Phase, id.Address = newID(), founding, n.cfg.Address
	m, err := n.run(id, "")
	if err == nil {
		err = m.ready(ctx, 0)
	}
	if err == nil {
		id = m.withIDs(n.identity())
		id.Phase = member
		err = n.keep(id)
	}
	if err == nil {
		err = desk{m.client}.found(ctx, n.ownRecord(id))
	}
	if err != nil {
		n.takeDown(n.ctx)
		return errors.Join(fmt.Errorf("bootstrap the database: %w", err), n.cfg.aside(time.Now()), n.keep(identity{}))
	}
	poke(n.wake)
	return nil
}

func (n *Node) ownRecord(id identity) record {
	return record{Name: n.cfg.Name, ID: id.Node, Address: n.cfg.Address, Domain: n.cfg.Domain, Starts: id.Starts}
}

// Join makes this machine a spare of the cluster that the machines at the addresses via belong to; its leader gives it a role at once when one is needed. It
// may be called again after an error.
func (n *Node) Join(ctx context.Context, via ...string) error {
	n.life.Lock()
	defer n.life.Unlock()
	id := n.identity()
	switch {
	case len(via) == 0:
		return errs.Invalid("joining a cluster needs the address of one of its machines")
	case id == identity{}:
		id = identity{Name: n.cfg.Name, Node: newID(), Phase: spare}
	case id.Phase != spare:
		return errs.Exists("this machine is in a cluster already")
	}
	if err := n.keep(id); err != nil {
		return err
	}
	v, err := n.apply(ctx, n.ownRecord(id), via)
	if err == nil {
		id.Cluster, id.Epoch = v.Cluster, v.Epoch
		if err := n.keep(id); err != nil {
			return err
		}
		n.setView(v)
		poke(n.publish)
		return nil
	}
	if id.Cluster == "" { // never was in it
		err = errors.Join(err, n.keep(identity{}))
	}
	return fmt.Errorf("join the cluster: %w", err)
}

// apply asks the machines at via, one after the other and three times, to write this one down. One that says why it will not is believed.
func (n *Node) apply(ctx context.Context, rec record, via []string) (v View, err error) {
	for range 3 {
		var all error
		for _, a := range via {
			err := n.caller.call(ctx, a, "join", rec, &v)
			if err == nil {
				return v, nil
			}
			all = errors.Join(all, err)
			if c := errs.ClassOf(err); c != errs.UnavailableClass && c != errs.Internal && c != errs.NotFoundClass {
				return v, err
			}
		}
		err = all
		select {
		case <-time.After(300 * time.Millisecond): // a machine changes its role, a leader is elected
		case <-ctx.Done():
			return v, err
		}
	}
	return v, err
}

// Leave takes this machine out of the cluster in an orderly way: others take its vote and its leadership first. It returns when the cluster has forgotten
// the machine, whose data is moved aside. The last machine cannot leave.
func (n *Node) Leave(ctx context.Context) error {
	if n.identity() == (identity{}) {
		return nil
	}
	if err := n.Remove(ctx, n.cfg.Name); err != nil && !errs.IsNotFound(err) {
		return err
	}
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for {
		n.mu.Lock()
		idle, changed := n.id == identity{}, n.changed
		n.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-changed:
		case <-look.C: // the leader that knew this machine may be gone
			poke(n.publish)
		case <-n.ctx.Done():
			return errs.Unavailable("the database was closed while this machine was leaving")
		case <-ctx.Done():
			return errs.Unavailable("leaving is not finished; it goes on: %w", context.Cause(ctx))
		}
	}
}

// Remove tells the cluster that a machine leaves, dead or alive. It returns when that is written down; the leader does the rest when that is safe.
func (n *Node) Remove(ctx context.Context, name string) error {
	return n.retry(ctx, func(c *clientv3.Client) error {
		recs, _, _, _, err := desk{c}.everything(ctx)
		if err != nil {
			return fmt.Errorf("remove machine %q: %w", name, err)
		}
		if _, ok := recs[name]; ok && len(recs) == 1 {
			return errs.Invalid("%q is the last machine of the cluster, nobody would have the database", name)
		}
		if err := (desk{c}).change(ctx, name, func(r *record) bool { was := r.Leaving; r.Leaving = true; return !was }); err != nil {
			return fmt.Errorf("remove machine %q: %w", name, err)
		}
		return nil
	})
}

// SetTargets changes how many voters and standbys are wanted.
func (n *Node) SetTargets(ctx context.Context, t Targets) error {
	if err := t.check(); err != nil {
		return err
	}
	return n.retry(ctx, func(c *clientv3.Client) error {
		_, err := c.Txn(ctx).Then(clientv3.OpPut(SizeKey, fmt.Sprint(t.Voters)), clientv3.OpPut(StandbysKey, fmt.Sprint(t.Standbys))).Commit()
		if err != nil {
			return fmt.Errorf("set the number of voters and standbys: %w", err)
		}
		return nil
	})
}

// Snapshot writes the database to a file, as [Member.Snapshot]. This machine must have a copy: a standby's spares the voters the work.
func (n *Node) Snapshot(ctx context.Context, path string) error {
	m := n.current()
	if m == nil {
		return errs.Unavailable("no copy of the database runs on this machine")
	}
	return m.Snapshot(ctx, path)
}

// MoveLeader makes another voter the leader if this machine is it.
func (n *Node) MoveLeader(ctx context.Context) error {
	m := n.current()
	if m == nil || !m.leads() {
		return nil
	}
	if err := m.handOver(ctx); err != nil {
		return errs.Unavailable("hand over as leader: %w", err)
	}
	return nil
}

func (m *Member) stopped() bool {
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

func (m *Member) leads() bool {
	s := m.etcd.Server
	return s.Leader() == s.MemberID()
}
