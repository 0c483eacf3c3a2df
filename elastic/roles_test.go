package elastic_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/elastic"
)

// peers reads machines from words: a role letter (V voter, L leader, S standby, - spare), a name, then marks:
// x offline, ~ not fresh, 0 runs no copy, ! leaves, and @domain.
func peers(text string) (out []elastic.Peer) {
	for w := range strings.FieldsSeq(text) {
		w, domain, _ := strings.Cut(w, "@")
		p := elastic.Peer{Name: w[1:2], Domain: domain, Online: true, Fresh: true, Running: w[0] != '-'}
		p.Role = map[byte]elastic.Role{'V': elastic.Voter, 'L': elastic.Voter, 'S': elastic.Standby, '-': elastic.Spare}[w[0]]
		p.Leader = w[0] == 'L'
		for _, m := range w[2:] {
			switch m {
			case 'x':
				p.Online, p.Fresh = false, false
			case '~':
				p.Fresh = false
			case '0':
				p.Running = false
			case '!':
				p.Leaving = true
			}
		}
		out = append(out, p)
	}
	return out
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name, peers      string
		voters, standbys int
		want             string // action and name; "" nothing
	}{
		{"alone", "La", 3, 2, ""},
		{"two machines: one voter, one standby", "La -b", 3, 2, "add as standby b"},
		{"two machines, done", "La Sb", 3, 2, ""},
		{"two machines, no standbys wanted", "La -b", 3, 0, ""},
		{"third machine", "La Sb -c", 3, 2, "add as standby c"},
		{"growth adds all learners first", "La Sb Sc -d", 3, 2, "add as standby d"},
		{"then promotes", "La Sb Sc", 3, 0, "promote to voter b"},
		{"leaves two voters", "La Vb Sc", 3, 0, "promote to voter c"},
		{"never promotes what did not answer", "La Sb Sc~", 3, 2, ""},
		{"two voters and a standby that is not ready", "La Vb Sc~", 3, 2, ""},
		{"two voters and nobody else", "La Vb", 3, 2, "remove from the database b"},
		{"two voters, a spare", "La Vb -c", 3, 2, "add as standby c"},
		{"stable", "La Vb Vc Sd Se -f", 3, 2, ""},
		{"fourth is a standby", "La Vb Vc -d", 3, 2, "add as standby d"},
		{"dead voter without replacement stays", "La Vb Vcx", 3, 2, ""},
		{"dead voter goes before its replacement comes", "La Vb Vcx Sd", 3, 2, "remove from the database c"},
		{"a spare is a replacement too", "La Vb Vcx -d", 3, 2, "remove from the database c"},
		{"a voter whose disk was wiped", "La Vb Vc0 Sd", 3, 2, "remove from the database c"},
		{"and who is its own replacement", "La Vb Vc0", 3, 2, "remove from the database c"},
		{"replacement", "La Vb Sd", 3, 2, "promote to voter d"},
		{"two of five dead, nobody to replace them", "La Vb Vc Vdx Vex", 5, 2, "remove from the database d"},
		{"and the second", "La Vb Vc Vex", 5, 2, "remove from the database e"},
		{"one of five dead, nobody to replace it", "La Vb Vc Vd Vex", 5, 2, ""},
		{"no majority: hands off", "La Vbx Vcx Sd", 3, 2, ""},
		{"dead standby", "La Vb Vc Sdx -e", 3, 1, "remove from the database d"},
		{"standby that failed to start", "La Sb0 -c", 3, 2, "remove from the database b"},
		{"smaller: not the leader", "La Vb Vc Vd Ve", 3, 0, "remove from the database e"},
		{"smaller: the dead one first", "La Vbx Vc Vd Ve", 3, 0, "remove from the database b"},
		{"smaller: four are even", "La Vb Vc Vd -e", 3, 0, "remove from the database d"},
		{"larger", "La Vb Vc Sd Se", 5, 0, "promote to voter d"},
		{"larger, one candidate only", "La Vb Vc Sd", 5, 1, ""},
		{"too many standbys", "La Vb Vc Sd Se", 3, 1, "remove from the database e"},
		{"leader leaves: another leads first", "La! Vb Vc Sd", 3, 2, "hand leadership to b"},
		{"voter leaves", "La Vb! Vc Sd", 3, 2, "remove from the database b"},
		{"only voter leaves", "La! Sb", 3, 2, "promote to voter b"},
		{"only voter leaves, two voters now", "La! Vb", 3, 2, "hand leadership to b"},
		{"only voter leaves, the other leads", "Va! Lb", 3, 2, "remove from the database a"},
		{"only voter leaves, a spare is there", "La! -b", 3, 0, "add as standby b"},
		{"only voter leaves, nobody is there", "La!", 3, 2, ""},
		{"spare leaves", "La -b!", 3, 2, "forget b"},
		{"dead machine is removed for good", "La Vb Vcx!", 3, 2, "remove from the database c"},
		{"domains: the best standby is promoted", "La@x Sb@x Sc@y Sd@z", 3, 1, "promote to voter c"},
		{"domains: swap one in", "La@x Vb@x Vc@y Sd@z", 3, 1, "promote to voter d"},
		{"domains: and one out", "La@x Vb@x Vc@y Vd@z", 3, 1, "remove from the database b"},
		{"domains: a spare is brought in", "La@x Vb@x Vc@y Sd@y -e@z", 3, 1, "add as standby e"},
		{"domains: standbys spread", "La@x Vb@y Vc@z -d@x -e@w", 3, 1, "add as standby e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := elastic.Decide(peers(tt.peers), elastic.Targets{Voters: tt.voters, Standbys: tt.standbys})
			got := strings.TrimSpace(string(s.Action) + " " + s.Name)
			if got != tt.want {
				t.Errorf("%q (%s), want %q", got, s.Why, tt.want)
			}
			if got != "" && s.Why == "" {
				t.Error("no reason given")
			}
		})
	}
}

