package elastic_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/testring"
)

// A process of a test: this test's binary, run again with childEnv set, is one machine whose API does what the parent asks.
const childEnv = "SHOAL_TEST_ELASTIC"

type childConfig struct {
	Name, Dir, Address string
	Tick, Election     time.Duration
	Ping, Offline      time.Duration
	Voters, Standbys   int
}

// child runs in the process of a machine, until it is killed.
func child() {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		panic(err)
	}
	var n *elastic.Node
	reply := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) { reply(w, n.Status(), nil) })
	mux.HandleFunc("/view", func(w http.ResponseWriter, r *http.Request) { v, _ := n.Members(); reply(w, v, nil) })
	mux.HandleFunc("/bootstrap", func(w http.ResponseWriter, r *http.Request) { reply(w, "", n.Bootstrap(r.Context())) })
	mux.HandleFunc("/join", func(w http.ResponseWriter, r *http.Request) { reply(w, "", n.Join(r.Context(), r.FormValue("via"))) })
	mux.HandleFunc("/recover", func(w http.ResponseWriter, r *http.Request) { reply(w, "", n.Recover(r.Context(), true)) })
	mux.HandleFunc("/put", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(n.Writes(), cancel)() // as kvstore/etcd does
		cl, _, err := n.Client(ctx)
		if err == nil {
			_, err = cl.Put(ctx, r.FormValue("k"), r.FormValue("v"))
		}
		reply(w, "", err)
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		cl, _, err := n.Client(r.Context())
		value := ""
		if err == nil {
			res, gerr := cl.Get(r.Context(), r.FormValue("k"))
			if err = gerr; err == nil && len(res.Kvs) > 0 {
				value = string(res.Kvs[0].Value)
			}
		}
		reply(w, value, err)
	})
	l, err := net.Listen("tcp", c.Address)
	if err == nil {
		n, err = elastic.Open(context.Background(), elastic.NodeConfig{Config: elastic.Config{Name: c.Name, Dir: filepath.Join(c.Dir, "db"), Tick: c.Tick, Election: c.Election,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil))},
			Listener: l, Address: c.Address, Certs: pki.In(c.Dir), API: mux, Ping: c.Ping, Offline: c.Offline, Targets: elastic.Targets{Voters: c.Voters, Standbys: c.Standbys}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// machines are processes, each a machine.
type machines struct {
	t    *testing.T
	ca   *pki.CA
	root string
	base childConfig
	all  map[string]*machine
	http *http.Client
}

type machine struct {
	cfg childConfig
	cmd *exec.Cmd
	log bytes.Buffer
}

func newMachines(t *testing.T, base childConfig) *machines {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	return &machines{t: t, ca: ca, root: t.TempDir(), base: base, all: map[string]*machine{}, http: &http.Client{Transport: tr}}
}

// run starts a machine, new or again.
func (ms *machines) run(name string) {
	ms.t.Helper()
	m := ms.all[name]
	if m == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			ms.t.Fatal(err)
		}
		c := ms.base
		c.Name, c.Dir, c.Address = name, filepath.Join(ms.root, name), l.Addr().String()
		l.Close()
		cert, key, err := ms.ca.Issue(pki.Member, name, time.Now(), time.Hour)
		if err == nil {
			err = pki.In(c.Dir).Write(ms.ca.CertPEM(), cert, key)
		}
		if err != nil {
			ms.t.Fatal(err)
		}
		m = &machine{cfg: c}
		ms.all[name] = m
	}
	b, err := json.Marshal(m.cfg)
	if err != nil {
		ms.t.Fatal(err)
	}
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		ms.t.Fatal(err)
	}
	cmd := m.cmd
	ms.t.Cleanup(func() {
		_ = cmd.Process.Kill() // may be dead
		_ = cmd.Wait()
	})
	ms.until(name+" answers", func() bool { _, err := ms.ask(name, "/status", time.Second); return err == nil })
}

func (ms *machines) kill(name string) {
	ms.t.Helper()
	m := ms.all[name]
	if err := m.cmd.Process.Kill(); err != nil {
		ms.t.Fatal(err)
	}
	_ = m.cmd.Wait() // killed
	if strings.Contains(m.log.String(), "panic:") {
		ms.t.Errorf("%s panicked:\n%s", name, &m.log)
	}
}

func (ms *machines) signal(name string, s syscall.Signal) {
	ms.t.Helper()
	if err := ms.all[name].cmd.Process.Signal(s); err != nil {
		ms.t.Fatal(err)
	}
}

func (ms *machines) ask(name, path string, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+ms.all[name].cfg.Address+path, nil)
	if err != nil {
		return "", err
	}
	res, err := ms.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", b)
	}
	return strings.TrimSpace(string(b)), err
}

func (ms *machines) must(name, path string) string {
	ms.t.Helper()
	s, err := ms.ask(name, path, 30*time.Second)
	if err != nil {
		ms.t.Fatalf("%s%s: %v", name, path, err)
	}
	return s
}

