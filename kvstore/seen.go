package kvstore

import (
	"slices"
	"strings"
)

// entry is a key that a consumer knows and its ModRevision.
type entry struct {
	key string
	rev int64
}

// seen is what a consumer knows: keys and their ModRevisions. A list comes sorted and is kept as it came, in a third of the memory of
// a map; what changed since lies over it.
type seen struct {
	base []entry          // by key
	over map[string]int64 // 0: deleted
}

// get returns 0 for a key that is not known.
func (s *seen) get(key string) int64 {
	if rev, ok := s.over[key]; ok {
		return rev
	}
	if i, ok := s.find(key); ok {
		return s.base[i].rev
	}
	return 0
}

func (s *seen) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.base, key, func(e entry, k string) int { return strings.Compare(e.key, k) })
}

// set notes a key's revision; 0 forgets it.
func (s *seen) set(key string, rev int64) {
	i, ok := s.find(key)
	switch {
	case ok && rev != 0: // in place
		s.base[i].rev = rev
		delete(s.over, key)
		return
	case !ok && rev == 0:
		delete(s.over, key)
		return
	}
	if s.over == nil {
		s.over = map[string]int64{}
	}
	if s.over[key] = rev; len(s.over) > 1024+len(s.base)/2 {
		s.merge()
	}
}

// merge makes one sorted list of both.
func (s *seen) merge() {
	var all []entry
	s.each(func(key string) { all = append(all, entry{key, s.get(key)}) })
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	s.base, s.over = all, nil
}

// each calls f with every known key, in no order.
func (s *seen) each(f func(key string)) {
	for _, e := range s.base {
		if rev, ok := s.over[e.key]; !ok || rev != 0 {
			f(e.key)
		}
	}
	for key, rev := range s.over {
		if _, ok := s.find(key); rev != 0 && !ok {
			f(key)
		}
	}
}
