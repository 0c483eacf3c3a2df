// Command bench measures Shoal beside LXD 5.0.2 (Debian's package), in one run, on one image, with one client
// (Debian's lxc), alternating, and prints medians and ratios.
//
// It is started by scripts/bench, which gives it a network and mount namespace of its own, so that neither daemon
// touches the host. Both daemons get a btrfs pool on a loop file in the same directory.
//
// What is timed is the whole client command, from the start of the process to its exit: what a user waits for.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.image, "image", "", "directory with metadata.tar.xz and rootfs.squashfs")
	flag.StringVar(&o.bin, "bin", "bin", "directory with shoald and shoal")
	flag.StringVar(&o.work, "work", "", "scratch directory, removed at the end")
	flag.StringVar(&o.out, "out", "", "Markdown file to write, empty: none")
	flag.IntVar(&o.rounds, "rounds", 11, "rounds per figure and daemon")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	image, bin, work, out string
	rounds                int
}

func run(ctx context.Context, o options) error {
	daemons := []*daemon{newShoal(o), newLXD(o)}
	for _, d := range daemons {
		defer d.stop()
		if err := d.start(ctx, o); err != nil {
			return fmt.Errorf("start %s: %w", d.name, err)
		}
	}
	r := newResults()
	for _, d := range daemons {
		r.add("daemon memory, idle (MB)", d.name, float64(d.rss())/1e6)
	}
	for _, d := range daemons { // the first launch of an image has one-time work in both; it is not counted
		if err := d.lxc(ctx, "launch", "bench", "warm"); err != nil {
			return err
		}
	}
	for i := range o.rounds {
		for _, d := range order(daemons, i) {
			if err := round(ctx, d, r, i); err != nil {
				return fmt.Errorf("%s, round %d: %w", d.name, i+1, err)
			}
		}
		fmt.Fprintf(os.Stderr, "\rround %d of %d", i+1, o.rounds)
	}
	fmt.Fprintln(os.Stderr)
	for _, d := range daemons {
		if err := perContainer(ctx, d, r); err != nil {
			return fmt.Errorf("%s, memory per container: %w", d.name, err)
		}
	}
	text := r.markdown(o.rounds)
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// order lets each daemon go first in every other round.
func order(d []*daemon, i int) []*daemon {
	if i%2 == 0 {
		return d
	}
	return []*daemon{d[1], d[0]}
}

func round(ctx context.Context, d *daemon, r *results, i int) error {
	name := fmt.Sprintf("r%d", i)
	t0 := time.Now()
	if err := d.lxc(ctx, "launch", "bench", name); err != nil {
		return err
	}
	r.since("launch to init running (ms)", d.name, t0)
	if err := d.waitSystemd(ctx, name); err != nil {
		return err
	}
	r.since("launch to systemd running (ms)", d.name, t0)

	timed := func(figure string, args ...string) error {
		t := time.Now()
		err := d.lxc(ctx, args...)
		r.since(figure, d.name, t)
		return err
	}
	for range 3 {
		if err := timed("exec true (ms)", "exec", name, "true"); err != nil {
			return err
		}
	}
	if err := timed("the client alone: query /1.0 (ms)", "query", "/1.0"); err != nil {
		return err
	}
	if err := timed("list (ms)", "list"); err != nil {
		return err
	}
	if err := timed("pause (ms)", "pause", name); err != nil {
		return err
	}
	if err := timed("resume (ms)", "start", name); err != nil {
		return err
	}
	return timed("force delete (ms)", "delete", "--force", name)
}

// perContainer starts more containers and divides what the host's side (daemon and monitors, not the guests) grew by.
func perContainer(ctx context.Context, d *daemon, r *results) error {
	const n = 10
	before := d.hostPSS()
	for i := range n {
		if err := d.lxc(ctx, "launch", "bench", fmt.Sprintf("m%d", i)); err != nil {
			return err
		}
	}
	after := d.hostPSS()
	r.add("monitor memory per container, PSS (MB)", d.name, float64(after.monitors-before.monitors)/n/1e6)
	r.add("daemon growth per container, RSS (MB)", d.name, float64(after.daemon-before.daemon)/n/1e6)
	for i := range n {
		if err := d.lxc(ctx, "delete", "--force", fmt.Sprintf("m%d", i)); err != nil {
			return err
		}
	}
	return nil
}

// results collects figures by name and daemon, in the order in which the names were first seen.
type results struct {
	names []string
	v     map[string]map[string][]float64
}

func newResults() *results { return &results{v: map[string]map[string][]float64{}} }

func (r *results) add(figure, daemon string, v float64) {
	if r.v[figure] == nil {
		r.v[figure] = map[string][]float64{}
		r.names = append(r.names, figure)
	}
	r.v[figure][daemon] = append(r.v[figure][daemon], v)
}

func (r *results) since(figure, daemon string, t time.Time) {
	r.add(figure, daemon, float64(time.Since(t).Microseconds())/1000)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := append([]float64(nil), v...)
	sort.Float64s(s)
	return s[len(s)/2]
}

// targets are the aims of the project for the ratio Shoal / LXD, or for Shoal's own figure where absolute is set.
var targets = map[string]struct {
	ratio    float64
	absolute float64
}{
	"launch to init running (ms)":            {ratio: 0.1},
	"launch to systemd running (ms)":         {ratio: 1.0 / 3},
	"exec true (ms)":                         {ratio: 0.5},
	"pause (ms)":                             {ratio: 0.1},
	"force delete (ms)":                      {ratio: 0.2},
	"daemon memory, idle (MB)":               {absolute: 80},
	"monitor memory per container, PSS (MB)": {absolute: 1.5},
}

func (r *results) markdown(rounds int) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Performance beside LXD 5.0.2\n\nWritten by `make bench`: both daemons in one run on one machine, btrfs pools on loop files, the same Debian 12 image,\nDebian's `lxc` 5.0.2 as the client of both, alternating, %d rounds. Medians of whole client commands; the range is\nminimum–maximum. A ratio below 1 means that Shoal needs less.\n\n", rounds)
	fmt.Fprintf(&b, "| figure | Shoal | range | LXD 5.0.2 | range | ratio | aim | |\n|---|---:|---|---:|---|---:|---|---|\n")
	for _, n := range r.names {
		s, l := r.v[n]["shoal"], r.v[n]["lxd"]
		ratio := median(s) / median(l)
		aim, ok := "", ""
		if t, have := targets[n]; have {
			met := ratio <= t.ratio
			aim = fmt.Sprintf("ratio ≤ %.2f", t.ratio)
			if t.absolute > 0 {
				met = median(s) <= t.absolute
				aim = fmt.Sprintf("≤ %g", t.absolute)
			}
			ok = map[bool]string{true: "met", false: "**missed**"}[met]
		}
		fmt.Fprintf(&b, "| %s | %.1f | %s | %.1f | %s | %.3f | %s | %s |\n", n, median(s), span(s), median(l), span(l), ratio, aim, ok)
	}
	b.WriteString(notes)
	return b.String()
}

// notes say what the figures do not say by themselves.
const notes = `
Read with it:

- Every figure in milliseconds contains the client's own time, see its row: the start of a process, a connection and one
  request. What is left for the daemon in pause, resume and list is a millisecond or two.
- LXD's pause takes either about 25 ms or 1.03 s, whichever way its polling of the freezer meets the kernel. Which of the two
  is the median changes from run to run, and with it the ratio; a tenth of the lower one is less than the client needs.
- "launch to systemd running" is mostly the guest's own work, the same for both.
- A command in a container is started by an agent that the first exec leaves behind and that goes after a minute without
  use. It belongs to the guest's memory: 0.7 MB of its own, and 3.4 MB of program text that all containers share.
- The machine that this was measured on is shared; compare ratios, not milliseconds.
`

func span(v []float64) string {
	if len(v) < 2 {
		return ""
	}
	s := append([]float64(nil), v...)
	sort.Float64s(s)
	return fmt.Sprintf("%.1f–%.1f", s[0], s[len(s)-1])
}

func absolute(p string) string {
	a, err := filepath.Abs(p)
	if err != nil {
		return p
	}
	return a
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }
