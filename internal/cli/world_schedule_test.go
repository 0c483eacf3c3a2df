package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
)

// TestScheduleFlags changes of a spec only what flags name, and takes lists back with an empty one.
func TestScheduleFlags(t *testing.T) {
	old := api.WorldScheduleSpec{Strategy: "spread", Max: 3, Hosts: []string{"a"}, Exclude: []string{"b"}, Labels: map[string]string{"k": "v"}, Margin: 2}
	for args, want := range map[string]func(*api.WorldScheduleSpec){
		"":                               func(*api.WorldScheduleSpec) {},
		"--max=all":                      func(s *api.WorldScheduleSpec) { s.Max = 0 },
		"--max=5 --strategy=round-robin": func(s *api.WorldScheduleSpec) { s.Max, s.Strategy = 5, "round-robin" },
		"--host=x --host=y*":             func(s *api.WorldScheduleSpec) { s.Hosts = []string{"x", "y*"} },
		"--exclude=":                     func(s *api.WorldScheduleSpec) { s.Exclude = []string{""} },
		"--label=a=b=c":                  func(s *api.WorldScheduleSpec) { s.Labels = map[string]string{"a": "b=c"} },
		"--label=":                       func(s *api.WorldScheduleSpec) { s.Labels = map[string]string{} },
		"--domain=rack --margin=0.5":     func(s *api.WorldScheduleSpec) { s.Domain, s.Margin = "rack", 0.5 },
	} {
		var f specFlags
		cmd := &cobra.Command{}
		f.register(cmd)
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		got, wanted := old, old
		want(&wanted)
		if err := f.apply(cmd, &got); err != nil || got.Max != wanted.Max || got.Strategy != wanted.Strategy || !slices.Equal(got.Hosts, wanted.Hosts) ||
			!slices.Equal(got.Exclude, wanted.Exclude) || len(got.Labels) != len(wanted.Labels) || got.Labels["a"] != wanted.Labels["a"] || got.Domain != wanted.Domain || got.Margin != wanted.Margin {
			t.Errorf("%q: %+v, want %+v: %v", args, got, wanted, err)
		}
	}
	for _, args := range []string{"--max=0", "--max=-1", "--max=many", "--label=x", "--label==v"} {
		var f specFlags
		cmd := &cobra.Command{}
		f.register(cmd)
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		got := old
		if err := f.apply(cmd, &got); err == nil || !strings.Contains(err.Error(), "it has to be") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestScheduleRows has the chosen hosts first, in the order of the schedule.
func TestScheduleRows(t *testing.T) {
	s := &api.WorldSchedule{Name: "web", Hosts: []string{"c", "a"}, Candidates: []api.WorldScheduleCandidate{
		{Host: "a", Chosen: true}, {Host: "b", Reason: "it waits for a place"}, {Host: "c", Chosen: true, WorldScheduleHost: api.WorldScheduleHost{Weight: 5, Load: 0.25}}}}
	var names []string
	for _, r := range candidateRows(s) {
		names = append(names, strings.Join(r[:4], " "))
	}
	if got := strings.Join(names, ", "); got != "c YES 5 0.25, a YES 1 0, b NO 1 0" {
		t.Error(got)
	}
	if rows := candidateRows(nil); rows != nil {
		t.Error(rows)
	}
	if rows := scheduleRows([]api.WorldSchedule{*s}); rows[0][1] != "(unknown)" || rows[0][3] != "c\na" || rows[0][4] != "1" {
		t.Error(rows)
	}
}
