package smoke_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/test/processes"
	"github.com/shoal-project/shoal/world"
)

// cloud is machines with a World each.
type cloud struct {
	*processes.Machines
	deploy int               // the newest
	last   map[string]sight  // what each saw last
	why    map[string]string // why that did not do
}

// up has a machine take part. Its process has just been started.
func (c *cloud) up(name string) {
	c.T.Helper()
	c.Must(name, "/world/up")
}

// untilAll waits until each of the machines sees what it should. Whatever they see on the way must be right, too.
func (c *cloud) untilAll(what string, names []string, ok func(s sight) string) {
	c.T.Helper()
	c.why = map[string]string{}
	defer func() {
		if c.T.Failed() {
			c.T.Logf("%s: %v", what, c.why)
		}
	}()
	took := c.Until(what, func() bool {
		for _, name := range names {
			var s sight
			text, err := c.Ask(name, fmt.Sprintf("/world/see?deploy=%d", c.deploy), 10*time.Second)
			if err == nil {
				err = json.Unmarshal([]byte(text), &s)
			}
			if err != nil {
				c.why[name] = err.Error()
				return false
			}
			c.last[name] = s
			c.check(name, s)
			if why := ok(s); why != "" {
				c.why[name] = why
				return false
			}
		}
		return true
	})
	c.T.Logf("%s after %v", what, took)
}

// check fails when a machine sees what never may be.
func (c *cloud) check(name string, s sight) {
	c.T.Helper()
	if len(s.Hosts) > 2 {
		c.T.Errorf("%s: the schedule has chosen %v", name, s.Hosts)
	}
	hidden := func(list []world.MachineInfo, of string) bool {
		return slices.ContainsFunc(list, func(m world.MachineInfo) bool { return m.Name == of && m.Hidden })
	}
	for _, m := range s.Before {
		_, seen := s.Exports[m.Name]
		if was, is := hidden(s.Before, m.Name), hidden(s.After, m.Name); was == is && was == seen {
			c.T.Errorf("%s: %s is hidden: %v; its exports are seen: %v", name, m.Name, was, seen)
		}
	}
	joined, left := map[uint64]int{}, map[uint64]int{}
	for _, e := range s.Events {
		switch e.Change {
		case world.MemberJoined:
			joined[e.ID]++
		case world.MemberLeft:
			left[e.ID]++
		}
		if joined[e.ID] > 1 || left[e.ID] > 1 {
			c.T.Errorf("%s: member %x came %d times and left %d times", name, e.ID, joined[e.ID], left[e.ID])
		}
	}
}

// told says which members there are for who believes the events.
func (s sight) told() (ids []uint64) {
	for _, e := range s.Events {
		switch e.Change {
		case "":
			if !e.Failed {
				ids = slices.Clone(e.All)
			}
		case world.MemberJoined:
			ids = append(ids, e.ID)
		case world.MemberLeft:
			ids = slices.DeleteFunc(ids, func(id uint64) bool { return id == e.ID })
		}
	}
	slices.Sort(ids)
	return ids
}

// count counts the events of a kind about a member.
func (s sight) count(change world.MemberChange, id uint64) (n int) {
	for _, e := range s.Events {
		if e.Change == change && e.ID == id {
			n++
		}
	}
	return n
}

// id is a member's in the database, 0 for none.
func (s sight) id(name string) uint64 {
	for _, m := range s.Members {
		if m.Name == name {
			return m.ID
		}
	}
	return 0
}

// same says what is missing until all that is there comes from these machines, those of them that are up have done the deploy, and the schedule has chosen two of them.
func same(of, up []string, text string) func(s sight) string {
	want, entries := map[string]string{}, map[string]string{}
	for _, n := range up {
		want[n] = "from " + n
	}
	for _, n := range of {
		entries[n] = "entry of " + n
	}
	return func(s sight) string {
		if fmt.Sprint(s.Exports) != fmt.Sprint(want) {
			return fmt.Sprintf("collects %v", s.Exports)
		}
		if fmt.Sprint(s.Entries) != fmt.Sprint(entries) {
			return fmt.Sprintf("the map has %v", s.Entries)
		}
		for _, n := range of {
			if state := s.Status[n]; slices.Contains(up, n) && state != world.DeployDone || !slices.Contains(up, n) && state != world.DeployPending {
				return fmt.Sprintf("the deploy is %v", s.Status)
			}
		}
		if s.File != text || s.String != text {
			return fmt.Sprintf("the file has %q, the string is %q", s.File, s.String)
		}
		if len(s.Hosts) != 2 || !slices.Contains(up, s.Hosts[0]) || !slices.Contains(up, s.Hosts[1]) {
			return fmt.Sprintf("the schedule has chosen %v", s.Hosts)
		}
		var ids []uint64
		for _, m := range s.Members {
			ids = append(ids, m.ID)
		}
		if told := s.told(); !slices.Equal(told, ids) {
			return fmt.Sprintf("told of members %x, there are %x", told, ids)
		}
		return ""
	}
}

