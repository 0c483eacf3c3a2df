package elastic

import (
	"cmp"
	"slices"
)

// Role is what a machine does for the database. Raft's membership is the only record of it.
type Role int

// The roles.
const (
	Spare   Role = iota // no copy of the data; uses the voters' over the network
	Standby             // a raft learner: a copy of the data, no vote
	Voter               // a raft voter
)

// String returns the role's name: "spare", "standby" or "voter".
func (r Role) String() string {
	return [...]string{"spare", "standby", "voter"}[min(max(r, 0), 2)]
}

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; what it does not know is a spare.
func (r *Role) UnmarshalText(b []byte) error {
	*r = Role(max(0, slices.Index([]string{"spare", "standby", "voter"}, string(b))))
	return nil
}

// Targets says how many machines should have which role, as far as there are enough of them.
type Targets struct {
	Voters   int `json:"voters"`   // 1, 3, 5 or 7
	Standbys int `json:"standbys"` // 0 to 5
}

// maxLearners bounds the machines that copy the database at one time: six that become voters at once, and one.
const maxLearners = 7

// Peer is what the leader knows of a machine when it decides.
type Peer struct {
	Name, Domain string
	Role         Role
	Online       bool // answered within the time after which it counts as dead, or has not been watched for that long
	Fresh        bool // answered in the last two seconds; only such a machine is given something to do
	Running      bool // its last answer said that it runs (or just starts) its copy
	Leader       bool
	Leaving      bool // has asked to leave, or was removed by an operator
}

// live says whether the machine's copy works.
func (p Peer) live() bool { return p.Role != Spare && p.Online && !p.lost() }

// lost says that the machine is there and its copy is not.
func (p Peer) lost() bool { return p.Role != Spare && p.Fresh && !p.Running }

// Action is the kind of a Step.
type Action string

// The actions. Each is one change of raft's membership, or none of it.
const (
	None       Action = ""
	AddStandby Action = "add as standby"
	Promote    Action = "promote to voter"
	Remove     Action = "remove from the database"
	MoveLeader Action = "hand leadership to"
	Forget     Action = "forget"
)

// Step is the next thing to do. The zero Step is nothing.
type Step struct {
	Action Action
	Name   string // of the machine
	Why    string
}

// Decide returns the next step towards the targets, at most one change of membership, or nothing when all is as it should be, must wait,
// or cannot be changed because too few voters live. It never leaves an even number of voters standing when it can do something about
// it, never takes the majority away, and never removes the leader. From "Role algorithm" of go-dqlite (what LXD does) it differs in the order that raft
// with learners asks for: etcd adds nobody while a voter is dead, but removes the dead one at once.
func Decide(peers []Peer, t Targets) Step {
	d := newDecision(peers, t)
	if len(d.voters) == 0 || len(d.live) < quorum(len(d.voters)) {
		return Step{}
	}
	for _, rule := range []func() Step{d.broken, d.departed, d.grow, d.even, d.odd, d.standby, d.spread, d.surplus} {
		if s := rule(); s.Action != None || s.Why != "" {
			return s
		}
	}
	return Step{}
}

func quorum(voters int) int { return voters/2 + 1 }

func odd(n int) int { return max(1, n-1+n%2) }

type decision struct {
	t                        Targets
	voters, standbys, spares []Peer // spares: those that could do more
	live                     []Peer // voters whose copy works
	ready                    []Peer // standbys that may be promoted
	gone                     []Peer // spares that leave
	wanted                   int    // voters, of those that there are
}

