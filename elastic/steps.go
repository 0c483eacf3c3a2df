package elastic

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// changeTime bounds one change of membership: etcd drops a second one silently while another is under way, and the call hangs.
const changeTime = 5 * time.Second

// sameURL is how long after a removal the same address must not be added again: etcd makes ids of addresses and seconds.
const sameURL = 1100 * time.Millisecond

// do carries out a step.
func (c *controller) do(s Step, r record, id uint64, rev int64) error {
	switch s.Action {
	case AddStandby:
		return c.add(r, rev)
	case Promote:
		ctx, cancel := context.WithTimeout(c.ctx, changeTime)
		defer cancel()
		_, err := c.m.client.MemberPromote(ctx, id)
		return err
	case Remove:
		return c.remove(r, id)
	case MoveLeader:
		ctx, cancel := context.WithTimeout(c.ctx, changeTime)
		defer cancel()
		return c.m.etcd.Server.MoveLeader(ctx, uint64(c.m.etcd.Server.MemberID()), id)
	case Forget:
		return c.forget(r)
	}
	return fmt.Errorf("unknown step %q", s.Action)
}

// add makes a spare a standby: etcd is told first, then the machine, which answers when it has caught up. If it does not, it is taken back.
func (c *controller) add(r record, rev int64) error {
	if wait := time.Until(c.left[r.Address].Add(sameURL)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTime)
	res, err := c.m.client.MemberAddAsLearner(ctx, []string{"https://" + r.Address})
	cancel()
	if err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(c.ctx, startTime+time.Second)
	defer cancel()
	nudged := make(chan struct{})
	go func() {
		defer close(nudged)
		c.nudge(ctx)
	}()
	me := c.n.identity()
	var st Status
	err = c.n.caller.call(ctx, r.Address, "start", startOrder{Cluster: me.Cluster, Epoch: me.Epoch, Members: initialCluster(res.Members, res.Member.ID, r.Name), Revision: rev}, &st)
	cancel()
	<-nudged
	if err == nil {
		c.heard(r.Name, func(s *sighting) { s.last, s.silent, s.status = time.Now(), 0, st })
		return nil
	}
	ctx, cancel = context.WithTimeout(c.ctx, changeTime)
	defer cancel()
	if _, rerr := c.m.client.MemberRemove(ctx, res.Member.ID); rerr != nil {
		return fmt.Errorf("%w (and taking it back: %w)", err, rerr) // the next pass sees a standby that does not run
	}
	c.left[r.Address] = time.Now()
	return err
}

// nudge keeps raft's log moving while a machine joins: etcd sets the applied index of a machine that got its copy as a snapshot only with the next entry,
// and until then the machine spins in "too many requests".
func (c *controller) nudge(ctx context.Context) {
	for {
		_, _ = c.m.client.Put(ctx, nudgeKey, "") // the next one does as well
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// initialCluster is what etcd wants to be told of all members by the one that joins, itself and those without a name included.
func initialCluster(members []*etcdserverpb.Member, self uint64, name string) string {
	var out []string
	for _, m := range members {
		as := m.Name
		if m.ID == self {
			as = name
		} else if as == "" {
			as = "not-started-" + idString(m.ID)
		}
		for _, u := range m.PeerURLs {
			out = append(out, as+"="+u)
		}
	}
	return strings.Join(out, ",")
}

// remove takes a member out and tells its machine, which would find out by itself too.
func (c *controller) remove(r record, id uint64) error {
	ctx, cancel := context.WithTimeout(c.ctx, changeTime)
	defer cancel()
	if _, err := c.m.client.MemberRemove(ctx, id); err != nil {
		return err
	}
	c.left[r.Address] = time.Now()
	c.tell(ctx, r, stopOrder{Member: idString(id)})
	return nil
}

// forget ends a machine's part in the cluster.
func (c *controller) forget(r record) error {
	ctx, cancel := context.WithTimeout(c.ctx, changeTime)
	defer cancel()
	c.tell(ctx, r, stopOrder{Forget: true})
	_, err := c.m.client.Delete(ctx, nodesPrefix+r.Name)
	return err
}

// tell gives an order to a machine that may be dead: only one that has answered lately is waited for.
func (c *controller) tell(ctx context.Context, r record, o stopOrder) {
	c.mu.Lock()
	s := c.seen[r.Name]
	there := s != nil && !s.last.IsZero() && time.Since(s.last) < 2*time.Second+2*c.n.cfg.Ping
	c.mu.Unlock()
	if !there {
		return
	}
	o.Epoch = c.n.identity().Epoch
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := c.n.caller.call(ctx, r.Address, "stop", o, nil); err != nil {
		c.n.log.Debug("a machine could not be told that its member was removed; it will find out", "member", r.Name, "err", err)
		return
	}
	c.heard(r.Name, func(s *sighting) { s.status.Running, s.status.Member = false, "" })
}
