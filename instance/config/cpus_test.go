package config_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/shoal-project/shoal/instance/config"
)

func TestBalance(t *testing.T) {
	online := []int{0, 1, 2, 3}
	for _, tt := range []struct {
		name string
		runs map[string]config.Pins
		want map[string][]int
	}{
		{"one", map[string]config.Pins{"a": {Count: 2}}, map[string][]int{"a": {0, 1}}},
		{"beside each other", map[string]config.Pins{"a": {Count: 2}, "b": {Count: 2}}, map[string][]int{"a": {0, 1}, "b": {2, 3}}},
		{"the newcomer goes where room is", map[string]config.Pins{"a": {Count: 2, Has: []int{1, 2}}, "b": {Count: 2}}, map[string][]int{"a": {1, 2}, "b": {0, 3}}},
		{"a set is not moved and counts", map[string]config.Pins{"a": {Has: []int{0, 1, 2}}, "b": {Count: 1}}, map[string][]int{"a": {0, 1, 2}, "b": {3}}},
		{"who came to share moves to a free one", map[string]config.Pins{"a": {Count: 1, Has: []int{2}}, "b": {Count: 1, Has: []int{2}}}, map[string][]int{"a": {0}, "b": {2}}},
		{"nobody moves without need", map[string]config.Pins{"a": {Count: 1, Has: []int{3}}, "b": {Count: 1, Has: []int{1}}}, map[string][]int{"a": {3}, "b": {1}}},
		{"more than there are", map[string]config.Pins{"a": {Count: 9}}, map[string][]int{"a": online}},
		{"fewer than before gives up the busiest", map[string]config.Pins{"a": {Count: 1, Has: []int{0, 1}}, "b": {Has: []int{0}}}, map[string][]int{"a": {1}, "b": {0}}},
		{"a CPU that went away", map[string]config.Pins{"a": {Count: 1, Has: []int{7}}}, map[string][]int{"a": {0}}},
	} {
		if got := config.Balance(online, tt.runs); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Whatever comes and goes: everyone has as many CPUs as asked for, nobody could be moved to a CPU with two instances
// less, and asking again changes nothing.
func TestBalanceProperties(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		online := rnd.Perm(64)[:1+rnd.IntN(16)]
		slices.Sort(online)
		runs := map[string]config.Pins{}
		for step := range 30 {
			id := fmt.Sprint(rnd.IntN(12))
			switch rnd.IntN(4) {
			case 0:
				delete(runs, id)
			case 1:
				runs[id] = config.Pins{Has: online[:1+rnd.IntN(len(online))]}
			default:
				runs[id] = config.Pins{Count: 1 + rnd.IntN(len(online)+2), Has: runs[id].Has}
			}
			sets := config.Balance(online, runs)
			load := map[int]int{}
			for _, set := range sets {
				for _, c := range set {
					load[c]++
				}
			}
			for id, r := range runs {
				set := sets[id]
				if r.Count == 0 {
					if !slices.Equal(set, r.Has) {
						t.Fatalf("seed %d step %d: the fixed %s moved from %v to %v", seed, step, id, r.Has, set)
					}
					continue
				}
				if !slices.IsSorted(set) || len(slices.Compact(slices.Clone(set))) != min(r.Count, len(online)) {
					t.Fatalf("seed %d step %d: %s wants %d of %v and has %v", seed, step, id, r.Count, online, set)
				}
				for _, from := range set {
					for _, to := range online {
						if !slices.Contains(set, to) && load[from]-load[to] >= 2 {
							t.Fatalf("seed %d step %d: %s is on %d (%d) and not on %d (%d)", seed, step, id, from, load[from], to, load[to])
						}
					}
				}
				runs[id] = config.Pins{Count: r.Count, Has: set}
			}
			if again := config.Balance(online, runs); !reflect.DeepEqual(again, sets) {
				t.Fatalf("seed %d step %d: %v became %v", seed, step, sets, again)
			}
		}
	}
}
