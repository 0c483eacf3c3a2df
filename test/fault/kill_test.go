package fault_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-project/shoal/test/harness"
)

// deed is something that a client asks for and that the daemon is killed in.
type deed struct {
	name string
	// ready makes the world in which it can be asked for; called before every kill, with anything left of the one before.
	ready func(w *world)
	ask   func(w *world) error
	// again asks once more after the restart and must succeed, whether the first one was finished, undone, or never begun.
	again func(w *world)
}

func deeds() []deed {
	const victim = "/1.0/instances/victim"
	state := func(action string, force bool) func(w *world) error {
		return func(w *world) error {
			_, err := w.Run("PUT", victim+"/state", object{"action": action, "force": force, "timeout": 20})
			return err
		}
	}
	ask := func(method, path string, body any) func(w *world) error {
		return func(w *world) error { _, err := w.Run(method, path, body); return err }
	}
	fresh := func(w *world) { w.remove("victim") }
	stopped := func(w *world) { w.remove("victim"); w.run("POST", "/1.0/instances", instance("victim", nil)) }
	running := func(w *world) { w.remove("victim"); w.launch("victim", nil) }
	usable := func(w *world) { w.remove("victim"); w.launch("victim", nil) }
	profile := func(w *world) error {
		_, err := w.Run("PATCH", "/1.0/profiles/default", object{"config": map[string]string{"limits.memory": "512MiB", "user.x": time.Now().String()}})
		return err
	}
	return []deed{
		{"create", fresh, ask("POST", "/1.0/instances", instance("victim", nil)), usable},
		{"launch", fresh, func(w *world) error {
			if err := ask("POST", "/1.0/instances", instance("victim", nil))(w); err != nil {
				return err
			}
			return state("start", false)(w)
		}, usable},
		{"start", stopped, state("start", false), usable},
		{"stop", running, state("stop", false), usable},
		{"stop by force", running, state("stop", true), usable},
		{"restart", running, state("restart", true), usable},
		{"delete", stopped, ask("DELETE", victim, nil), usable},
		{"profile", running, profile, func(w *world) { w.must(profile(w)) }},
		{"import", func(w *world) { w.forget() }, func(w *world) error { return w.upload() }, func(w *world) { w.forget(); w.must(w.upload()) }},
	}
}

const unified = "/1.0/images/aliases/unified"

// upload imports the image that is one archive, and forget deletes it.
func (w *world) upload() error {
	f, err := os.Open(filepath.Join(w.Bin, "tiny.tar.gz"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	o, err := w.Run("POST", "/1.0/images", f, "Content-Type", "application/octet-stream", "X-LXD-filename", "tiny.tar.gz")
	if err != nil {
		return err
	}
	_, err = w.Run("POST", "/1.0/images/aliases", object{"name": "unified", "target": o.Metadata["fingerprint"]})
	return err
}

func (w *world) forget() {
	w.t.Helper()
	var images []struct {
		Fingerprint string
		Aliases     []struct{ Name string }
	}
	w.Get(w.t, "/1.0/images?recursion=1", &images)
	for _, i := range images {
		if len(i.Aliases) == 0 || i.Aliases[0].Name != "tiny" {
			w.run("DELETE", "/1.0/images/"+i.Fingerprint, nil)
		}
	}
}

// TestKillAnywhere kills the daemon at points spread over everything that a client can ask for.
func TestKillAnywhere(t *testing.T) {
	w := boot(t)
	keep := w.watch("keep")
	points := 4
	if testing.Short() {
		points = 1
	}
	kills, cut, began := 0, 0, time.Now()
	seed := uint64(began.UnixNano())
	chance := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for _, d := range deeds() {
		d.ready(w)
		asked := time.Now()
		w.must(d.ask(w))
		took := time.Since(asked)
		for i := range points {
			d.ready(w)
			at := time.Duration((float64(i) + chance.Float64()) / float64(points) * float64(took))
			if w.killIn(d, at) {
				cut++
			}
			kills++
			if t.Failed() {
				t.Fatalf("after a kill in %s, after %s of %s", d.name, at, took)
			}
			keep.untouched()
		}
	}
	keep.gapless()
	t.Logf("%d kills in %s, %d of them before the answer", kills, time.Since(began).Round(time.Second), cut)
	if cut < kills/3 {
		t.Errorf("only %d of %d kills hit the deed: the points are wrong", cut, kills)
	}
}

// killIn asks for a deed, kills the daemon a moment later and looks at what the next one makes of it. It returns whether the
// deed had no answer yet.
func (w *world) killIn(d deed, after time.Duration) bool {
	w.t.Helper()
	done := make(chan error, 1)
	timer := time.After(after) // before asking: at zero nothing but the request has happened
	go func() { done <- d.ask(w) }()
	<-timer
	w.must(w.Kill())
	err := <-done
	if harness.Refused(err) {
		w.t.Errorf("%s was refused: %v", d.name, err)
	}
	w.must(w.Start())
	w.Check(w.t)
	d.again(w)
	w.Check(w.t)
	return err != nil
}
