package scheduler_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/scheduler"
)

// hosts makes candidates of words such as "a", "b:load=3", "c:zone=z1", "d:weight=5", "e:draining"; who stands first joined first.
func hosts(words string) []scheduler.Candidate {
	var out []scheduler.Candidate
	for i, w := range strings.Fields(words) {
		name, rest, _ := strings.Cut(w, ":")
		c := scheduler.Candidate{Host: name, Joined: int64(100 + i), Facts: scheduler.Facts{Labels: map[string]string{}}}
		for _, o := range strings.Split(rest, ",") {
			switch k, v, _ := strings.Cut(o, "="); k {
			case "load":
				fmt.Sscan(v, &c.Load)
			case "weight":
				fmt.Sscan(v, &c.Weight)
			case "draining":
				c.Draining = true
			case "":
			default:
				c.Labels[k] = v
			}
		}
		out = append(out, c)
	}
	return out
}

func TestChoose(t *testing.T) {
	type spec = scheduler.Spec
	for _, tt := range []struct {
		name       string
		spec       spec
		candidates string
		previous   string
		want       string
	}{
		{"the first come", spec{Strategy: "round-robin", Max: 2}, "c b a", "", "c b"},
		{"a lower newcomer does not preempt", spec{Strategy: "round-robin", Max: 2}, "c b a", "c b", "c b"},
		{"the longest waiting replaces", spec{Strategy: "round-robin", Max: 2}, "c d a", "b c", "c d"},
		{"all", spec{Strategy: "round-robin"}, "c b a", "", "c b a"},
		{"a lower maximum keeps the first", spec{Strategy: "round-robin", Max: 1}, "a b c", "b c", "b"},
		{"who drains goes", spec{Strategy: "round-robin", Max: 1}, "a:draining b", "a", "b"},
		{"nobody", spec{Strategy: "round-robin", Max: 1}, "a:draining", "a", ""},
		{"first names", spec{Strategy: "alphabetical", Max: 2}, "c b a", "c b", "a b"},
		{"lowest load", spec{Strategy: "least-loaded", Max: 2}, "a:load=3 b:load=1 c:load=2", "", "b c"},
		{"load alone moves nobody", spec{Strategy: "least-loaded", Max: 1}, "a:load=9 b", "a", "a"},
		{"unless by the margin", spec{Strategy: "least-loaded", Max: 1, Margin: 5}, "a:load=9 b", "a", "b"},
		{"not within the margin", spec{Strategy: "least-loaded", Max: 1, Margin: 9}, "a:load=9 b", "a", "a"},
		{"a lower maximum drops the most loaded", spec{Strategy: "least-loaded", Max: 1}, "a:load=9 b:load=1", "b a", "b"},
		{"one of each zone", spec{Strategy: "spread", Max: 2}, "a:zone=x b:zone=x c:zone=y", "", "a c"},
		{"a new zone takes one over", spec{Strategy: "spread", Max: 2}, "a:zone=x b:zone=x c:zone=y", "a b", "a c"},
		{"equal as far as can be", spec{Strategy: "spread", Max: 3}, "a:zone=x b:zone=x c:zone=x d:zone=y", "", "a d b"},
		{"another label", spec{Strategy: "spread", Max: 2, Domain: "rack"}, "a:rack=1 b:rack=1 c:rack=2", "", "a c"},
		{"no label is a zone", spec{Strategy: "spread", Max: 2}, "a b c:zone=y", "", "a c"},
		{"a lower maximum takes from the fullest", spec{Strategy: "spread", Max: 2}, "a:zone=x b:zone=x c:zone=y", "a b c", "a c"},
		{"filter by name", spec{Strategy: "round-robin", Hosts: []string{"b", "web*"}}, "a b web1 db1", "", "b web1"},
		{"filter by exclusion", spec{Strategy: "round-robin", Exclude: []string{"web[12]"}}, "web1 web2 web3", "web1", "web3"},
		{"filter by label", spec{Strategy: "round-robin", Labels: map[string]string{"disk": "ssd"}}, "a:disk=ssd b:disk=hdd c", "", "a"},
		{"all filters", spec{Strategy: "round-robin", Hosts: []string{"w?"}, Exclude: []string{"w2"}, Labels: map[string]string{"d": "1"}},
			"w1:d=1 w2:d=1 w3 w44:d=1", "", "w1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.spec.Check(); err != nil {
				t.Fatal(err)
			}
			got := scheduler.Choose(scheduler.Input{Schedule: "s", Spec: tt.spec, Candidates: hosts(tt.candidates), Previous: strings.Fields(tt.previous)})
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v, want %s", got, tt.want)
			}
		})
	}
}

