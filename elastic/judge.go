package elastic

import (
	"context"
	"slices"
	"sync"
	"time"
)

// verdict is what the others say of the copy on this machine's disk.
type verdict int

const (
	wanted     verdict = iota // or nobody knows better
	superseded                // the cluster was recovered without it
	outdated                  // the disk has an older state than the cluster has seen
	removed                   // it is no member any more
)

// weigh judges a copy by what others know. removed is a suspicion: the one who says so may be behind.
func weigh(id identity, answers []aboutAnswer) (verdict, aboutAnswer) {
	for _, a := range answers {
		if a.Epoch > id.Epoch && a.Cluster != "" && a.Cluster != id.Cluster {
			return superseded, a
		}
	}
	for _, a := range answers {
		if a.Copy && a.Cluster == id.Cluster && a.Known && a.Starts > id.Starts {
			return outdated, a
		}
	}
	for _, a := range answers {
		if a.Copy && a.Cluster == id.Cluster && !slices.Contains(a.IDs, id.Member) {
			return removed, a
		}
	}
	return wanted, aboutAnswer{}
}

// judge asks the others what they know of this machine's copy, for at most a second. That it was removed must be confirmed by a majority.
func (n *Node) judge(ctx context.Context, id identity) (verdict, aboutAnswer) {
	others := n.others()
	answers := make([]aboutAnswer, len(others))
	ctx1, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i, a := range others {
		wg.Go(func() {
			var r aboutAnswer
			if n.caller.call(ctx1, a, "about", aboutQuestion{Name: n.cfg.Name, ID: id.Node}, &r) == nil {
				answers[i] = r
			}
		})
	}
	wg.Wait()
	v, a := weigh(id, answers)
	if v == removed && !n.confirmRemoved(ctx, id, a.Voters) {
		return wanted, a
	}
	return v, a
}

func (n *Node) confirmRemoved(ctx context.Context, id identity, voters []string) bool {
	voters = slices.DeleteFunc(slices.Clone(voters), func(a string) bool { return a == n.cfg.Address })
	if len(voters) == 0 {
		return false
	}
	c, err := dial(voters, n.cfg.Certs)
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	r, err := c.MemberList(ctx)
	if err != nil {
		n.log.Warn("nobody could confirm that this machine's copy was removed; it is started", "err", err)
		return false
	}
	for _, m := range r.Members {
		if idString(m.ID) == id.Member {
			return false
		}
	}
	return true
}
