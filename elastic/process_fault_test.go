package elastic_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/testring"
)

// TestPausedLeader stops the leader's process for as long as it takes to be replaced, and lets it go on: it must not believe that it leads.
func TestPausedLeader(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	ms := newMachines(t, wan())
	names := []string{"a", "b", "c", "d"}
	ms.Start(names...)
	ms.UntilTally("a", "3 voters, 1 standbys, 0 spares")
	lead := ms.Leader(names...)
	through := "a"
	if lead == "a" {
		through = "b"
	}
	w := ms.write(through)
	ms.Until("a write", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.keys) > 20 })
	w.reset()
	ms.Signal(lead, syscall.SIGSTOP)
	ms.Until("a replacement", func() bool {
		for _, m := range ms.View(through).Members {
			if m.Name == lead {
				return m.Role == elastic.Spare
			}
		}
		return false
	})
	paused := ms.Status(lead).Name == "" // it does not answer
	ms.Signal(lead, syscall.SIGCONT)
	ms.UntilTally(through, "3 voters, 1 standbys, 0 spares")
	gap, keys := w.end()
	t.Logf("leader paused: longest time without a write %v", gap)
	if !paused {
		t.Error("the leader was not paused")
	}
	ms.allThere(lead, keys[max(0, len(keys)-200):]) // through the machine that was paused
	if s := ms.Status(lead); s.Leader {
		t.Errorf("it still leads: %+v", s)
	}
}

// TestKillAll has the power go out everywhere, in the middle of writes.
func TestKillAll(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	ms := newMachines(t, wan())
	names := []string{"a", "b", "c", "d", "e", "f"}
	ms.Start(names...)
	ms.UntilTally("f", "3 voters, 2 standbys, 1 spares")
	before := map[string]string{}
	for _, n := range names {
		before[n] = ms.Status(n).Member
	}
	w := ms.write("f")
	ms.Until("writes", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.keys) > 100 })
	for _, n := range names {
		ms.Kill(n)
	}
	_, keys := w.end()
	begin := time.Now()
	for _, n := range names {
		ms.Run(n)
	}
	ms.allThere("f", keys)
	t.Logf("all %d acknowledged writes are there %v after the first start", len(keys), time.Since(begin))
	ms.UntilTally("f", "3 voters, 2 standbys, 1 spares")
	for _, n := range names {
		if got := ms.Status(n).Member; got != before[n] {
			t.Errorf("%s was member %q and is %q", n, before[n], got)
		}
	}
}

// TestKillWhileJoining kills a machine again and again while it gets its copy, and while it loses it.
func TestKillWhileJoining(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	ms := newMachines(t, wan())
	ms.Start("a", "b")
	ms.UntilTally("a", "1 voters, 1 standbys, 0 spares")
	ms.Must("a", "/put?k=k&v=v")
	for i := range 12 {
		if i%2 == 0 {
			ms.Must("a", "/put?k="+elastic.StandbysKey+"&v=0") // its copy goes
		} else {
			ms.Must("a", "/put?k="+elastic.StandbysKey+"&v=2") // and comes back
		}
		time.Sleep(time.Duration(i*9) * time.Millisecond) // somewhere in it
		ms.Kill("b")
		ms.Run("b")
	}
	ms.Must("a", "/put?k="+elastic.StandbysKey+"&v=2")
	ms.UntilTally("a", "1 voters, 1 standbys, 0 spares")
	ms.Until("b has its copy", func() bool { s := ms.Status("b"); return s.Role == elastic.Standby && s.Quorum })
	if got := ms.Must("b", "/get?k=k"); got != `"v"` {
		t.Errorf("k is %s", got)
	}
	if old, _ := filepath.Glob(filepath.Join(ms.All["b"].Config.Dir, "db", "etcd.old-*")); len(old) == 0 || len(old) > 2 {
		t.Errorf("old data: %v", old)
	}
}

// TestLostMajorityAndDisks kills two of three voters and wipes their disks: one recovers, they begin anew.
func TestLostMajorityAndDisks(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	ms := newMachines(t, wan())
	ms.Start("a", "b", "c")
	ms.UntilTally("c", "3 voters, 0 standbys, 0 spares")
	w := ms.write("c")
	ms.Until("writes", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.keys) > 100 })
	_, keys := w.end()
	for _, n := range []string{"a", "b"} {
		ms.Kill(n)
		if err := os.RemoveAll(filepath.Join(ms.All[n].Config.Dir, "db")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ms.Ask("c", "/put?k=k&v=v", 2*time.Second); err == nil {
		t.Fatal("a write without a majority")
	}
	ms.Kill("c") // the survivor too: it is recovered from its disk
	ms.Run("c")
	begin := time.Now()
	ms.Must("c", "/recover")
	t.Logf("recovered after %v", time.Since(begin))
	ms.allThere("c", keys)
	for _, n := range []string{"a", "b"} {
		ms.Run(n)
		if s := ms.Status(n); s.Running {
			t.Errorf("%s begins with %+v", n, s)
		}
		if _, err := ms.Ask(n, "/join?via="+ms.All["c"].Config.Address, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ms.UntilTally("c", "3 voters, 0 standbys, 0 spares")
	ms.allThere("a", keys[:10])
	for _, n := range []string{"a", "b", "c"} {
		if log := ms.All[n].Log.String(); strings.Contains(log, "panic") {
			t.Errorf("%s:\n%s", n, log)
		}
	}
}

// TestPausedHost stops all processes for longer than after which a machine counts as dead, as a host does that suspends its virtual machines. The leader goes on
// before some of the others: it has not heard of them for long, but has hardly asked, and must not take them for dead.
func TestPausedHost(t *testing.T) {
	testring.Need(t, 2, testring.Root)
	c := wan()
	c.Offline = 6 * time.Second
	ms := newMachines(t, c)
	names := []string{"a", "b", "c", "d"}
	ms.Start(names...)
	ms.UntilTally("a", "3 voters, 1 standbys, 0 spares")
	before := map[string]string{}
	for _, n := range names {
		before[n] = ms.Status(n).Member
	}
	for range 2 {
		lead := ms.Leader(names...)
		first, rest := []string{lead}, []string{}
		for _, m := range ms.View(lead).Members {
			switch {
			case m.Name == lead:
			case m.Role == elastic.Voter && len(first) == 1: // with it there is a majority
				first = append(first, m.Name)
			default:
				rest = append(rest, m.Name)
			}
		}
		for _, n := range names {
			ms.Signal(n, syscall.SIGSTOP)
		}
		time.Sleep(ms.Base.Offline + time.Second) // what is tested is that this time passes
		for _, n := range first {
			ms.Signal(n, syscall.SIGCONT)
		}
		time.Sleep(ms.Base.Offline / 4)
		for _, n := range rest {
			ms.Signal(n, syscall.SIGCONT)
		}
		ms.Must(lead, "/put?k=k&v=v")
		ms.Until("all are heard", func() bool {
			v := ms.View(lead)
			online := 0
			for _, m := range v.Members {
				if m.Online {
					online++
				}
			}
			return online == 4
		})
	}
	for _, n := range names {
		if got := ms.Status(n).Member; got != before[n] {
			t.Errorf("%s was member %s and is %q", n, before[n], got)
		}
	}
	if t.Failed() {
		for _, m := range ms.All {
			t.Logf("%s:\n%s", m.Config.Name, &m.Log)
		}
	}
}