func TestLeastLoadedBreaksTiesByPlaces(t *testing.T) {
	in := scheduler.Input{Spec: scheduler.Spec{Strategy: scheduler.LeastLoaded, Max: 1}, Candidates: hosts("a b"), Places: map[string]int{"a": 1}}
	if got := scheduler.Choose(in); !slices.Equal(got, []string{"b"}) {
		t.Error(got)
	}
}

func TestWeightedShares(t *testing.T) {
	in := scheduler.Input{Spec: scheduler.Spec{Strategy: scheduler.Weighted, Max: 1}, Candidates: hosts("a b:weight=2 c:weight=5")}
	n := map[string]float64{}
	const schedules = 20000
	for i := range schedules {
		in.Schedule = fmt.Sprint("s", i)
		n[scheduler.Choose(in)[0]]++
	}
	for h, want := range map[string]float64{"a": 1.0 / 8, "b": 2.0 / 8, "c": 5.0 / 8} {
		if got := n[h] / schedules; math.Abs(got-want) > 0.02 {
			t.Errorf("%s is chosen for %.3f of the schedules, want %.3f", h, got, want)
		}
	}
}

// TestChooseProperties drives each strategy through random histories, the way the store drives it: always from the result before.
func TestChooseProperties(t *testing.T) {
	for _, strategy := range scheduler.Strategies() {
		t.Run(string(strategy), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { history(t, strategy) })
		})
	}
}

func history(t *rapid.T, strategy scheduler.Strategy) {
	spec := scheduler.Spec{Strategy: strategy, Max: rapid.IntRange(0, 6).Draw(t, "max")}
	there := map[string]scheduler.Candidate{}
	var prev []string
	for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
		host := rapid.SampledFrom(strings.Fields("a b c d e f g h i j")).Draw(t, "host")
		c, known := there[host]
		resized := false
		switch rapid.IntRange(0, 9).Draw(t, "op") {
		case 0:
			resized = true
			spec.Max = rapid.IntRange(0, 6).Draw(t, "max")
		case 1:
			if known {
				c.Draining = true
				there[host] = c
			}
		default:
			if known {
				delete(there, host)
				break
			}
			there[host] = scheduler.Candidate{Host: host, Joined: int64(step + 1), Facts: scheduler.Facts{
				Labels: map[string]string{"zone": rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "zone")},
				Load:   float64(rapid.IntRange(0, 5).Draw(t, "load")), Weight: rapid.IntRange(0, 4).Draw(t, "weight"),
			}}
		}
		in := scheduler.Input{Schedule: "s", Spec: spec, Candidates: slices.Collect(maps.Values(there)), Previous: prev}
		got := scheduler.Choose(in)
		sound(t, in, got)
		if !resized {
			minimal(t, in, got)
		}
		if strategy == scheduler.Spread {
			balanced(t, there, got)
		}
		in.Previous = got
		if again := scheduler.Choose(in); !slices.Equal(again, got) {
			t.Fatalf("chosen again from its own result: %v, then %v", got, again)
		}
		prev = got
	}
}

