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
	base [][]entry        // by key, in the parts in which it came, none empty
	n    int              // entries of base
	over map[string]int64 // 0: deleted
}

// get returns 0 for a key that is not known.
func (s *seen) get(key string) int64 {
	if rev, ok := s.over[key]; ok {
		return rev
	}
	if e := s.find(key); e != nil {
		return e.rev
	}
	return 0
}

// add appends the next part of a list.
func (s *seen) add(part []entry) {
	if len(part) > 0 {
		s.base, s.n = append(s.base, part), s.n+len(part)
	}
}

func (s *seen) find(key string) *entry {
	i, ok := slices.BinarySearchFunc(s.base, key, func(p []entry, k string) int { return strings.Compare(p[0].key, k) })
	if !ok {
		i-- // the last part that begins before key
	}
	if i < 0 {
		return nil
	}
	j, ok := slices.BinarySearchFunc(s.base[i], key, func(e entry, k string) int { return strings.Compare(e.key, k) })
	if !ok {
		return nil
	}
	return &s.base[i][j]
}

// set notes a key's revision; 0 forgets it.
func (s *seen) set(key string, rev int64) {
	e := s.find(key)
	switch {
	case e != nil && rev != 0: // in place
		e.rev = rev
		delete(s.over, key)
		return
	case e == nil && rev == 0:
		delete(s.over, key)
		return
	}
	if s.over == nil {
		s.over = map[string]int64{}
	}
	if s.over[key] = rev; len(s.over) > 1024+s.n/2 {
		s.merge()
	}
}

// merge makes one sorted list of both.
func (s *seen) merge() {
	var all []entry
	s.each(func(key string) { all = append(all, entry{key, s.get(key)}) })
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	*s = seen{}
	s.add(all)
}

// each calls f with every known key, in no order.
func (s *seen) each(f func(key string)) {
	for _, part := range s.base {
		for _, e := range part {
			if rev, ok := s.over[e.key]; !ok || rev != 0 {
				f(e.key)
			}
		}
	}
	for key, rev := range s.over {
		if rev != 0 && s.find(key) == nil {
			f(key)
		}
	}
}
