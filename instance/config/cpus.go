package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/schema"
)

func cpus() schema.Type {
	return schema.Custom("CPUs", "a number of CPUs or a set such as 0-3,7", func(v string) error {
		if n, err := strconv.ParseUint(v, 10, 16); err == nil {
			if n == 0 {
				return errors.New("must be at least 1")
			}
			return nil
		}
		_, err := ParseCPUSet(v)
		return err
	})
}

// CPUCount is the number that limits.cpu asks for; 0 when it names a set or is not set.
func CPUCount(cfg api.Config) int {
	n, err := strconv.ParseUint(cfg["limits.cpu"], 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

// cpuSet is what limits.cpu means for a driver; empty: all.
func cpuSet(v string, chosen, online []int) (string, error) {
	if v == "" {
		return "", nil
	}
	if _, err := strconv.Atoi(v); err == nil {
		if len(chosen) >= len(online) {
			return "", nil
		}
		return FormatCPUs(chosen), nil
	}
	want, err := ParseCPUSet(v)
	if err != nil {
		return "", err
	}
	for _, c := range want {
		if !slices.Contains(online, c) {
			return "", fmt.Errorf("limits.cpu: this host has no CPU %d (it has %s)", c, FormatCPUs(online))
		}
	}
	return FormatCPUs(want), nil
}

// Pins is what one running instance has of the CPUs. Instances that may use all are left out: they weigh on all alike.
type Pins struct {
	Count int   // how many it asks for; 0: Has stays as it is
	Has   []int // where it runs now
}

// Balance gives every instance with a Count that many CPUs, at most all that are online, so that no CPU has two more
// instances than another one that could take one of them. As few as possible move: who has a CPU keeps it unless that
// rule or a smaller Count takes it away. The answer depends on nothing but the arguments.
func Balance(online []int, runs map[string]Pins) map[string][]int {
	sets, load := map[string][]int{}, map[int]int{}
	ids := slices.Sorted(maps.Keys(runs))
	for _, id := range ids {
		set := slices.Clone(runs[id].Has)
		if runs[id].Count > 0 {
			set = slices.DeleteFunc(set, func(c int) bool { return !slices.Contains(online, c) })
		}
		for _, c := range set {
			load[c]++
		}
		sets[id] = set
	}
	give := func(id string, c int) { sets[id] = append(sets[id], c); load[c]++ }
	take := func(id string, c int) {
		sets[id] = slices.DeleteFunc(sets[id], func(x int) bool { return x == c })
		load[c]--
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return runs[id].Count == 0 })
	for _, id := range ids {
		want := min(runs[id].Count, len(online))
		for len(sets[id]) > want {
			take(id, busiest(sets[id], load))
		}
		for len(sets[id]) < want {
			give(id, idlest(online, sets[id], load))
		}
	}
	for moved := true; moved; { // ends: each move makes the sum of the squares of the loads smaller
		moved = false
		for _, id := range ids {
			if len(sets[id]) == 0 || len(sets[id]) == len(online) {
				continue
			}
			from, to := busiest(sets[id], load), idlest(online, sets[id], load)
			if load[from]-load[to] >= 2 {
				take(id, from)
				give(id, to)
				moved = true
			}
		}
	}
	for _, id := range ids {
		slices.Sort(sets[id])
	}
	return sets
}

func busiest(set []int, load map[int]int) int {
	return slices.MaxFunc(set, func(a, b int) int { return load[a] - load[b] })
}

// idlest is the CPU with the fewest instances that is not in set; there must be one.
func idlest(online, set []int, load map[int]int) int {
	best := -1
	for _, c := range online {
		if !slices.Contains(set, c) && (best < 0 || load[c] < load[best]) {
			best = c
		}
	}
	return best
}

// ParseCPUSet parses a set such as "0-3,7" into ascending numbers below 4096.
func ParseCPUSet(v string) ([]int, error) {
	bad := errors.New("must be a number of CPUs or a set such as 0-3,7")
	var out []int
	for _, part := range strings.Split(v, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		lo, err1 := strconv.ParseUint(a, 10, 12)
		hi, err2 := strconv.ParseUint(b, 10, 12)
		if err1 != nil || err2 != nil || hi < lo || len(out) > 1<<13 {
			return nil, bad
		}
		for c := lo; c <= hi; c++ {
			out = append(out, int(c))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// FormatCPUs is the reverse of [ParseCPUSet], without ranges.
func FormatCPUs(set []int) string {
	parts := make([]string, len(set))
	for i, c := range set {
		parts[i] = strconv.Itoa(c)
	}
	return strings.Join(parts, ",")
}
