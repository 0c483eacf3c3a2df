package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/scheduler"
)

// TestSpecs configures and joins with specs that agree and do not.
func TestSpecs(t *testing.T) {
	b := backends.Mem(t)
	n1, n2 := newNode(t, b, "h1"), newNode(t, b, "h2")
	two := scheduler.Spec{Strategy: scheduler.Spread, Max: 2}
	p := n1.join("web", scheduler.JoinOptions{Spec: &two})
	n2.join("web", scheduler.JoinOptions{Spec: &two})
	if _, err := n2.Join(t.Context(), "web", scheduler.JoinOptions{}); !errs.Is(err, errs.ExistsClass) {
		t.Errorf("joined twice: %v", err)
	}
	must(t, p.Withdraw(guard(t)))
	three := scheduler.Spec{Strategy: scheduler.Spread, Max: 3}
	_, err := n1.Join(t.Context(), "web", scheduler.JoinOptions{Spec: &three})
	if !errs.Is(err, errs.ConflictClass) || !strings.Contains(err.Error(), "as spread with a maximum of 2") {
		t.Errorf("joined with another spec: %v", err)
	}
	s, err := n1.Get(t.Context(), "web")
	must(t, err)
	if len(s.Candidates) != 1 || !s.Spec.Equal(two) {
		t.Errorf("the refused host left %+v", s)
	}
	if _, err := n1.Configure(t.Context(), "web", three, 0); !errs.Is(err, errs.ExistsClass) {
		t.Errorf("created again: %v", err)
	}
	if _, err := n1.Configure(t.Context(), "web", three, s.SpecRevision-1); !errs.Is(err, errs.ConflictClass) {
		t.Errorf("changed from an old one: %v", err)
	}
	rev, err := n1.Configure(t.Context(), "web", three, s.SpecRevision)
	must(t, err)
	if again, err := n1.Configure(t.Context(), "web", three, rev); again != rev || err != nil {
		t.Errorf("the same again: revision %d, then %d: %v", rev, again, err)
	}
	n1.join("web", scheduler.JoinOptions{Spec: &three})
	n1.join("alone", scheduler.JoinOptions{Spec: &two})
	all, err := n1.List(t.Context())
	must(t, err)
	if len(all) != 2 || all[0].Name != "alone" || all[1].Name != "web" {
		t.Errorf("list: %+v", all)
	}
	must(t, n1.Delete(t.Context(), "alone", true))
	if _, err := n1.Get(t.Context(), "alone"); !errs.Is(err, errs.NotFoundClass) {
		t.Errorf("deleted: %v", err)
	}
}

// TestAloneMayChangeTheSpec lets a host whose earlier self is the only candidate join with another spec, as after an upgrade.
func TestAloneMayChangeTheSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, backends.Mem(t), "h1")
		one, two := scheduler.DefaultSpec(), scheduler.Spec{Strategy: scheduler.LeastLoaded, Max: 2}
		p := n.join("web", scheduler.JoinOptions{Spec: &one, ReuseLease: true})
		must(t, p.Close(t.Context()))
		n.join("web", scheduler.JoinOptions{Spec: &two, ReuseLease: true})
		if r := n.expect("web", "h1"); !r.Spec.Equal(two) {
			t.Errorf("%+v", r.Spec)
		}
	})
}

