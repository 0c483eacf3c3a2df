package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/kvstore"
)

// stored is the record of a result.
type stored struct {
	Hosts    []string `json:"hosts"`
	Inputs   int64    `json:"inputs"`   // revision up to which the computer had seen everything
	Computer string   `json:"computer"` // host that computed or, withdrawing, struck itself out
	Fence    int64    `json:"fence"`    // of the computer's lock; larger for each later computer
}

// entry is one schedule as the store has it.
type entry struct {
	spec      *Spec
	specRev   int64
	result    *stored
	resultRev int64
	hosts     map[string]Candidate
	broken    map[string]error // by key: what cannot be read
}

func (e *entry) empty() bool {
	return e.spec == nil && e.result == nil && len(e.hosts) == 0 && len(e.broken) == 0
}

func (e *entry) candidates() []Candidate {
	return slices.SortedFunc(maps.Values(e.hosts), func(a, b Candidate) int { return strings.Compare(a.Host, b.Host) })
}

// current is who of the result is still there. A candidate that came after what the result was computed from is another one: its host was
// lost in between and has lost its place.
func (e *entry) current() []string {
	out := []string{}
	if e.result == nil {
		return out
	}
	for _, h := range e.result.Hosts {
		if c, ok := e.hosts[h]; ok && c.Joined <= e.result.Inputs {
			out = append(out, h)
		}
	}
	return out
}

// chosen is what the result is worth now: who is still there, at most as many as the spec says.
func (e *entry) chosen() []string {
	if e.spec == nil {
		return []string{}
	}
	out := e.current()
	if e.spec.Max > 0 && len(out) > e.spec.Max {
		out = out[:e.spec.Max]
	}
	return out
}

// board is what a watcher has seen, by schedule. One goroutine uses it.
type board struct {
	keys keys
	at   map[string]*entry
}

func newBoard(k keys) *board { return &board{keys: k, at: map[string]*entry{}} }

// get returns a schedule's entry, an empty one when nothing is known.
func (b *board) get(name string) *entry {
	if e := b.at[name]; e != nil {
		return e
	}
	return &entry{hosts: map[string]Candidate{}, broken: map[string]error{}}
}

// apply takes in what happened to one key and returns the schedule that it changed, "" for none.
func (b *board) apply(ev kvstore.Event) string {
	name, leaf, host, ok := b.keys.parse(ev.KV.Key)
	if !ok {
		return ""
	}
	e := b.get(name)
	delete(e.broken, ev.KV.Key)
	changed := name
	switch leaf {
	case specLeaf:
		e.spec, e.specRev = nil, 0
		if ev.Type != kvstore.Deleted {
			e.spec, e.specRev = read[Spec](e, ev.KV), ev.KV.ModRevision
		}
	case resultLeaf:
		if ev.Type != kvstore.Deleted && ev.KV.ModRevision == e.resultRev {
			changed = "" // what this computer wrote
			break
		}
		e.result, e.resultRev = nil, 0
		if ev.Type != kvstore.Deleted {
			e.result, e.resultRev = read[stored](e, ev.KV), ev.KV.ModRevision
		}
	case hostsLeaf:
		delete(e.hosts, host)
		if ev.Type == kvstore.Deleted {
			break
		}
		if c := read[Candidate](e, ev.KV); c != nil {
			c.Host, c.Joined = host, ev.KV.CreateRevision
			e.hosts[host] = *c
		}
	}
	if e.empty() {
		delete(b.at, name)
	} else {
		b.at[name] = e
	}
	return changed
}

// read decodes a record and checks it; what cannot be used is noted.
func read[T interface{ Check() error }](e *entry, kv kvstore.KeyValue) *T {
	v, err := decode[T](kv)
	if err == nil {
		if err = v.Check(); err != nil {
			err = fmt.Errorf("%s: %w", kv.Key, err)
		}
	}
	if err != nil {
		e.broken[kv.Key] = err
		return nil
	}
	return &v
}

// Check reports what is wrong with a stored result.
func (s stored) Check() error {
	for _, h := range s.Hosts {
		if err := CheckHost(h); err != nil {
			return err
		}
	}
	return nil
}

// places counts in how many schedules but one each host is chosen.
func (b *board) places(except string) map[string]int {
	n := map[string]int{}
	for name, e := range b.at {
		if name == except {
			continue
		}
		for _, h := range e.chosen() {
			n[h]++
		}
	}
	return n
}