func (ms *machines) until(what string, ok func() bool) time.Duration {
	ms.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > 40*time.Second {
			for name, m := range ms.all {
				s, err := ms.ask(name, "/view", time.Second)
				ms.t.Logf("%s: %s %v\n%s", name, s, err, &m.log)
			}
			ms.t.Fatalf("waited too long: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func (ms *machines) start(names ...string) {
	ms.t.Helper()
	for i, name := range names {
		ms.run(name)
		if i == 0 {
			ms.must(name, "/bootstrap")
		} else {
			ms.must(name, "/join?via="+url.QueryEscape(ms.all[names[0]].cfg.Address))
		}
	}
}

func (ms *machines) view(name string) (v elastic.View) {
	if s, err := ms.ask(name, "/view", time.Second); err == nil {
		_ = json.Unmarshal([]byte(s), &v) // a view of nothing does for an error
	}
	return v
}

func (ms *machines) status(name string) (s elastic.Status) {
	if text, err := ms.ask(name, "/status", time.Second); err == nil {
		_ = json.Unmarshal([]byte(text), &s)
	}
	return s
}

func (ms *machines) tally(name string) string {
	n := [3]int{}
	for _, m := range ms.view(name).Members {
		n[m.Role]++
	}
	return fmt.Sprintf("%d voters, %d standbys, %d spares", n[elastic.Voter], n[elastic.Standby], n[elastic.Spare])
}

func (ms *machines) untilTally(name, want string) time.Duration {
	ms.t.Helper()
	return ms.until(want, func() bool { return ms.tally(name) == want })
}

func (ms *machines) leader(of ...string) (name string) {
	ms.t.Helper()
	ms.until("a leader", func() bool {
		i := slices.IndexFunc(of, func(n string) bool { return ms.status(n).Leader })
		if i >= 0 {
			name = of[i]
		}
		return i >= 0
	})
	return name
}

// writer writes through a machine without pause until its end, which returns the longest time between two acknowledged writes and all that were acknowledged.
type stream struct {
	stop chan struct{}
	done chan struct{}
	mu   sync.Mutex
	gap  time.Duration
	last time.Time
	keys []string
}

func (ms *machines) write(name string) *stream {
	w := &stream{stop: make(chan struct{}), done: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(w.done)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			default:
			}
			key := fmt.Sprintf("w-%s-%d", name, i)
			if _, err := ms.ask(name, "/put?v=v&k="+key, 20*time.Second); err == nil {
				w.mu.Lock()
				now := time.Now()
				w.gap, w.last = max(w.gap, now.Sub(w.last)), now
				w.keys = append(w.keys, key)
				w.mu.Unlock()
			}
		}
	}()
	return w
}

func (w *stream) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap, w.last = 0, time.Now()
}

func (w *stream) since() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *stream) end() (time.Duration, []string) {
	close(w.stop)
	<-w.done
	return max(w.gap, time.Since(w.last)), w.keys
}

// all fails when an acknowledged write is not there.
func (ms *machines) allThere(name string, keys []string) {
	ms.t.Helper()
	for _, k := range keys {
		if got := ms.must(name, "/get?k="+k); got != `"v"` {
			ms.t.Errorf("%s was acknowledged and is %s", k, got)
		}
	}
}

func wan() childConfig {
	return childConfig{Tick: 100 * time.Millisecond, Election: time.Second, Ping: 500 * time.Millisecond, Offline: 4 * time.Second, Voters: 3, Standbys: 2}
}

// TestKillLeader kills the leader, again and again, under a writer that goes through another machine: what was acknowledged is there, and a standby takes the place of
// the dead one as soon as that counts as dead.
func TestKillLeader(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	for _, times := range []struct {
		name           string
		tick, election time.Duration
	}{{"default", 100 * time.Millisecond, time.Second}, {"LAN", 50 * time.Millisecond, 500 * time.Millisecond}} {
		t.Run(times.name, func(t *testing.T) {
			c := wan()
			c.Tick, c.Election = times.tick, times.election
			ms := newMachines(t, c)
			names := []string{"a", "b", "c", "d", "e"}
			ms.start(names...)
			ms.untilTally("a", "3 voters, 2 standbys, 0 spares")
			var gaps, replaced []time.Duration
			for range 5 {
				lead := ms.leader(names...)
				var through string
				for _, m := range ms.view(lead).Members {
					if m.Role == elastic.Voter && m.Name != lead {
						through = m.Name
					}
				}
				w := ms.write(through)
				ms.until("a write", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.keys) > 20 })
				w.reset()
				ms.kill(lead)
				killed := time.Now()
				ms.until("writes again", func() bool { return w.since().After(killed.Add(100 * time.Millisecond)) })
				var dead time.Time
				ms.until("a replacement", func() bool {
					v := ms.view(through)
					voters := 0
					for _, m := range v.Members {
						if m.Name == lead && !m.Online && dead.IsZero() {
							dead = time.Now()
						}
						if m.Role == elastic.Voter && m.Online {
							voters++
						}
						if m.Name == lead && m.Role == elastic.Voter {
							voters = -9
						}
					}
					return voters == 3
				})
				if dead.IsZero() {
					dead = time.Now()
				}
				replaced = append(replaced, time.Since(dead))
				gap, keys := w.end()
				gaps = append(gaps, gap)
				ms.allThere(through, keys[max(0, len(keys)-200):])
				ms.run(lead) // its copy is of no use any more
				ms.untilTally(through, "3 voters, 2 standbys, 0 spares")
			}
			slices.Sort(gaps)
			slices.Sort(replaced)
			t.Logf("leader killed, first good write through another voter: median %v of %v; replaced after it counted as dead: median %v of %v", gaps[2], gaps, replaced[2], replaced)
		})
	}
}
