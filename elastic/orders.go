package elastic

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shoal-project/shoal/internal/errs"
)

func idString(id uint64) string { return fmt.Sprintf("%x", id) }

// nothing is the answer to an order that has none.
type nothing struct{}

// orders answers what other machines of the cluster ask and the leader orders.
func (n *Node) orders() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+ordersPath+"ping", order(n.onPing))
	mux.Handle("POST "+ordersPath+"start", order(n.onStart))
	mux.Handle("POST "+ordersPath+"stop", order(n.onStop))
	mux.Handle("POST "+ordersPath+"about", order(n.onAbout))
	mux.Handle("POST "+ordersPath+"join", order(n.onJoin))
	return mux
}

// obey says whether an order of that epoch may be followed: never one of a cluster that was given up.
func (n *Node) obey(cluster string, epoch int64) error {
	id := n.identity()
	switch {
	case id == identity{}:
		return errs.NotFound("%s is in no cluster", n.cfg.Name)
	case epoch < id.Epoch:
		return errs.Conflict("%s follows a cluster of epoch %d, not of %d: that one was recovered", n.cfg.Name, id.Epoch, epoch)
	case epoch == id.Epoch && cluster != "" && id.Cluster != "" && cluster != id.Cluster:
		return errs.Conflict("%s is in the cluster %s, not in %s", n.cfg.Name, id.Cluster, cluster)
	}
	return nil
}

func (n *Node) onPing(_ context.Context, _ *http.Request, p ping) (Status, error) {
	if err := n.obey(p.Cluster, p.Epoch); err != nil {
		return Status{}, err
	}
	if id := n.identity(); p.Epoch > id.Epoch || id.Cluster == "" {
		if err := n.follow(p.Cluster, p.Epoch); err != nil {
			return Status{}, err
		}
	}
	if p.View != nil {
		n.setView(*p.View)
	}
	s := n.Status()
	if n.ctx.Err() != nil { // no copy runs because this machine stops: that must not be taken for a loss
		return Status{}, errs.Unavailable("%s stops", n.cfg.Name)
	}
	return s, nil
}

// follow gives this machine's copy up for a cluster that was recovered from another's.
func (n *Node) follow(cluster string, epoch int64) error {
	n.life.Lock()
	defer n.life.Unlock()
	id := n.identity()
	if epoch < id.Epoch || epoch == id.Epoch && id.Cluster != "" {
		return nil
	}
	again := id.Phase != spare
	id.Cluster, id.Epoch = cluster, epoch
	if !again {
		return n.keep(id)
	}
	n.log.Warn("the cluster was recovered from another machine's copy; this machine's is moved aside", "epoch", epoch)
	return n.becomeSpare(id)
}