func newDecision(peers []Peer, t Targets) *decision {
	d := &decision{t: t}
	peers = slices.SortedFunc(slices.Values(peers), func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	staying := 0
	for _, p := range peers {
		switch p.Role {
		case Voter:
			d.voters = append(d.voters, p)
			if p.live() {
				d.live = append(d.live, p)
			}
		case Standby:
			d.standbys = append(d.standbys, p)
			if p.live() && p.Fresh && !p.Leaving {
				d.ready = append(d.ready, p)
			}
		default:
			if p.Leaving {
				d.gone = append(d.gone, p)
			} else if p.Fresh {
				d.spares = append(d.spares, p)
				staying++
			}
			continue
		}
		if p.live() && !p.Leaving {
			staying++
		}
	}
	d.wanted = odd(min(t.Voters, staying))
	return d
}

// broken removes standbys that are none, and the records of those that have left. Neither can hurt the majority.
func (d *decision) broken() Step {
	for _, p := range d.standbys {
		switch {
		case p.lost():
			return Step{Remove, p.Name, "its copy does not run"}
		case !p.Online:
			return Step{Remove, p.Name, "it does not answer"}
		case p.Leaving:
			return Step{Remove, p.Name, "it leaves"}
		}
	}
	if len(d.gone) > 0 {
		return Step{Forget, d.gone[0].Name, "it leaves"}
	}
	return Step{}
}

// departed sees to voters that are dead or leave.
func (d *decision) departed() Step {
	dead := len(d.voters) - len(d.live)
	replacements := len(d.ready) + len(d.spares)
	for _, p := range d.voters {
		// Without a replacement a dead voter stays: it may come back with its copy, and its removal would gain nothing. Two
		// dead ones go, because then fewer voters can lose one more. One that has lost its copy replaces itself.
		if p.live() || !d.safe(p) || replacements == 0 && dead < 2 && !p.Leaving && !p.lost() {
			continue
		}
		why := "it does not answer, and others can take its place"
		if p.lost() {
			why = "its copy is lost"
		}
		return Step{Remove, p.Name, why}
	}
	for _, p := range d.voters {
		if !p.Leaving || !p.live() {
			continue
		}
		switch {
		case len(d.voters) == 1 && len(d.ready) > 0:
			return Step{Promote, d.best(d.ready).Name, "the only voter leaves"}
		case len(d.voters) == 1 && len(d.standbys) == 0 && len(d.spares) > 0:
			return Step{AddStandby, d.best(d.spares).Name, "the only voter leaves"}
		case p.Leader:
			if to, ok := d.heir(); ok {
				return Step{MoveLeader, to.Name, "the leader leaves"}
			}
		case d.safe(p):
			return Step{Remove, p.Name, "it leaves"}
		}
	}
	return Step{}
}

// safe says whether a majority of voters lives on without p.
func (d *decision) safe(p Peer) bool {
	live := len(d.live)
	if p.live() {
		live--
	}
	return !p.Leader && len(d.voters) > 1 && live >= quorum(len(d.voters)-1)
}

// heir returns the voter to lead after the leader.
func (d *decision) heir() (Peer, bool) {
	for _, p := range d.live {
		if !p.Leader && !p.Leaving && p.Fresh {
			return p, true
		}
	}
	return Peer{}, false
}

// grow adds all standbys that will be needed while there is one voter: with more, etcd lets five seconds pass after each change.
func (d *decision) grow() Step {
	if len(d.voters) == 1 && d.wanted > 1 && len(d.spares) > 0 && len(d.standbys) < min(d.wanted-1+d.t.Standbys, maxLearners) {
		return Step{AddStandby, d.best(d.spares).Name, "the database grows"}
	}
	return Step{}
}

// even leaves an even number of voters as soon as possible.
func (d *decision) even() Step {
	if len(d.voters)%2 != 0 {
		return Step{}
	}
	if len(d.voters) < d.t.Voters && !slices.ContainsFunc(d.voters, func(p Peer) bool { return p.Leaving }) {
		switch {
		case len(d.ready) > 0:
			return Step{Promote, d.best(d.ready).Name, "an odd number of voters is wanted"}
		case len(d.standbys) > 0:
			return Step{Why: "a standby catches up"}
		case len(d.spares) > 0:
			return Step{AddStandby, d.best(d.spares).Name, "an odd number of voters is wanted"}
		}
	}
	return d.demote("an odd number of voters is wanted")
}

// odd changes an odd number of voters by two.
func (d *decision) odd() Step {
	switch {
	case len(d.voters) > d.t.Voters:
		return d.demote("there are more voters than wanted")
	case len(d.voters) >= d.wanted:
		return Step{}
	case len(d.ready) >= 2:
		return Step{Promote, d.best(d.ready).Name, "more voters are wanted"}
	case len(d.standbys) < 2 && len(d.spares) > 0:
		return Step{AddStandby, d.best(d.spares).Name, "more voters are wanted"}
	}
	return Step{Why: "a standby catches up"}
}

// demote takes a voter away: a dead one, else one of the domain that has the most, never the leader.
func (d *decision) demote(why string) Step {
	var victim Peer
	for _, p := range d.voters {
		if !d.safe(p) {
			continue
		}
		switch n, m := count(d.voters, p.Domain), count(d.voters, victim.Domain); {
		case victim.Name == "", victim.live() && !p.live():
			victim = p
		case victim.live() == p.live() && n >= m:
			victim = p
		}
	}
	if victim.Name == "" {
		return Step{}
	}
	return Step{Remove, victim.Name, why}
}

func (d *decision) standby() Step {
	if len(d.standbys) < min(d.t.Standbys, maxLearners) && len(d.spares) > 0 {
		return Step{AddStandby, d.best(d.spares).Name, "more standbys are wanted"}
	}
	return Step{}
}

// spread brings a failure domain without a voter in for one that has two. Each time the number of domains with a voter grows, so it comes
// to an end.
func (d *decision) spread() Step {
	if len(d.live) != len(d.voters) || !slices.ContainsFunc(d.voters, func(p Peer) bool { return !p.Leader && count(d.voters, p.Domain) > 1 }) {
		return Step{}
	}
	fresh := func(p Peer) bool { return count(d.voters, p.Domain) == 0 }
	const why = "its failure domain has no voter and another has two"
	if i := slices.IndexFunc(d.ready, fresh); i >= 0 {
		return Step{Promote, d.ready[i].Name, why}
	}
	if slices.ContainsFunc(d.standbys, fresh) {
		return Step{Why: "a standby catches up"}
	}
	if i := slices.IndexFunc(d.spares, fresh); i >= 0 && len(d.standbys) < maxLearners {
		return Step{AddStandby, d.spares[i].Name, why}
	}
	return Step{}
}

func (d *decision) surplus() Step {
	if len(d.standbys) <= d.t.Standbys {
		return Step{}
	}
	all := slices.Concat(d.voters, d.standbys)
	worst := d.standbys[0]
	for _, p := range d.standbys {
		if count(all, p.Domain) >= count(all, worst.Domain) {
			worst = p
		}
	}
	return Step{Remove, worst.Name, "there are more standbys than wanted"}
}

// best picks from candidates, which are not empty: a domain with the fewest voters, among those with the fewest standbys, then by name.
func (d *decision) best(candidates []Peer) Peer {
	return slices.MinFunc(candidates, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(count(d.voters, a.Domain), count(d.voters, b.Domain)),
			cmp.Compare(count(d.standbys, a.Domain), count(d.standbys, b.Domain)), cmp.Compare(a.Name, b.Name))
	})
}

func count(peers []Peer, domain string) (n int) {
	for _, p := range peers {
		if p.Domain == domain {
			n++
		}
	}
	return n
}
