package elastic_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
)

// TestSizeChangesAtRunTime does what mgmt's smoke test does with etcdctl.
func TestSizeChangesAtRunTime(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b", "c", "d", "e")
	f.untilTally("a", "3 voters, 2 standbys, 0 spares")
	f.put("d", elastic.SizeKey, "5")
	f.untilTally("a", "5 voters, 0 standbys, 0 spares")
	f.put("e", elastic.SizeKey, "4")
	f.until("a complaint", func() bool {
		v, _ := f.nodes["b"].Members()
		return strings.Contains(v.Problem, "1, 3, 5 or 7")
	})
	f.put("e", elastic.SizeKey, "3")
	f.untilTally("a", "3 voters, 2 standbys, 0 spares")
	if err := f.nodes["b"].SetTargets(t.Context(), elastic.Targets{Voters: 1, Standbys: 1}); err != nil {
		t.Fatal(err)
	}
	f.untilTally("e", "1 voters, 1 standbys, 3 spares")
	for _, bad := range []elastic.Targets{{Voters: 0}, {Voters: 2}, {Voters: 9}, {Voters: 3, Standbys: -1}, {Voters: 3, Standbys: 6}} {
		if err := f.nodes["a"].SetTargets(t.Context(), bad); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestDeadVoterIsReplaced(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b", "c", "d")
	f.untilTally("a", "3 voters, 1 standbys, 0 spares")
	lead := f.leader()
	f.put("d", "k", "v")
	f.stop(lead)
	rest := "a"
	if lead == "a" {
		rest = "b"
	}
	var dead time.Time
	f.until("three live voters", func() bool {
		if roles := f.roles(rest); dead.IsZero() && strings.Contains(roles, "!") {
			dead = time.Now()
		}
		return strings.Contains(f.roles(rest), lead+"=spare") && strings.Count(f.roles(rest), "voter") == 3
	})
	t.Logf("replaced %v after it counted as dead", time.Since(dead))
	if dead.IsZero() || strings.Contains(f.roles(rest), "voter!") {
		t.Errorf("dead at %v: %s", dead, f.roles(rest))
	}
	if got := f.get("d", "k"); got != "v" {
		t.Errorf("k is %q", got)
	}
	// it comes back: its copy is worth nothing any more, it gets another role
	f.open(lead)
	f.untilTally(rest, "3 voters, 1 standbys, 0 spares")
	if old, _ := filepath.Glob(filepath.Join(f.cfg[lead].Dir, "etcd.old-*")); len(old) != 1 {
		t.Errorf("its old data: %v", old)
	}
	if got := f.get(lead, "k"); got != "v" {
		t.Errorf("k is %q on the machine that came back", got)
	}
}

// TestStopIsNoLeave restarts all machines, the leader first and then at once: roles and ids stay.
func TestStopIsNoLeave(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) { c.Offline = 20 * time.Second })
	f.start("a", "b", "c", "d", "e", "f")
	f.untilTally("a", "3 voters, 2 standbys, 1 spares")
	ids := func() string {
		var out []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			out = append(out, f.nodes[name].Status().Member)
		}
		return strings.Join(out, " ")
	}
	before := ids()
	lead := f.leader()
	f.stop(lead)
	f.put("f", "while", "away")
	f.open(lead)
	f.until("the machine back", func() bool { return f.nodes[lead].Status().Quorum })
	names := []string{"a", "b", "c", "d", "e", "f"}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { closeNode(t, f.nodes[name]) })
	}
	wg.Wait()
	clear(f.nodes)
	begin := time.Now()
	for _, name := range names {
		f.open(name)
	}
	if got := f.get("f", "while"); got != "away" { // through a spare, which has no copy
		t.Errorf("after the restart of all: %q", got)
	}
	t.Logf("all restarted: a spare reads after %v", time.Since(begin))
	f.leader()
	f.untilTally("f", "3 voters, 2 standbys, 1 spares")
	if after := ids(); after != before {
		t.Errorf("members were %s and are %s", before, after)
	}
}

func TestLeave(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a")
	if err := f.nodes["a"].Leave(t.Context()); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("the last machine left: %v", err)
	}
	f.start("b", "c", "d", "e")
	f.untilTally("a", "3 voters, 2 standbys, 0 spares")
	for _, name := range []string{"a", "d", "b", "c"} { // the leader, a standby or what became of it, and down to one
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := f.nodes[name].Leave(ctx); err != nil {
			t.Fatalf("%s: %v; %s", name, err, f.roles("e"))
		}
		cancel()
		if s := f.nodes[name].Status(); s.Cluster != "" || s.Running {
			t.Errorf("%s left and is %+v", name, s)
		}
		f.put("e", "without", name)
		if err := f.nodes[name].Leave(t.Context()); err != nil {
			t.Errorf("leaving again: %v", err)
		}
	}
	f.untilTally("e", "1 voters, 0 standbys, 0 spares")
	if err := f.nodes["a"].Join(t.Context(), f.cfg["e"].Address); err != nil { // and back
		t.Fatal(err)
	}
	f.untilTally("e", "1 voters, 1 standbys, 0 spares")
	if got := f.get("a", "without"); got != "c" {
		t.Errorf("after it came back: %q", got)
	}
}

