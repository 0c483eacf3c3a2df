// Command rings runs the tests of the house ring by ring and says at the end what ran, what was skipped and why.
//
//	go run ./test/rings [-race] [RING…] [PACKAGE…]
//
// Without arguments it runs rings 1 and 2 of all packages. Ring 1 runs with the race detector where -race is given; ring 2
// (root, namespaces, loop devices, a real runtime) runs one package at a time, only those that have tests of it. Its exit
// code is not 0 when a test failed or a ring had nothing to run.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	race := flag.Bool("race", false, "run ring 1 with the race detector")
	flag.Parse()
	var rings []int
	var packages []string
	for _, a := range flag.Args() {
		switch a {
		case "1", "2", "3":
			rings = append(rings, int(a[0]-'0'))
		default:
			packages = append(packages, a)
		}
	}
	if rings == nil {
		rings = []int{1, 2}
	}
	if packages == nil {
		packages = []string{"./..."}
	}
	// An interrupt goes to go test too, which is in our process group; what it says then is still worth reading.
	signal.Ignore(syscall.SIGINT)
	if err := runAll(rings, packages, *race); err != nil {
		fmt.Fprintln(os.Stderr, "rings:", err)
		os.Exit(1)
	}
}

func runAll(rings []int, packages []string, race bool) error {
	var all []tally
	for _, ring := range rings {
		t, err := runRing(ring, packages, race && ring == 1)
		if err != nil {
			return fmt.Errorf("ring %d: %w", ring, err)
		}
		all = append(all, t)
	}
	fmt.Println()
	var sum tally
	var empty []int
	for _, t := range all {
		fmt.Println(t.line())
		sum.add(t)
		if t.ran() == 0 {
			empty = append(empty, t.Ring)
		}
	}
	fmt.Println(sum.counts())
	switch {
	case sum.Failed > 0:
		return fmt.Errorf("%d failed", sum.Failed)
	case len(empty) > 0:
		return fmt.Errorf("nothing ran in ring %v", empty)
	}
	return nil
}

func runRing(ring int, packages []string, race bool) (tally, error) {
	fmt.Printf("== ring %d\n", ring)
	start := time.Now()
	args := []string{"test", "-json", "-count=1", "-timeout=10m"}
	env := append(os.Environ(), "CGO_ENABLED=0", "SHOAL_RINGS=1")
	if ring > 1 {
		var err error
		if packages, err = ringed(packages); err != nil {
			return tally{}, err
		}
		args = append(args, "-p=1")
		env = append(env, fmt.Sprintf("SHOAL_RINGS=1,%d", ring))
	}
	if race {
		args = append(args, "-race")
		env = append(env, "CGO_ENABLED=1") // the race detector is written in C
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Env = env
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}
	if err := cmd.Start(); err != nil {
		return tally{}, err
	}
	t, err := newReport(ring, os.Stdout).read(out)
	if err != nil {
		return t, err
	}
	t.Took = time.Since(start)
	if err := cmd.Wait(); err != nil && t.Failed == 0 {
		return t, fmt.Errorf("go test: %w", err)
	}
	return t, nil
}

// ringed returns those of the packages that have tests of rings above 1: they import testring.
func ringed(packages []string) ([]string, error) {
	cmd := exec.Command("go", append([]string{"list", "-f", `{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}`}, packages...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if slices.ContainsFunc(f[1:], func(imp string) bool { return strings.HasSuffix(imp, "/internal/testring") }) {
			found = append(found, f[0])
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no package has such tests")
	}
	return found, nil
}