func TestBadInput(t *testing.T) {
	n := newNode(t, backends.Mem(t), "h1")
	for name, o := range map[string]scheduler.JoinOptions{
		"must be 2s to 24h":             {TTL: -1},
		"lifetime 25h0m0s":              {TTL: 25 * time.Hour},
		"weight 1001":                   {Facts: scheduler.Facts{Weight: 1001}},
		"load -1":                       {Facts: scheduler.Facts{Load: -1}},
		"label":                         {Facts: scheduler.Facts{Labels: map[string]string{"": ""}}},
		"choose one of the two":         {Persist: true, ReuseLease: true},
		"strategy \"\": must be one of": {Spec: &scheduler.Spec{}},
	} {
		if _, err := n.Join(t.Context(), "web", o); !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	for _, name := range []string{"", "a\n", strings.Repeat("x", 513)} {
		if _, err := n.Join(t.Context(), name, scheduler.JoinOptions{}); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	all, err := n.List(t.Context())
	if len(all) > 0 || err != nil {
		t.Errorf("bad input left %v: %v", all, err)
	}
	if _, err := scheduler.New(scheduler.Deps{KV: n.kv, Host: "a,b"}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("host: %v", err)
	}
}

// TestBroken has one schedule whose records cannot be read: the others are computed, it is reported and left as it is.
func TestBroken(t *testing.T) {
	b := backends.Mem(t)
	n := newNode(t, b, "h1")
	kv := backends.Client(t, b)
	put := func(key, value string) { must(t, second(kv.Update(t.Context(), tree+key, []byte(value), 0))) }
	put("new/scheduled", `{"v":2,"record":{"hosts":["x"]}}`)
	put("bad/spec", `{`)
	put("torn/scheduled", `{"v":1,"record":{"hosts":["../x"]}}`)
	put("good/exchange/a,b", `{"v":1,"record":{}}`)
	put("good/exchange/x", `nonsense`)
	put("good/exchange/y", `{"v":1,"record":{"weight":-1}}`)
	put("stray", `?`)
	for _, s := range []string{"new", "torn", "good"} {
		n.configure(s, scheduler.DefaultSpec())
	}
	n.join("good", scheduler.JoinOptions{})
	n.join("torn", scheduler.JoinOptions{})
	if _, err := n.Join(t.Context(), "new", scheduler.JoinOptions{}); !errs.Is(err, errs.UnsupportedClass) {
		t.Errorf("joined what a newer program computes: %v", err)
	}
	n.expect("good", "h1")
	n.expect("torn", "h1") // what cannot be a result is written anew
	r := n.expect("new", "")
	if !errs.Is(r.Err, errs.UnsupportedClass) {
		t.Errorf("a result of a newer version: %v", r.Err)
	}
	if got, _, _ := kv.Get(t.Context(), tree+"new/scheduled"); string(got.Value) != `{"v":2,"record":{"hosts":["x"]}}` {
		t.Errorf("the newer record is now %s", got.Value)
	}
	s, err := n.Get(t.Context(), "good")
	must(t, err)
	if len(s.Broken) != 2 || !strings.Contains(s.Broken[0]+s.Broken[1], "good/exchange/x") {
		t.Errorf("reported: %q", s.Broken)
	}
	if s, err = n.Get(t.Context(), "bad"); err != nil || s.Result.Err == nil || s.Spec != nil {
		t.Errorf("%+v %v", s, err)
	}
	n.configure("bad", scheduler.DefaultSpec()) // writing it anew mends it
	n.join("bad", scheduler.JoinOptions{})
	n.expect("bad", "h1")
}

func TestStandings(t *testing.T) {
	n := newNode(t, backends.Mem(t), "h1")
	b := backends.Client(t, n.faults)
	spec := scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 1, Exclude: []string{"h3"}, Labels: map[string]string{"a": "b"}}
	label := scheduler.JoinOptions{Facts: scheduler.Facts{Labels: map[string]string{"a": "b"}}}
	n.configure("web", spec)
	n.join("web", label)
	n.expect("web", "h1")
	for i, facts := range []string{`{"labels":{"a":"b"}}`, `{"labels":{"a":"b"}}`, `{}`, `{"labels":{"a":"b"},"draining":true}`} {
		must(t, second(b.Update(t.Context(), fmt.Sprintf("%sweb/exchange/h%d", tree, i+2), []byte(`{"v":1,"record":`+facts+`}`), 0)))
	}
	n.configure("web", scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 1, Exclude: []string{"h3", "h9"}, Labels: map[string]string{"a": "b"}})
	s, err := n.Get(t.Context(), "web")
	must(t, err)
	want := []string{"", "nothing was computed since it came", "filter exclude names it (h3)", `its label a is not "b"`, "it is withdrawing"}
	for i, st := range s.Standings() {
		if st.Reason != want[i] || st.Chosen != (i == 0) {
			t.Errorf("%s: chosen %v, reason %q", st.Host, st.Chosen, st.Reason)
		}
	}
}