// sound checks what holds of every result.
func sound(t *rapid.T, in scheduler.Input, got []string) {
	eligible := map[string]bool{}
	for _, c := range in.Candidates {
		eligible[c.Host] = !c.Draining
	}
	n := 0
	for _, ok := range eligible {
		if ok {
			n++
		}
	}
	if in.Spec.Max > 0 {
		n = min(n, in.Spec.Max)
	}
	seen := map[string]bool{}
	for _, h := range got {
		if !eligible[h] || seen[h] {
			t.Fatalf("%s is in %v, of %v", h, got, in.Candidates)
		}
		seen[h] = true
	}
	if len(got) != n {
		t.Fatalf("%d chosen, want %d", len(got), n)
	}
	shuffled := in
	shuffled.Candidates = slices.Clone(in.Candidates)
	rand.Shuffle(len(shuffled.Candidates), func(i, j int) {
		shuffled.Candidates[i], shuffled.Candidates[j] = shuffled.Candidates[j], shuffled.Candidates[i]
	})
	if other := scheduler.Choose(shuffled); !slices.Equal(other, got) {
		t.Fatalf("the order of the candidates matters: %v and %v", got, other)
	}
}

// minimal checks that one host that came or went moved as few as its strategy says.
func minimal(t *rapid.T, in scheduler.Input, got []string) {
	displaced := 0
	for _, h := range in.Previous {
		still := slices.ContainsFunc(in.Candidates, func(c scheduler.Candidate) bool { return c.Host == h && !c.Draining })
		if still && !slices.Contains(got, h) {
			displaced++
		}
	}
	most := 0
	switch in.Spec.Strategy {
	case scheduler.Alphabetical, scheduler.Weighted, scheduler.Spread:
		most = 1
	}
	if displaced > most {
		t.Fatalf("%d hosts had to give way, at most %d may: %v became %v", displaced, most, in.Previous, got)
	}
}

// balanced checks that no domain has two hosts more than one that has somebody waiting.
func balanced(t *rapid.T, there map[string]scheduler.Candidate, got []string) {
	count := map[string]int{}
	for _, h := range got {
		count[there[h].Labels["zone"]]++
	}
	for h, c := range there {
		if c.Draining || slices.Contains(got, h) {
			continue
		}
		for zone, n := range count {
			if n > count[c.Labels["zone"]]+1 {
				t.Fatalf("zone %s has %d hosts and %s waits in %s, which has %d", zone, n, h, c.Labels["zone"], count[c.Labels["zone"]])
			}
		}
	}
}

func TestSpecCheck(t *testing.T) {
	good := scheduler.DefaultSpec()
	for name, tt := range map[string]struct {
		change func(*scheduler.Spec)
		want   string
	}{
		"as it is":       {func(s *scheduler.Spec) {}, ""},
		"strategy":       {func(s *scheduler.Spec) { s.Strategy = "rr" }, `strategy "rr": must be one of round-robin, alphabetical, least-loaded, spread, weighted`},
		"negative":       {func(s *scheduler.Spec) { s.Max = -1 }, "must be 1 to 2000, or 0 for all"},
		"too many":       {func(s *scheduler.Spec) { s.Max = scheduler.MaxHosts + 1 }, "must be 1 to 2000"},
		"pattern":        {func(s *scheduler.Spec) { s.Hosts = []string{"[a"} }, `pattern "[a"`},
		"empty pattern":  {func(s *scheduler.Spec) { s.Exclude = []string{""} }, `filter exclude: pattern ""`},
		"slash":          {func(s *scheduler.Spec) { s.Hosts = []string{"a/b"} }, "must be a host's name"},
		"many patterns":  {func(s *scheduler.Spec) { s.Hosts = make([]string, 257) }, "at most 256"},
		"label":          {func(s *scheduler.Spec) { s.Labels = map[string]string{"": "x"} }, "its name must have"},
		"margin":         {func(s *scheduler.Spec) { s.Margin = math.NaN() }, "margin NaN"},
		"infinite":       {func(s *scheduler.Spec) { s.Margin = math.Inf(1) }, "margin +Inf"},
		"domain's label": {func(s *scheduler.Spec) { s.Domain = strings.Repeat("x", 254) }, "at most 253"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.change(&s)
			err := s.Check()
			if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !errs.Is(err, errs.InvalidInput)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