// change makes a deploy, a file and a string at three machines.
func (c *cloud) change(at []string, text string) {
	c.T.Helper()
	c.deploy++
	q := url.QueryEscape
	c.Must(at[0], fmt.Sprintf("/world/deploy?id=%d&payload=%s", c.deploy, q("do "+text)))
	c.Must(at[1], "/world/write?data="+q(text))
	c.Must(at[len(at)-1], "/world/set?value="+q(text))
}

// agree waits until all see what same wants, and the same choice.
func (c *cloud) agree(what string, of, up []string, text string) (chosen []string) {
	c.T.Helper()
	missing := same(of, up, text)
	c.untilAll(what, up, func(s sight) string {
		if why := missing(s); why != "" {
			return why
		}
		if first := c.last[up[0]].Hosts; !slices.Equal(first, s.Hosts) {
			return fmt.Sprintf("%v have been chosen, for %s %v", s.Hosts, up[0], first)
		}
		return ""
	})
	return c.last[up[0]].Hosts
}

// TestWorld has machines see the same of everything, one of them that is chosen killed, and brought back.
func TestWorld(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	for n := 3; n <= 5; n++ {
		t.Run(fmt.Sprintf("%d machines", n), func(t *testing.T) { worldOf(t, []string{"h1", "h2", "h3", "h4", "h5"}[:n]) })
	}
}

func worldOf(t *testing.T, names []string) {
	c := &cloud{Machines: processes.New(t, cluster()), last: map[string]sight{}}
	for i, name := range names { // one by one: what the first sees of it is looked at
		c.Run(name)
		if i == 0 {
			c.Must(name, "/bootstrap")
		} else {
			c.Must(name, "/join?via="+c.All[names[0]].Config.Address)
		}
		c.up(name)
	}
	voters := len(names) - 1 + len(names)%2
	tally := fmt.Sprintf("%d voters, %d standbys, 0 spares", voters, len(names)-voters)
	c.UntilTally(names[0], tally)
	c.change(names, "one")
	chosen := c.agree("all see all", names, names, "one")
	for _, name := range names[1:] {
		if s := c.last[names[0]]; s.count(world.MemberJoined, s.id(name)) != 1 {
			t.Errorf("that %s joined was said %d times: %+v", name, s.count(world.MemberJoined, s.id(name)), s.Events)
		}
	}

	victim := chosen[1]
	if victim == names[0] {
		victim = chosen[0]
	}
	role, id := c.role(victim), c.last[names[0]].id(victim)
	rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == victim })
	c.Kill(victim)
	t.Logf("killed %s, a %s", victim, role)
	c.change(rest, "two")
	c.agree("the others go on without it", names, rest, "two")
	replaced := role == elastic.Voter && len(names) > voters // else nobody could take its vote, and it keeps it
	if replaced {
		c.untilAll("a standby has its vote", rest, func(s sight) string {
			if s.count(world.MemberLeft, id) == 0 || s.id(victim) != 0 {
				return fmt.Sprintf("members %v", s.Members)
			}
			return ""
		})
	}

	c.Run(victim)
	c.up(victim)
	c.change(names, "three")
	c.agree("it is back", names, names, "three")
	c.UntilTally(names[0], tally) // it may have been a spare, which sees everything too
	c.agree("it has a copy", names, names, "three")
	s := c.last[names[0]]
	now := s.id(victim)
	if replaced && (now == id || s.count(world.MemberLeft, id) != 1 || s.count(world.MemberJoined, now) != 1) {
		t.Errorf("%s was member %x and is %x: %+v", victim, id, now, s.Events)
	}

	c.Must(victim, "/leave")
	c.Kill(victim)
	c.change(rest, "four")
	c.untilAll("it has left", rest, func(s sight) string {
		if s.id(victim) != 0 || s.count(world.MemberLeft, now) != 1 {
			return fmt.Sprintf("members %v, events %+v", s.Members, s.Events)
		}
		return ""
	})
	c.agree("the others go on without it for good", names, rest, "four")
	for name, m := range c.All {
		if strings.Contains(m.Log.String(), "panic:") {
			t.Errorf("%s panicked", name)
		}
	}
}

func (c *cloud) role(name string) elastic.Role {
	for _, m := range c.View(name).Members {
		if m.Name == name {
			return m.Role
		}
	}
	return elastic.Spare
}
