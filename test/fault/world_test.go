package fault_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
	"github.com/shoal-project/shoal/test/harness"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	harness.Main(m)
}

// world is a daemon that was set up, with an image.
type world struct {
	*harness.World
	t testing.TB
}

type object = map[string]any

// empty makes a world whose daemon does not run yet. At the end the world is compared with its records.
func empty(t testing.TB) *world {
	t.Helper()
	harness.Needs(t)
	w := &world{harness.New(t, harness.Build(t)), t}
	t.Cleanup(func() { w.CheckEmpty(t) })
	return w
}

// boot makes a world with a running daemon, a pool, a network, and the image "tiny".
func boot(t testing.TB) *world {
	t.Helper()
	w := empty(t)
	w.must(w.Start())
	w.setUp()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	harness.Must(w.t, err)
}

func (w *world) setUp() {
	w.t.Helper()
	w.must(w.Shoal("admin", "init", "--minimal"))
	tiny := filepath.Join(w.Bin, "tiny")
	w.must(w.Shoal("image", "import", tiny+".meta.tar.gz", tiny+".squashfs", "--alias", "tiny"))
}

// run does what must succeed.
func (w *world) run(method, path string, body any) {
	w.t.Helper()
	if _, err := w.Run(method, path, body); err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func instance(name string, config map[string]string) object {
	return object{"name": name, "config": config, "source": object{"type": "image", "alias": "tiny"}}
}

func (w *world) launch(name string, config map[string]string) {
	w.t.Helper()
	w.run("POST", "/1.0/instances", instance(name, config))
	w.power(name, "start", false)
}

func (w *world) power(name, action string, force bool) {
	w.t.Helper()
	w.run("PUT", "/1.0/instances/"+name+"/state", object{"action": action, "force": force, "timeout": 20})
}

// remove deletes an instance whatever it does, and does nothing when there is none.
func (w *world) remove(name string) {
	w.t.Helper()
	if r, err := w.Do("GET", "/1.0/instances/"+name, nil); err == nil && r.Code == 404 {
		return
	}
	if out, err := w.Client("shoal", "delete", "--force", name); err != nil {
		w.t.Fatalf("delete %s: %v %s", name, err, out)
	}
}

func (w *world) status(name string) string {
	w.t.Helper()
	var i api.Instance
	w.Get(w.t, "/1.0/instances/"+name, &i)
	return i.Status
}

func (w *world) state(name string) (s api.InstanceState) {
	w.t.Helper()
	w.Get(w.t, "/1.0/instances/"+name+"/state", &s)
	return s
}

// exec runs a command in an instance and returns its output.
func (w *world) exec(name string, cmd ...string) (string, error) {
	return w.Client("shoal", append([]string{"exec", name, "-T", "--"}, cmd...)...)
}

// count is how far the counter in an instance has come.
func (w *world) count(name string) int {
	w.t.Helper()
	out, err := w.exec(name, "cat", "/run/count")
	w.must(err)
	n, err := strconv.Atoi(strings.TrimSpace(out))
	w.must(err)
	return n
}

// address waits for the IPv4 address of an instance.
func (w *world) address(name string) (addr string) {
	w.t.Helper()
	harness.Eventually(w.t, name+" has an address", func() bool {
		for _, a := range w.state(name).Network["eth0"].Addresses {
			if a.Family == "inet" && a.Scope == "global" {
				addr = a.Address
			}
		}
		return addr != ""
	})
	return addr
}

// subject is an instance that must not notice what happens to the daemon.
type subject struct {
	w     *world
	name  string
	pid   int64
	count int
	addr  string
}

// watch makes an instance that counts.
func (w *world) watch(name string) *subject {
	w.t.Helper()
	w.launch(name, map[string]string{"environment.TICK": "1"})
	s := &subject{w: w, name: name, addr: w.address(name), pid: w.state(name).Pid}
	harness.Eventually(w.t, "the counter counts", func() bool {
		out, err := w.exec(name, "cat", "/run/count")
		return err == nil && strings.TrimSpace(out) != ""
	})
	s.count = w.count(name)
	return s
}

// untouched fails the test when the instance is not what it was.
func (s *subject) untouched() {
	s.w.t.Helper()
	st := s.w.state(s.name)
	if st.Status != "Running" || st.Pid != s.pid {
		s.w.t.Fatalf("%s was touched: %s, PID %d, was %d", s.name, st.Status, st.Pid, s.pid)
	}
	harness.Eventually(s.w.t, "the counter in "+s.name+" goes on", func() bool {
		n := s.w.count(s.name)
		if n < s.count {
			s.w.t.Fatalf("the counter in %s fell from %d to %d", s.name, s.count, n)
		}
		return n > s.count
	})
	s.count = s.w.count(s.name)
	if out, err := s.w.Inside("busybox", "ping", "-c", "1", "-W", "5", s.addr).CombinedOutput(); err != nil {
		s.w.t.Fatalf("%s does not answer on %s: %v %s", s.name, s.addr, err, out)
	}
}

// gapless fails the test when a line is missing in the console log.
func (s *subject) gapless() {
	s.w.t.Helper()
	r, err := s.w.Do("GET", "/1.0/instances/"+s.name+"/console", nil)
	s.w.must(err)
	last, lines := 0, 0
	for line := range strings.Lines(string(r.Raw)) {
		var n int
		if _, err := fmt.Sscanf(line, "tick %d", &n); err != nil || !strings.HasSuffix(line, "\n") {
			continue
		}
		if lines++; last != 0 && n != last+1 {
			s.w.t.Fatalf("the console log of %s goes from tick %d to tick %d", s.name, last, n)
		}
		last = n
	}
	if lines == 0 || last < s.count-20 {
		s.w.t.Fatalf("the console log ends at tick %d of %d:\n%.500s", last, s.count, r.Raw)
	}
}

// fds counts the open files of the daemon.
func (w *world) fds() int {
	w.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.PID()))
	w.must(err)
	return len(list)
}

func decode[T any](t testing.TB, raw json.RawMessage) (v T) {
	t.Helper()
	harness.Must(t, json.Unmarshal(raw, &v))
	return v
}