// apply does to the machines what a step asks for, as etcd would.
func apply(t *rapid.T, ps []elastic.Peer, s elastic.Step) []elastic.Peer {
	i := slices.IndexFunc(ps, func(p elastic.Peer) bool { return p.Name == s.Name })
	if i < 0 {
		t.Fatalf("step for a machine that is not there: %+v", s)
	}
	p := &ps[i]
	switch s.Action {
	case elastic.AddStandby:
		if p.Role != elastic.Spare || !p.Fresh || p.Leaving {
			t.Fatalf("%+v of %+v", s, p)
		}
		p.Role, p.Running = elastic.Standby, true
	case elastic.Promote:
		if p.Role != elastic.Standby || !p.Fresh || !p.Running {
			t.Fatalf("%+v of %+v", s, p)
		}
		p.Role = elastic.Voter
	case elastic.Remove:
		if p.Role == elastic.Spare || p.Leader {
			t.Fatalf("%+v of %+v", s, p)
		}
		p.Role, p.Running = elastic.Spare, false
	case elastic.MoveLeader:
		if p.Role != elastic.Voter || !p.Online {
			t.Fatalf("%+v of %+v", s, p)
		}
		for j := range ps {
			ps[j].Leader = j == i
		}
	case elastic.Forget:
		if p.Role != elastic.Spare || !p.Leaving {
			t.Fatalf("%+v of %+v", s, p)
		}
		ps = slices.Delete(ps, i, i+1)
	}
	return ps
}

func tally(ps []elastic.Peer) (voters, live int) {
	for _, p := range ps {
		if p.Role == elastic.Voter {
			voters++
			if p.Online && p.Running {
				live++
			}
		}
	}
	return voters, live
}

// TestDecideConverges starts from any state that has a majority: whatever the steps, the majority stays, they come to an end, and at the end
// the number of voters is odd and as high as it can be.
func TestDecideConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ps []elastic.Peer
		for i := range rapid.IntRange(1, 12).Draw(t, "machines") {
			p := elastic.Peer{Name: fmt.Sprintf("%02d", i), Domain: rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "domain"),
				Role: elastic.Role(rapid.IntRange(0, 2).Draw(t, "role"))}
			p.Online = rapid.IntRange(0, 4).Draw(t, "online") > 0
			p.Fresh = p.Online
			p.Running = p.Role != elastic.Spare && (!p.Online || rapid.IntRange(0, 9).Draw(t, "running") > 0)
			p.Leaving = rapid.IntRange(0, 9).Draw(t, "leaving") == 0
			if p.Role != elastic.Spare && i == 0 {
				p.Role = elastic.Voter
			}
			ps = append(ps, p)
		}
		ps[0].Role, ps[0].Online, ps[0].Fresh, ps[0].Running, ps[0].Leader, ps[0].Leaving = elastic.Voter, true, true, true, true, false
		targets := elastic.Targets{Voters: rapid.SampledFrom([]int{1, 3, 5, 7}).Draw(t, "voters"), Standbys: rapid.IntRange(0, 5).Draw(t, "standbys")}
		if v, l := tally(ps); l < v/2+1 {
			if s := elastic.Decide(ps, targets); s.Action != elastic.None {
				t.Fatalf("%+v without a majority", s)
			}
			return
		}
		steps := 0
		for ; ; steps++ {
			before, _ := tally(ps)
			s := elastic.Decide(ps, targets)
			if s.Action == elastic.None {
				break
			}
			ps = apply(t, ps, s)
			v, l := tally(ps)
			if l < v/2+1 {
				t.Fatalf("%+v took the majority: %d of %d", s, l, v)
			}
			if v-before > 1 || before-v > 1 || steps > 60 {
				t.Fatalf("step %d, %+v: %d voters, then %d: %+v", steps, s, before, v, ps)
			}
		}
		voters, live := tally(ps)
		staying := 0
		for _, p := range ps {
			if p.Fresh && !p.Leaving {
				staying++
			}
		}
		want := min(targets.Voters, staying-1+staying%2)
		if voters%2 == 0 || voters > targets.Voters && voters == live || live < want && voters == live {
			t.Fatalf("at rest with %d voters, %d live, %d wanted: %+v", voters, live, want, ps)
		}
	})
}
