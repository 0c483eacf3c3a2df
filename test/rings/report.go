package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// test is what became of one test.
type test struct {
	status   string // pass, fail or skip; "" while it runs
	ring     int    // 0: it did not say
	why      string // of a skip
	output   []string
	children bool
}

// tally counts the tests of one ring that have no subtests.
type tally struct {
	Ring                    int
	Passed, Failed, Skipped int
	Why                     map[string]int // reasons of skips
	Took                    time.Duration
}

// add adds o's counts to t's.
func (t *tally) add(o tally) {
	t.Passed, t.Failed, t.Skipped = t.Passed+o.Passed, t.Failed+o.Failed, t.Skipped+o.Skipped
}

// ran is how many tests came to an end.
func (t tally) ran() int { return t.Passed + t.Failed }

// counts gives "N passed, N failed, N skipped".
func (t tally) counts() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.Passed, t.Failed, t.Skipped)
}

// line is the ring's line at the end of the run.
func (t tally) line() string {
	s := fmt.Sprintf("ring %d: %s in %v", t.Ring, t.counts(), t.Took.Round(time.Second))
	var why []string
	for _, w := range slices.SortedFunc(maps.Keys(t.Why), func(a, b string) int { return t.Why[b] - t.Why[a] }) {
		why = append(why, fmt.Sprintf("%s (%d)", w, t.Why[w]))
	}
	if len(why) > 0 {
		s += "; skipped: " + strings.Join(why, "; ")
	}
	return s
}

// ringRE finds what testring.Need says: "RING 2" when the test runs, "RING 2: why" when it is skipped.
var ringRE = regexp.MustCompile(`\bRING ([123])(?:: (.*))?`)

// report follows a run of go test.
type report struct {
	ring  int
	out   io.Writer
	tests map[string]*test    // by package + " " + name
	build map[string][]string // output of the compiler by package
	bad   int                 // packages that failed as a whole
}

func newReport(ring int, out io.Writer) *report {
	return &report{ring: ring, out: out, tests: map[string]*test{}, build: map[string][]string{}}
}

// read follows the events until their end and returns the tally.
func (r *report) read(events io.Reader) (tally, error) {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, lines.Text()) // a message of go itself
			continue
		}
		r.event(e)
	}
	return r.tally(), lines.Err()
}

func (r *report) event(e event) {
	switch {
	case e.Action == "build-output":
		r.build[e.ImportPath] = append(r.build[e.ImportPath], e.Output)
	case e.Test == "":
		r.packageEvent(e)
	default:
		r.testEvent(e)
	}
}

func (r *report) packageEvent(e event) {
	t := r.test(e.Package, "")
	name := strings.TrimPrefix(e.Package, "github.com/shoal-project/shoal/")
	switch e.Action {
	case "output":
		t.keep(e.Output)
	case "pass", "skip":
		fmt.Fprintf(r.out, "ok    %-34s %6.1fs\n", name, e.Elapsed)
		r.drop(e.Package)
	case "fail":
		fmt.Fprintf(r.out, "FAIL  %-34s %6.1fs\n", name, e.Elapsed)
		for _, s := range r.build[e.FailedBuild] {
			fmt.Fprint(r.out, "      ", s)
		}
		if !r.printFailures(e.Package) { // a panic, a time limit, a data race outside of a test, a build that failed
			r.bad++
			for _, s := range t.output {
				fmt.Fprint(r.out, "      ", s)
			}
			r.printUnfinished(e.Package)
		}
		r.drop(e.Package)
	}
}

func (r *report) testEvent(e event) {
	t := r.test(e.Package, e.Test)
	switch e.Action {
	case "run":
		for name := e.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			r.test(e.Package, name).children = true
		}
	case "output":
		t.keep(e.Output)
		if m := ringRE.FindStringSubmatch(e.Output); m != nil {
			t.ring, _ = strconv.Atoi(m[1])
			t.why = strings.TrimSpace(m[2])
		}
	case "pass", "fail", "skip":
		t.status = e.Action
		if t.status == "skip" && t.why == "" {
			t.why = lastMessage(t.output)
		}
	}
}

func (r *report) test(pkg, name string) *test {
	key := pkg + " " + name
	t := r.tests[key]
	if t == nil {
		t = &test{}
		r.tests[key] = t
	}
	return t
}

// keep remembers output, the end of it when there is much.
func (t *test) keep(s string) {
	t.output = append(t.output, s)
	if len(t.output) > 2000 {
		t.output = t.output[1000:]
	}
}

// drop forgets the output of a package that has been reported.
func (r *report) drop(pkg string) {
	for key, t := range r.tests {
		if strings.HasPrefix(key, pkg+" ") {
			t.output = nil
		}
	}
}

func (r *report) printFailures(pkg string) (found bool) {
	for _, key := range slices.Sorted(maps.Keys(r.tests)) {
		name, ok := strings.CutPrefix(key, pkg+" ")
		if t := r.tests[key]; ok && name != "" && t.status == "fail" {
			found = true
			for _, s := range t.output {
				fmt.Fprint(r.out, "      ", s)
			}
		}
	}
	return found
}

func (r *report) printUnfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.tests)) {
		name, ok := strings.CutPrefix(key, pkg+" ")
		if t := r.tests[key]; ok && name != "" && t.status == "" && !t.children {
			fmt.Fprintln(r.out, "      did not end:", name)
			for _, s := range t.output[max(0, len(t.output)-100):] {
				fmt.Fprint(r.out, "        ", s)
			}
		}
	}
}

// lastMessage is the reason of a skip that testring did not write: "file.go:1: why".
func lastMessage(output []string) string {
	for _, s := range slices.Backward(output) {
		s = strings.TrimSpace(s)
		if _, why, ok := strings.Cut(s, ".go:"); ok {
			if _, why, ok := strings.Cut(why, ": "); ok {
				return why
			}
		}
	}
	return "no reason given"
}

// tally counts the tests of the report's ring. What failed counts whatever ring it belongs to.
func (r *report) tally() tally {
	t := tally{Ring: r.ring, Failed: r.bad, Why: map[string]int{}}
	for key, test := range r.tests {
		_, name, _ := strings.Cut(key, " ")
		if name == "" || test.children && test.status != "fail" || test.children && r.childFailed(key) {
			continue
		}
		mine := r.ringOf(key) == r.ring
		switch {
		case test.status == "fail":
			t.Failed++
		case test.status == "pass" && mine:
			t.Passed++
		case test.status == "skip" && mine:
			t.Skipped++
			t.Why[test.why]++
		}
	}
	return t
}

func (r *report) childFailed(key string) bool {
	for k, t := range r.tests {
		if t.status == "fail" && strings.HasPrefix(k, key+"/") {
			return true
		}
	}
	return false
}

// ringOf is the ring that the test or one of those around it named, 1 when none did.
func (r *report) ringOf(key string) int {
	for {
		if t := r.tests[key]; t != nil && t.ring != 0 {
			return t.ring
		}
		i := strings.LastIndexByte(key, '/')
		if i < strings.IndexByte(key, ' ') {
			return 1
		}
		key = key[:i]
	}
}
