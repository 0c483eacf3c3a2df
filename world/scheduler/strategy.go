package scheduler

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// Strategy says who is chosen among the candidates. All are pure functions of what stands in the store, the result before included;
// no computer remembers anything.
type Strategy string

// The strategies. "Minimal" means that hosts which were chosen and still may be stay chosen, and as many come as places are free.
const (
	// RoundRobin gives each free place to the one who has waited longest. Minimal. A host that was lost queues anew.
	RoundRobin Strategy = "round-robin"
	// Alphabetical takes the first names. A newcomer with a lower name takes the place of the highest.
	Alphabetical Strategy = "alphabetical"
	// LeastLoaded gives each free place to the one with the lowest load; of equals to the one that serves fewer schedules. Minimal
	// unless the spec has a Margin.
	LeastLoaded Strategy = "least-loaded"
	// Spread keeps the failure domains' numbers of hosts as equal as their candidates allow. Minimal, but for the moves that equal
	// numbers need. Candidates without the label form one domain.
	Spread Strategy = "spread"
	// Weighted chooses by rendezvous hashing over the schedule's and the hosts' names: a host is the first choice of a share of
	// all schedules in proportion to its weight. A newcomer displaces at most one.
	Weighted Strategy = "weighted"
)

// Strategies lists all of them.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, Alphabetical, LeastLoaded, Spread, Weighted}
}

func (s Strategy) known() bool { return slices.Contains(Strategies(), s) }

func strategyNames() string {
	var names []string
	for _, s := range Strategies() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// Input is what a choice is made from.
type Input struct {
	Schedule   string
	Spec       Spec
	Candidates []Candidate    // in any order; those that are not eligible are not looked at
	Previous   []string       // the result before, in its order
	Places     map[string]int // by host: in how many other schedules it is chosen
}

// Choose returns who is chosen: a part of the eligible candidates without repetition, at most Max. The order is that in which they came,
// for alphabetical by name, for weighted by preference.
func Choose(in Input) []string {
	c := newChoice(in)
	switch in.Spec.Strategy {
	case Alphabetical:
		c.take(func(a, b *Candidate) int { return cmp.Compare(a.Host, b.Host) })
	case Weighted:
		c.take(func(a, b *Candidate) int {
			return cmp.Or(cmp.Compare(distance(in.Schedule, a), distance(in.Schedule, b)), cmp.Compare(a.Host, b.Host))
		})
	case LeastLoaded:
		c.leastLoaded(in)
	case Spread:
		c.spread(cmp.Or(in.Spec.Domain, DefaultDomain))
	default:
		c.keep()
		c.fill(waited)
	}
	out := make([]string, len(c.chosen))
	for i, h := range c.chosen {
		out[i] = h.Host
	}
	return out
}

// choice is one being made: every eligible candidate is in one of the two lists.
type choice struct {
	max     int
	chosen  []*Candidate // in the order of the result
	waiting []*Candidate
}

// newChoice begins with those who were chosen, and may be, as chosen.
func newChoice(in Input) *choice {
	c := &choice{max: in.Spec.Max}
	if c.max == 0 {
		c.max = MaxHosts
	}
	eligible := map[string]*Candidate{}
	for i := range in.Candidates {
		if cand := &in.Candidates[i]; in.Spec.Eligible(*cand) == "" {
			eligible[cand.Host] = cand
		}
	}
	for _, h := range in.Previous {
		if cand := eligible[h]; cand != nil {
			c.chosen = append(c.chosen, cand)
			delete(eligible, h)
		}
	}
	for _, cand := range eligible {
		c.waiting = append(c.waiting, cand)
	}
	slices.SortFunc(c.waiting, waited)
	return c
}

// waited orders by how long a candidate has taken part; hosts that joined in one transaction by name.
func waited(a, b *Candidate) int {
	return cmp.Or(cmp.Compare(a.Joined, b.Joined), cmp.Compare(a.Host, b.Host))
}

// keep drops the last ones that are over the maximum.
func (c *choice) keep() {
	if len(c.chosen) > c.max {
		c.waiting = append(c.waiting, c.chosen[c.max:]...)
		c.chosen = c.chosen[:c.max]
	}
}

// fill gives the free places to the first of those who wait.
func (c *choice) fill(order func(a, b *Candidate) int) {
	slices.SortFunc(c.waiting, order)
	n := min(c.max-len(c.chosen), len(c.waiting))
	c.chosen = append(c.chosen, c.waiting[:n]...)
	c.waiting = c.waiting[n:]
}

// take chooses the first of all, whoever was chosen before.
func (c *choice) take(order func(a, b *Candidate) int) {
	c.waiting = append(c.waiting, c.chosen...)
	c.chosen = nil
	c.fill(order)
}

func (c *choice) leastLoaded(in Input) {
	order := func(a, b *Candidate) int {
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(in.Places[a.Host], in.Places[b.Host]), waited(a, b))
	}
	for len(c.chosen) > c.max {
		c.drop(c.most(order))
	}
	c.fill(order)
	for in.Spec.Margin > 0 && len(c.waiting) > 0 && len(c.chosen) > 0 {
		slices.SortFunc(c.waiting, order)
		i := c.most(order)
		if c.chosen[i].Load-c.waiting[0].Load <= in.Spec.Margin {
			return
		}
		c.chosen[i], c.waiting[0] = c.waiting[0], c.chosen[i]
	}
}

