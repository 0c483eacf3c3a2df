package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// run feeds a report with events of package p, given as "action test output".
func run(t *testing.T, ring int, events ...event) (tally, string) {
	t.Helper()
	var in, out strings.Builder
	enc := json.NewEncoder(&in)
	for _, e := range events {
		if e.Package == "" {
			e.Package = "github.com/shoal-project/shoal/p"
		}
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := newReport(ring, &out).read(strings.NewReader(in.String()))
	if err != nil {
		t.Fatal(err)
	}
	return got, out.String()
}

func started(name string) event    { return event{Action: "run", Test: name} }
func ended(name, how string) event { return event{Action: how, Test: name} }
func said(name, text string) event {
	return event{Action: "output", Test: name, Output: "    x_test.go:1: " + text + "\n"}
}
func packageEnded(how string) event { return event{Action: how, Elapsed: 1.5} }
func of(parts ...[]event) []event   { return slices.Concat(parts...) }

func plain(name, how string) []event { return []event{started(name), ended(name, how)} }
func ringed2(name, how, text string) []event {
	return []event{started(name), said(name, text), ended(name, how)}
}

func TestCountsByRing(t *testing.T) {
	events := of(plain("TestA", "pass"), plain("TestB", "pass"),
		ringed2("TestC", "skip", "RING 2: needs root"), ringed2("TestD", "skip", "RING 2: needs root"),
		ringed2("TestE", "pass", "RING 2"), ringed2("TestF", "skip", `RING 1: needs "x"`), ringed2("TestG", "skip", "short mode"),
		[]event{packageEnded("pass")})
	one, out := run(t, 1, events...)
	if one.counts() != "2 passed, 0 failed, 2 skipped" || one.Why[`needs "x"`] != 1 || one.Why["short mode"] != 1 {
		t.Errorf("ring 1: %+v", one)
	}
	if !strings.Contains(out, "ok    p ") {
		t.Errorf("output %q", out)
	}
	two, _ := run(t, 2, events...)
	two.Took = 90 * time.Second
	if want := "ring 2: 1 passed, 0 failed, 2 skipped in 1m30s; skipped: needs root (2)"; two.line() != want {
		t.Errorf("got %q, want %q", two.line(), want)
	}
}

func TestSubtestsCountInsteadOfTheirParents(t *testing.T) {
	events := of([]event{started("TestA"), said("TestA", "RING 2")}, plain("TestA/x", "pass"), plain("TestA/y", "fail"),
		[]event{started("TestA/z")}, plain("TestA/z/deep", "pass"), []event{ended("TestA/z", "pass"), ended("TestA", "fail"), packageEnded("fail")})
	got, _ := run(t, 2, events...)
	if got.counts() != "2 passed, 1 failed, 0 skipped" {
		t.Errorf("%+v", got)
	}
	// a parent that fails by itself, all its children being well
	events = of([]event{started("TestA")}, plain("TestA/x", "pass"), []event{ended("TestA", "fail"), packageEnded("fail")})
	if got, _ = run(t, 1, events...); got.counts() != "1 passed, 1 failed, 0 skipped" {
		t.Errorf("%+v", got)
	}
}

func TestFailuresAreShownAndCountInEveryRing(t *testing.T) {
	events := []event{started("TestA"), said("TestA", "wrong answer"), ended("TestA", "fail"), packageEnded("fail")}
	for ring := 1; ring <= 2; ring++ {
		got, out := run(t, ring, events...)
		if got.Failed != 1 || !strings.Contains(out, "FAIL  p ") || !strings.Contains(out, "wrong answer") {
			t.Errorf("ring %d: %+v\n%s", ring, got, out)
		}
	}
}

func TestPackagesThatFailAsAWhole(t *testing.T) {
	got, out := run(t, 1, event{Action: "build-output", ImportPath: "p [p.test]", Output: "x.go:1: syntax error\n"},
		event{Action: "fail", FailedBuild: "p [p.test]"})
	if got.Failed != 1 || !strings.Contains(out, "syntax error") {
		t.Errorf("build: %+v\n%s", got, out)
	}
	got, out = run(t, 1, started("TestHang"), said("TestHang", "waiting for godot"),
		event{Action: "output", Output: "panic: test timed out\n"}, packageEnded("fail"))
	if got.Failed != 1 || !strings.Contains(out, "timed out") || !strings.Contains(out, "did not end: TestHang") || !strings.Contains(out, "godot") {
		t.Errorf("time limit: %+v\n%s", got, out)
	}
}
