package elastic

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// publishing keeps what the cluster knows of this machine true: its address and domain, how often its copy was started.
func (n *Node) publishing() {
	again := time.NewTimer(0)
	defer again.Stop()
	wait := 100 * time.Millisecond
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.publish:
			wait = 100 * time.Millisecond
		case <-again.C:
		}
		ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
		err := n.publishNow(ctx)
		cancel()
		if err != nil && n.ctx.Err() == nil {
			n.log.Debug("the record of this machine could not be brought up to date; it is tried again", "err", err)
			again.Reset(wait)
			wait = min(2*wait, 5*time.Second)
		}
	}
}

func (n *Node) publishNow(ctx context.Context) error {
	id := n.identity()
	if id == (identity{}) || id.Cluster == "" && id.Phase == spare || id.Phase == joining || id.Phase == founding {
		return nil
	}
	c, _, err := n.Client(ctx)
	if err != nil {
		return err
	}
	if m := n.current(); m != nil {
		if err := n.publishAddress(ctx, m); err != nil {
			return err
		}
	}
	mine := n.ownRecord(id)
	if err := (desk{c}).found(ctx, mine); err != nil {
		return err
	}
	err = desk{c}.change(ctx, n.cfg.Name, func(r *record) bool {
		want := mine
		want.Leaving = r.Leaving
		same := *r == want
		if r.ID != mine.ID {
			n.log.Error("another machine has this one's name in the cluster", "address", r.Address)
			return false
		}
		*r = want
		return !same
	})
	if errs.IsNotFound(err) {
		return n.forgotten(id)
	}
	return err
}

// publishAddress changes the address under which the member is registered when the machine has moved.
func (n *Node) publishAddress(ctx context.Context, m *Member) error {
	s := m.etcd.Server
	for _, o := range s.Cluster().Members() {
		if o.ID != s.MemberID() || slices.Equal(o.PeerURLs, []string{m.cfg.peerURL()}) {
			continue
		}
		if _, err := m.client.MemberUpdate(ctx, uint64(o.ID), []string{m.cfg.peerURL()}); err != nil {
			return err
		}
		n.log.Info("this machine's address in the database was changed", "from", o.PeerURLs, "to", m.cfg.peerURL())
	}
	n.life.Lock()
	defer n.life.Unlock()
	if id := n.identity(); id.Address != n.cfg.Address && id.Phase == member {
		id.Address = n.cfg.Address
		return n.keep(id)
	}
	return nil
}

// forgotten ends this machine's part in a cluster that has no record of it. A copy that still runs is left to the leader.
func (n *Node) forgotten(seen identity) error {
	n.life.Lock()
	defer n.life.Unlock()
	if id := n.identity(); id.Phase != spare || id != seen {
		return nil
	}
	n.log.Warn("the cluster has removed this machine; it may join again")
	return n.goIdle()
}

// goIdle makes this machine one of no cluster. life is held, no copy runs.
func (n *Node) goIdle() error {
	if err := n.keep(identity{}); err != nil {
		return err
	}
	n.setRemote(nil)
	n.setView(View{})
	return nil
}