func (n *Node) onStart(ctx context.Context, _ *http.Request, o startOrder) (Status, error) {
	if err := n.obey(o.Cluster, o.Epoch); err != nil {
		return Status{}, err
	}
	n.life.Lock()
	defer n.life.Unlock()
	id := n.identity()
	if id.Phase != spare {
		return Status{}, errs.Exists("%s has a copy of the database already", n.cfg.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := n.fetch(ctx, id, o); err != nil {
		n.log.Error("the database could not be copied to this machine", "err", err)
		if serr := n.becomeSpare(id); serr != nil {
			n.log.Error("this machine could not become a spare again", "err", serr)
		}
		return Status{}, errs.Unavailable("copy the database: %w", err)
	}
	poke(n.publish)
	return n.Status(), nil
}

// fetch starts an empty copy and waits until it has caught up. life is held.
func (n *Node) fetch(ctx context.Context, id identity, o startOrder) error {
	n.setStarting(true)
	defer n.setStarting(false)
	if err := n.cfg.aside(time.Now()); err != nil { // left over from a crash
		return err
	}
	id.Phase, id.Cluster, id.Epoch, id.Address, id.Token = joining, o.Cluster, o.Epoch, n.cfg.Address, ""
	m, err := n.run(id, o.Members)
	if err == nil {
		err = m.ready(ctx, o.Revision)
	}
	if err != nil {
		return err
	}
	id = m.withIDs(n.identity())
	id.Phase = member
	return n.keep(id)
}

func (n *Node) onStop(_ context.Context, _ *http.Request, o stopOrder) (nothing, error) {
	if err := n.obey("", o.Epoch); err != nil {
		return nothing{}, err
	}
	n.life.Lock()
	defer n.life.Unlock()
	id := n.identity()
	if id.Phase != spare {
		if o.Member == "" || o.Member != id.Member {
			return nothing{}, errs.Conflict("the member on %s is %q, not %q", n.cfg.Name, id.Member, o.Member)
		}
		if err := n.becomeSpare(id); err != nil {
			return nothing{}, err
		}
	}
	if !o.Forget {
		return nothing{}, nil
	}
	n.log.Info("this machine has left the cluster")
	return nothing{}, n.goIdle()
}

// onAbout answers from this machine's own copy, however old that is: whoever asks has none or may be wrong about its own.
func (n *Node) onAbout(ctx context.Context, _ *http.Request, q aboutQuestion) (aboutAnswer, error) {
	a := aboutAnswer{Status: n.Status()}
	view, _ := n.Members()
	a.Voters = view.voters()
	m := n.current()
	if m == nil {
		return a, nil
	}
	rec, _, ok, err := desk{m.client}.get(ctx, q.Name, clientv3.WithSerializable())
	if err != nil {
		return a, nil
	}
	a.Copy, a.Known = true, ok && rec.ID == q.ID
	if a.Known {
		a.Starts = rec.Starts
	}
	a.Voters = nil
	for _, o := range m.etcd.Server.Cluster().Members() {
		a.IDs = append(a.IDs, o.ID.String())
		if !o.IsLearner {
			a.Voters = append(a.Voters, address(o.PeerURLs))
		}
	}
	return a, nil
}

func address(urls []string) string {
	if len(urls) == 0 {
		return ""
	}
	return strings.TrimPrefix(urls[0], "https://")
}

// onJoin writes a new machine down. Its certificate says that it may have the name.
func (n *Node) onJoin(ctx context.Context, r *http.Request, rec record) (View, error) {
	if h := holder(r); h.Name != rec.Name {
		return View{}, errs.Forbidden("the certificate is for the machine %q, not %q", h.Name, rec.Name)
	}
	if !nodeName.MatchString(rec.Name) || rec.ID == "" || len(rec.value()) > 4096 {
		return View{}, errs.Invalid("the machine's record is not what it should be")
	}
	if n.identity() == (identity{}) {
		return View{}, errs.NotFound("%s is in no cluster", n.cfg.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, _, err := n.Client(ctx)
	if err != nil {
		return View{}, err
	}
	recs, _, _, _, err := desk{c}.everything(ctx)
	if err != nil {
		return View{}, errs.Unavailable("%w", err)
	}
	for _, o := range recs {
		if o.Name != rec.Name && o.Address == rec.Address {
			return View{}, errs.Exists("the machine %q has the address %s", o.Name, o.Address)
		}
	}
	if old, ok := recs[rec.Name]; ok && old.ID != rec.ID {
		var a aboutAnswer
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := n.caller.call(actx, old.Address, "about", aboutQuestion{}, &a)
		cancel()
		if err == nil && a.ID == old.ID {
			return View{}, errs.Exists("the name %q belongs to the machine at %s, which answers", old.Name, old.Address)
		}
		n.log.Warn("a machine joins anew under its name; what it had is replaced", "member", rec.Name, "was", old.Address)
	}
	_, rev, _, err := desk{c}.get(ctx, rec.Name)
	if err == nil {
		err = desk{c}.put(ctx, record{Name: rec.Name, ID: rec.ID, Address: rec.Address, Domain: rec.Domain}, rev)
	}
	if err != nil {
		return View{}, errs.Unavailable("%w", err)
	}
	v, _ := n.Members()
	id := n.identity()
	v.Cluster, v.Epoch = id.Cluster, id.Epoch
	if len(v.voters()) == 0 { // before the leader's first beat
		v.Members = []MemberInfo{{Name: n.cfg.Name, Address: n.cfg.Address, Role: Voter}}
	}
	return v, nil
}