// most returns which of the chosen comes last in the order; of equals the one that came last.
func (c *choice) most(order func(a, b *Candidate) int) int {
	best := 0
	for i := range c.chosen {
		if order(c.chosen[i], c.chosen[best]) >= 0 {
			best = i
		}
	}
	return best
}

func (c *choice) drop(i int) {
	c.waiting = append(c.waiting, c.chosen[i])
	c.chosen = slices.Delete(c.chosen, i, i+1)
}

// spread drops from the fullest domains, fills the emptiest, then moves while that makes the numbers more equal.
func (c *choice) spread(label string) {
	count := map[string]int{}
	for _, h := range c.chosen {
		count[h.Labels[label]]++
	}
	fullest := func() int { // the last that came of the domain with the most
		best := 0
		for i, h := range c.chosen {
			if count[h.Labels[label]] >= count[c.chosen[best].Labels[label]] {
				best = i
			}
		}
		return best
	}
	emptiest := func() int { // the first that waits of the domain with the fewest
		best := 0
		for i, h := range c.waiting {
			if count[h.Labels[label]] < count[c.waiting[best].Labels[label]] {
				best = i
			}
		}
		return best
	}
	drop := func(i int) {
		count[c.chosen[i].Labels[label]]--
		c.drop(i)
		slices.SortFunc(c.waiting, waited)
	}
	add := func(i int) {
		count[c.waiting[i].Labels[label]]++
		c.chosen = append(c.chosen, c.waiting[i])
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	for len(c.chosen) > c.max {
		drop(fullest())
	}
	for len(c.chosen) < c.max && len(c.waiting) > 0 {
		add(emptiest())
	}
	for len(c.waiting) > 0 && len(c.chosen) > 0 {
		out, in := fullest(), emptiest()
		if count[c.chosen[out].Labels[label]]-count[c.waiting[in].Labels[label]] < 2 {
			return
		}
		add(in)
		drop(out)
	}
}

// distance is an exponentially distributed number with the weight as its rate, the same for everybody: the least of several is a
// candidate's with the probability of its share of the weights (weighted rendezvous hashing, Schindelhauer and Schomaker 2005).
func distance(schedule string, c *Candidate) float64 {
	sum := sha256.Sum256([]byte(schedule + "\x00" + c.Host))
	u := (float64(binary.BigEndian.Uint64(sum[:8])>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -math.Log(u) / float64(max(c.Weight, 1))
}
