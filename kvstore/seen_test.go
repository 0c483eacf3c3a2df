package kvstore

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// It does what a map does, whatever is set and forgotten.
func TestSeenIsAMap(t *testing.T) {
	for round := range 20 {
		var s seen
		var part []entry
		want := map[string]int64{}
		for i := range round * 50 {
			k := fmt.Sprintf("%04d", i)
			part = append(part, entry{k, int64(i + 1)})
			if rand.N(7) == 0 {
				s.add(part)
				part = nil
			}
			want[k] = int64(i + 1)
		}
		s.add(part)
		for i := range 6000 {
			k, rev := fmt.Sprintf("%04d", rand.N(3000)), int64(i+1)
			if rand.N(3) == 0 {
				rev = 0
				delete(want, k)
			} else {
				want[k] = rev
			}
			s.set(k, rev)
		}
		got := map[string]int64{}
		s.each(func(k string) {
			if _, twice := got[k]; twice {
				t.Errorf("%s comes twice", k)
			}
			got[k] = s.get(k)
		})
		if !maps.Equal(got, want) {
			t.Fatalf("round %d: %d keys, want %d", round, len(got), len(want))
		}
	}
}
