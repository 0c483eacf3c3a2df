package scheduler

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
)

// Limits on what a schedule says.
const (
	MaxPatterns = 256     // in each filter
	MaxLabels   = 32      // of a candidate or filter
	MaxLabel    = 253     // bytes in a label's key or value
	MaxHosts    = 2000    // that one result names
	MaxWeight   = 1000    // of a candidate
	MaxLoad     = 1e12    // of a candidate
	maxRecord   = 1 << 19 // bytes of a stored record that is read
)

// Lifetimes of a candidate that is not heard of. Stores round up to whole seconds.
const (
	DefaultTTL = 10 * time.Second
	MinTTL     = 2 * time.Second // what etcd keeps at least; shorter ones are lengthened to it
	MaxTTL     = 24 * time.Hour
)

// DefaultDomain is the label that names a candidate's failure domain unless the spec says otherwise.
const DefaultDomain = "zone"

// Spec is what a schedule asks for. One key holds it: it is not put together from what each host says.
type Spec struct {
	Strategy Strategy `json:"strategy"`
	Max      int      `json:"max"` // at most so many hosts; 0: all (up to MaxHosts)
	// Filters: a candidate may be chosen when it passes all of them. Patterns are those of path.Match.
	Hosts   []string          `json:"hosts,omitempty"`   // one of these patterns must match; empty: any host
	Exclude []string          `json:"exclude,omitempty"` // none of these patterns may match; the way to empty a host
	Labels  map[string]string `json:"labels,omitempty"`  // the candidate must have them
	Domain  string            `json:"domain,omitempty"`  // label of the failure domain, for Spread; "": DefaultDomain
	// Margin, for LeastLoaded: a chosen host gives way to one whose load is lower by more than this; 0: never.
	Margin float64 `json:"margin,omitempty"`
}

// DefaultSpec is one host, whoever came first: the defaults of mgmt's scheduler.
func DefaultSpec() Spec { return Spec{Strategy: RoundRobin, Max: 1} }

// Equal reports whether two specs ask for the same.
func (s Spec) Equal(o Spec) bool {
	return s.Strategy == o.Strategy && s.Max == o.Max && s.Domain == o.Domain && s.Margin == o.Margin &&
		slices.Equal(s.Hosts, o.Hosts) && slices.Equal(s.Exclude, o.Exclude) && maps.Equal(s.Labels, o.Labels)
}

// Check reports what is wrong with a spec.
func (s Spec) Check() error {
	if !s.Strategy.known() {
		return errs.Invalid("strategy %q: must be one of %s", s.Strategy, strategyNames())
	}
	if s.Max < 0 || s.Max > MaxHosts {
		return errs.Invalid("maximum %d: must be 1 to %d, or 0 for all hosts", s.Max, MaxHosts)
	}
	for _, f := range []struct {
		name     string
		patterns []string
	}{{"hosts", s.Hosts}, {"exclude", s.Exclude}} {
		if len(f.patterns) > MaxPatterns {
			return errs.Invalid("filter %s has %d patterns, at most %d are allowed", f.name, len(f.patterns), MaxPatterns)
		}
		for _, p := range f.patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > names.MaxMachine || strings.Contains(p, "/") {
				return errs.Invalid("filter %s: pattern %q must be a host's name, in which * and ? and [a-z] stand for what they do in file names", f.name, p)
			}
		}
	}
	if len(s.Domain) > MaxLabel {
		return errs.Invalid("the name of the failure domain's label has %d bytes, at most %d are allowed", len(s.Domain), MaxLabel)
	}
	if math.IsNaN(s.Margin) || s.Margin < 0 || s.Margin > MaxLoad {
		return errs.Invalid("margin %g: must be 0 to %g", s.Margin, float64(MaxLoad))
	}
	return checkLabels(s.Labels)
}

func checkLabels(l map[string]string) error {
	if len(l) > MaxLabels {
		return errs.Invalid("%d labels, at most %d are allowed", len(l), MaxLabels)
	}
	for k, v := range l {
		if k == "" || len(k) > MaxLabel || len(v) > MaxLabel {
			return errs.Invalid("label %q: its name must have 1 to %d bytes and its value at most %d", k, MaxLabel, MaxLabel)
		}
	}
	return nil
}

// Facts is what a host says about itself.
type Facts struct {
	Labels map[string]string `json:"labels,omitempty"`
	Weight int               `json:"weight,omitempty"` // for Weighted: 1 to MaxWeight; 0 means 1
	Load   float64           `json:"load,omitempty"`   // for LeastLoaded: any measure that all hosts of the schedule share
}

// Check reports what is wrong with them.
func (f Facts) Check() error {
	if f.Weight < 0 || f.Weight > MaxWeight {
		return errs.Invalid("weight %d: must be 1 to %d, or 0 for 1", f.Weight, MaxWeight)
	}
	if math.IsNaN(f.Load) || f.Load < 0 || f.Load > MaxLoad {
		return errs.Invalid("load %g: must be 0 to %g", f.Load, float64(MaxLoad))
	}
	return checkLabels(f.Labels)
}

// Candidate is a host that takes part in a schedule.
type Candidate struct {
	Host string `json:"-"`
	Facts
	Draining bool `json:"draining,omitempty"` // it will withdraw: it is not chosen any more
	Persist  bool `json:"persist,omitempty"`  // it stays when its host is not heard of
	// Joined is the revision at which it began to take part. A host that was lost and came back has a new one.
	Joined int64 `json:"-"`
}

// Eligible says why a candidate may not be chosen; "" when it may.
func (s Spec) Eligible(c Candidate) (reason string) {
	match := func(patterns []string) string {
		for _, p := range patterns {
			if ok, err := path.Match(p, c.Host); ok && err == nil {
				return p
			}
		}
		return ""
	}
	if c.Draining {
		return "it is withdrawing"
	}
	if len(s.Hosts) > 0 && match(s.Hosts) == "" {
		return "filter hosts does not name it"
	}
	if p := match(s.Exclude); p != "" {
		return fmt.Sprintf("filter exclude names it (%s)", p)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		if have, ok := c.Labels[k]; !ok || have != s.Labels[k] {
			return fmt.Sprintf("its label %s is not %q", k, s.Labels[k])
		}
	}
	return ""
}

// version of the stored records. Records of another are neither used nor overwritten.
const version = 1

type versioned[T any] struct {
	V int `json:"v"`
	T T   `json:"record"`
}

func encode[T any](v T) []byte {
	data, err := json.Marshal(versioned[T]{version, v})
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // plain fields only; no NaN passes the checks
	}
	return data
}

func decode[T any](kv kvstore.KeyValue) (T, error) {
	var r versioned[T]
	if len(kv.Value) > maxRecord {
		return r.T, errs.TooLarge("%s has %d bytes, at most %d are read", kv.Key, len(kv.Value), maxRecord)
	}
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return r.T, errs.Invalid("%s: %w", kv.Key, err)
	}
	if r.V != version {
		return r.T, errs.Unsupported("%s has version %d, this program knows version %d", kv.Key, r.V, version)
	}
	return r.T, nil
}
