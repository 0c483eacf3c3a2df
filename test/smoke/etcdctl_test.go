package smoke_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/test/processes"
)

// cluster returns the settings of machines that are to find each other dead within seconds.
func cluster() processes.Config {
	return processes.Config{Tick: 100 * time.Millisecond, Election: time.Second, Ping: 500 * time.Millisecond, Offline: 4 * time.Second, Voters: 5, Standbys: 2}
}

// etcdctl runs Debian's etcdctl on a machine's socket until it succeeds: where the copy is just being started, it is sent away.
func etcdctl(ms *processes.Machines, name string, args ...string) (out []byte) {
	ms.T.Helper()
	args = append([]string{"--endpoints=unix://" + filepath.Join(ms.All[name].Config.Dir, processes.Socket), "--write-out=json", "--command-timeout=5s"}, args...)
	ms.Until(fmt.Sprintf("etcdctl %v on %s", args, name), func() bool {
		cmd := exec.CommandContext(ms.T.Context(), "etcdctl", args...)
		cmd.Env = []string{"ETCDCTL_API=3", "PATH=/usr/bin:/bin"}
		var err error
		out, err = cmd.Output()
		return err == nil
	})
	return out
}

// memberList says what etcdctl member list says: by name whether it is a learner.
func memberList(ms *processes.Machines, name string) map[string]bool {
	ms.T.Helper()
	var list struct {
		Members []struct {
			Name      string
			IsLearner bool
		}
	}
	if b := etcdctl(ms, name, "member", "list"); json.Unmarshal(b, &list) != nil {
		ms.T.Fatalf("etcdctl member list: %s", b)
	}
	learners := map[string]bool{}
	for _, m := range list.Members {
		learners[m.Name] = m.IsLearner
	}
	return learners
}

// untilVoters waits until etcdctl lists so many voters and learners, all of them by name, and for the machines themselves to see the same.
func untilVoters(ms *processes.Machines, name string, voters, learners int) {
	ms.T.Helper()
	what := fmt.Sprintf("%d voters, %d standbys, 0 spares", voters, learners)
	took := ms.UntilTally(name, what)
	took += ms.Until("etcdctl: "+what, func() bool {
		list := memberList(ms, name)
		n := 0
		for of, learner := range list {
			if ms.All[of] == nil {
				return false // it has not started yet and has no name
			}
			if learner {
				n++
			}
		}
		return len(list) == voters+learners && n == learners
	})
	ms.T.Logf("%s after %v", what, took)
}

// TestSmoke is mgmt's smoke test: h1, h2 and h3, three wanted, h4 and h5, five wanted, three again.
func TestSmoke(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("etcdctl"))
	ms := processes.New(t, cluster())
	ms.Start("h1", "h2", "h3")
	untilVoters(ms, "h1", 3, 0)
	etcdctl(ms, "h1", "put", elastic.SizeKey, "3") // five were wanted
	for _, name := range []string{"h4", "h5"} {
		ms.Run(name)
		ms.Must(name, "/join?via="+ms.All["h1"].Config.Address)
	}
	untilVoters(ms, "h1", 3, 2)
	if list := memberList(ms, "h1"); !list["h4"] || !list["h5"] {
		t.Errorf("the newcomers have votes: %v", list)
	}
	etcdctl(ms, "h2", "put", elastic.SizeKey, "5")
	untilVoters(ms, "h2", 5, 0)
	etcdctl(ms, "h2", "put", "kept", "yes")
	etcdctl(ms, "h2", "put", elastic.SizeKey, "3")
	untilVoters(ms, "h2", 3, 2)
	for name := range ms.All {
		if got := ms.Must(name, "/get?k=kept"); got != `"yes"` {
			t.Errorf("%s reads %s", name, got)
		}
	}
}
