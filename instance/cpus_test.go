package instance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/test/instancetest"
)

// cpuWorld is a world on a machine with CPUs 0 to 3.
type cpuWorld struct {
	*instancetest.World
	ids map[string]string // instance → runtime id
}

func newCPUWorld(t *testing.T) *cpuWorld {
	t.Helper()
	machine := func() (config.Host, error) { return config.Host{MemoryBytes: 8 << 30, CPUs: []int{0, 1, 2, 3}}, nil }
	return &cpuWorld{instancetest.New(t, func(d *instance.Deps) { d.Machine = machine }), map[string]string{}}
}

func (w *cpuWorld) launch(t *testing.T, name, cpus string) {
	t.Helper()
	create(t, w.World, name, func(r *api.InstancesPost) { r.Config = api.Config{"limits.cpu": cpus} })
	before := w.Guests.IDs()
	must(t, do(t, w.World, name, "start"))
	for _, id := range w.Guests.IDs() {
		if !slices.Contains(before, id) {
			w.ids[name] = id
		}
	}
}

func (w *cpuWorld) cpus(name string) string { return w.Guests.Limits(w.ids[name]).CPUs }

// load is how many instances have each CPU.
func (w *cpuWorld) load(names ...string) string {
	n := map[string]int{}
	for _, name := range names {
		for c := range strings.SplitSeq(w.cpus(name), ",") {
			n[c]++
		}
	}
	return fmt.Sprint(n)
}

// A number in limits.cpu spreads instances over the CPUs; when some end or change, others move, and only then.
func TestCPUsAreShared(t *testing.T) {
	w := newCPUWorld(t)
	names := strings.Fields("a b c d e f g h")
	for _, n := range names {
		w.launch(t, n, "1")
	}
	if got := w.load(names...); got != "map[0:2 1:2 2:2 3:2]" || w.Guests.Calls("setlimits") != 0 {
		t.Fatalf("started: %s after %d changes of limits", got, w.Guests.Calls("setlimits"))
	}
	// Both of one CPU end: one other moves there.
	var left []string
	for _, n := range names {
		if w.cpus(n) == w.cpus("a") {
			continue
		}
		left = append(left, n)
	}
	gone := w.cpus("a")
	for _, n := range names {
		if !slices.Contains(left, n) {
			must(t, do(t, w.World, n, "stop"))
		}
	}
	if got := w.load(left...); !strings.Contains(got, gone+":1") || w.Guests.Calls("setlimits") != 1 {
		t.Fatalf("two ended: %s after %d changes of limits", got, w.Guests.Calls("setlimits"))
	}
	// One pins itself to where others are: who has a number makes room.
	must(t, update(t, w.World, left[0], func(p *api.InstancePut) { p.Config["limits.cpu"] = "0-1" }))
	if got := w.cpus(left[0]); got != "0,1" {
		t.Errorf("pinned to %q", got)
	}
	// Three of four CPUs for one: nobody has two more than another that could be used.
	must(t, update(t, w.World, left[1], func(p *api.InstancePut) { p.Config["limits.cpu"] = "3" }))
	if got := strings.Split(w.cpus(left[1]), ","); len(got) != 3 {
		t.Errorf("wants three CPUs and has %v", got)
	}
	must(t, update(t, w.World, left[1], func(p *api.InstancePut) { p.Config["limits.cpu"] = "" }))
	if got := w.cpus(left[1]); got != "" {
		t.Errorf("without a limit it has %q", got)
	}
	wantErr(t, update(t, w.World, left[1], func(p *api.InstancePut) { p.Config["limits.cpu"] = "2-9" }), errs.InvalidInput, "this host has no CPU 4 (it has 0,1,2,3)")
	if got := get(t, w.World, left[1]).Config["limits.cpu"]; got != "" {
		t.Errorf("the record kept %q", got)
	}
}

// A daemon that comes back leaves everyone where it is, and knows it: the next one to start goes where there is room.
func TestCPUsAfterARestart(t *testing.T) {
	w := newCPUWorld(t)
	for _, n := range strings.Fields("a b c") {
		w.launch(t, n, "1")
	}
	before := []string{w.cpus("a"), w.cpus("b"), w.cpus("c")}
	w.Restart(t)
	if now := []string{w.cpus("a"), w.cpus("b"), w.cpus("c")}; !slices.Equal(now, before) || w.Guests.Calls("setlimits") != 0 {
		t.Errorf("CPUs %v, before the restart %v", now, before)
	}
	w.launch(t, "d", "1")
	if got := w.load("a", "b", "c", "d"); got != "map[0:1 1:1 2:1 3:1]" {
		t.Errorf("CPUs %s", got)
	}
}

// A change that the driver refuses is taken back, and the next one is written even where it says what was so before.
func TestCPUChangeFails(t *testing.T) {
	w := newCPUWorld(t)
	w.launch(t, "a", "0-1")
	must(t, w.Guests.Inject("setlimits * nth 1 after unavailable no answer"))
	err := update(t, w.World, "a", func(p *api.InstancePut) { p.Config["limits.cpu"] = "2-3" })
	wantErr(t, err, errs.UnavailableClass, "no answer")
	if rec, is := get(t, w.World, "a").Config["limits.cpu"], w.cpus("a"); rec != "0-1" || is != "0,1" {
		t.Errorf("limits.cpu is %q and the instance runs on %q", rec, is)
	}
}