func TestDeadMachineIsRemoved(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b", "c", "d")
	f.untilTally("a", "3 voters, 1 standbys, 0 spares")
	f.stop("c")
	if err := f.nodes["b"].Remove(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if err := f.nodes["b"].Remove(t.Context(), "none"); !errs.IsNotFound(err) {
		t.Errorf("a machine that is not there: %v", err)
	}
	f.until("c gone", func() bool {
		return !strings.Contains(f.roles("a"), "c=") && f.tally("a") == "3 voters, 0 standbys, 0 spares"
	})
	n := f.open("c") // it does not creep back in
	f.until("c in no cluster", func() bool { s := n.Status(); return !s.Running && s.ID == "" })
	f.put("a", "k", "v")
	if strings.Contains(f.roles("a"), "c=") {
		t.Errorf("a removed machine is back: %s", f.roles("a"))
	}
}

func TestJoinStorm(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a")
	via := f.cfg["a"].Address
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 10 {
		name := fmt.Sprintf("n%d", i)
		n := f.open(name)
		wg.Go(func() {
			if err := n.Join(t.Context(), via); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	joined := time.Since(begin)
	f.until("all roles", func() bool { return f.tally("n9") == "3 voters, 2 standbys, 6 spares" })
	t.Logf("ten joined after %v, roles after %v", joined, time.Since(begin))
}

func TestNamesAndAddressesAreTaken(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b")
	if err := f.nodes["b"].Join(t.Context(), f.cfg["a"].Address); err != nil && !errs.IsExists(err) {
		t.Errorf("joining again: %v", err)
	}
	if err := f.nodes["a"].Bootstrap(t.Context()); !errs.IsExists(err) {
		t.Errorf("a second cluster: %v", err)
	}
	// another machine with b's name, whose certificate even says so
	cfg := f.cfg["b"]
	cfg.Dir, cfg.Address = filepath.Join(f.root, "other"), "127.0.0.1:0"
	f.cfg["other"] = cfg
	n := f.open("other")
	if err := n.Join(t.Context(), f.cfg["a"].Address); !errs.IsExists(err) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("a taken name: %v", err)
	}
	if s := n.Status(); s.ID != "" {
		t.Errorf("what was refused left %+v", s)
	}
	// and when the first b is gone for good, its disk with it, the new one takes its place
	f.stop("b")
	if err := n.Join(t.Context(), f.cfg["a"].Address); err != nil {
		t.Errorf("a new machine for one that does not answer: %v", err)
	}
	f.untilTally("a", "1 voters, 1 standbys, 0 spares")
}

func TestWipedAndOldDisks(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) { c.Offline = 20 * time.Second })
	f.start("a", "b", "c", "d")
	f.untilTally("a", "3 voters, 1 standbys, 0 spares")
	dir := f.cfg["b"].Dir
	first := f.nodes["b"].Status().Member

	// wiped: the identity is there, the data is not
	f.stop("b")
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	f.open("b") // one more start that the backup knows nothing of
	f.until("b's start known", func() bool { return f.nodes["b"].Status().Quorum })
	f.put("b", "k", "v")
	f.stop("b")
	if err := os.RemoveAll(filepath.Join(dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	f.open("b")
	f.until("b with another member", func() bool { s := f.nodes["b"].Status(); return s.Quorum && s.Member != first })
	f.untilTally("a", "3 voters, 1 standbys, 0 spares")

	// an old copy of the disk: its member was removed, and its count of starts is too low
	second := f.nodes["b"].Status().Member
	f.stop("b")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	f.open("b")
	f.until("b with a third member", func() bool {
		s := f.nodes["b"].Status()
		return s.Quorum && s.Member != first && s.Member != second
	})
	f.untilTally("a", "3 voters, 1 standbys, 0 spares")
	if got := f.get("b", "k"); got != "v" {
		t.Errorf("k is %q", got)
	}
}

// TestRestoredDiskOfAMember puts back an old copy of a disk whose member is still in the cluster: started, it would have forgotten what it promised.
func TestRestoredDiskOfAMember(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) { c.Offline = 20 * time.Second })
	f.start("a", "b", "c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	first := f.nodes["b"].Status().Member
	dir, backup := f.cfg["b"].Dir, filepath.Join(t.TempDir(), "backup")
	f.stop("b")
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	f.open("b")
	f.until("b's second start in its record", func() bool {
		c, _, err := f.nodes["a"].Client(t.Context())
		if err != nil {
			return false
		}
		r, err := c.Get(t.Context(), elastic.Prefix+"nodes/b")
		return err == nil && len(r.Kvs) == 1 && strings.Contains(string(r.Kvs[0].Value), `"starts":2`)
	})
	f.put("b", "k", "v")
	f.stop("b")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	f.open("b")
	f.until("b with a new copy", func() bool { s := f.nodes["b"].Status(); return s.Quorum && s.Member != first })
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	if got := f.get("b", "k"); got != "v" {
		t.Errorf("k is %q", got)
	}
}

// TestDomainsAreSpread begins with three voters in one failure domain and lets machines of two others in.
func TestDomainsAreSpread(t *testing.T) {
	f := newFleet(t, func(c *elastic.NodeConfig) {
		c.Domain = map[string]string{"a": "x", "b": "x", "c": "x", "d": "y", "e": "z"}[c.Name]
	})
	f.start("a", "b", "c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	f.start("d", "e")
	f.until("a voter in each domain", func() bool {
		v, _ := f.nodes["e"].Members()
		domains := map[string]int{}
		for _, m := range v.Members {
			if m.Role == elastic.Voter {
				domains[m.Domain]++
			}
		}
		return len(domains) == 3 && f.tally("e") == "3 voters, 2 standbys, 0 spares"
	})
	f.put("d", "k", "v")
}
