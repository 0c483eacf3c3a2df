package elastic_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
)

// TestRecover loses two of three voters for ever: the standby, which has everything, becomes the first of a new cluster that the others follow.
func TestRecover(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b", "c", "d", "e")
	f.untilTally("a", "3 voters, 2 standbys, 0 spares")
	var standby string
	var voters []string
	for name, n := range f.nodes {
		if n.Status().Role == elastic.Standby {
			standby = name
		} else {
			voters = append(voters, name)
		}
	}
	for i := range 50 {
		f.put(standby, fmt.Sprint("k", i), "v")
	}
	before := f.nodes[standby].Status()
	if err := f.nodes[standby].Recover(t.Context(), true); !errs.IsConflict(err) {
		t.Errorf("with a majority: %v", err)
	}
	f.stop(voters[0])
	f.stop(voters[1])
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	if c, _, err := f.nodes[standby].Client(ctx); err == nil {
		if _, err = c.Put(ctx, "lost", "v"); err == nil {
			t.Fatal("a write without a majority")
		}
	}
	cancel()
	begin := time.Now()
	best, _ := elastic.Best(f.nodes[standby].Survivors(t.Context()))
	worse := standby
	for name := range f.nodes {
		if name != best.Name {
			worse = name
		}
	}
	if s := f.nodes[worse].Status(); s.Applied < best.Applied || s.Term < best.Term {
		if err := f.nodes[worse].Recover(t.Context(), false); !errs.IsConflict(err) || !strings.Contains(err.Error(), best.Name) {
			t.Errorf("on %s, which has less than %s: %v", worse, best.Name, err)
		}
	}
	if err := f.nodes[standby].Recover(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	t.Logf("recovered after %v", time.Since(begin))
	after := f.nodes[standby].Status()
	if after.Cluster == before.Cluster || after.Epoch != before.Epoch+1 || after.Revision <= before.Revision {
		t.Errorf("before %+v, after %+v", before, after)
	}
	f.untilTally(standby, "3 voters, 0 standbys, 2 spares")
	for i := range 50 {
		if got := f.get(standby, fmt.Sprint("k", i)); got != "v" {
			t.Errorf("k%d is %q", i, got)
		}
	}
	// those who were away come back with the old cluster's data: it is no match for the new one
	f.open(voters[0])
	f.open(voters[1])
	f.untilTally(standby, "3 voters, 2 standbys, 0 spares")
	for _, name := range voters {
		if s := f.nodes[name].Status(); s.Cluster != after.Cluster || s.Epoch != after.Epoch {
			t.Errorf("%s: %+v", name, s)
		}
		if old, _ := filepath.Glob(filepath.Join(f.cfg[name].Dir, "etcd.old-*")); len(old) == 0 {
			t.Errorf("%s: its data was not kept", name)
		}
	}
}

// TestAllComeBackAfterRecovery has the others down while one recovers; both of the old majority start again together, and must not make a cluster of
// their own once they hear of the new one.
func TestAllComeBackAfterRecovery(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b", "c")
	f.untilTally("a", "3 voters, 0 standbys, 0 spares")
	f.put("c", "k", "v")
	f.stop("a")
	f.stop("b")
	if err := f.nodes["c"].Recover(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	f.put("c", "after", "v")
	want := f.nodes["c"].Status()
	f.open("a")
	f.open("b")
	f.untilTally("c", "3 voters, 0 standbys, 0 spares")
	for _, name := range []string{"a", "b"} {
		if s := f.nodes[name].Status(); s.Cluster != want.Cluster {
			t.Errorf("%s: %+v", name, s)
		}
		if got := f.get(name, "after"); got != "v" {
			t.Errorf("through %s: %q", name, got)
		}
	}
}

func TestBest(t *testing.T) {
	s := func(name string, epoch int64, term, applied uint64) elastic.Status {
		return elastic.Status{Name: name, Epoch: epoch, Term: term, Applied: applied}
	}
	for _, tt := range []struct {
		name string
		in   []elastic.Status
		want string
	}{
		{"index", []elastic.Status{s("a", 0, 2, 10), s("b", 0, 2, 11)}, "b"},
		{"term before index", []elastic.Status{s("a", 0, 3, 10), s("b", 0, 2, 11)}, "a"},
		{"epoch before term", []elastic.Status{s("a", 0, 9, 10), s("b", 1, 2, 1)}, "b"},
		{"the first of equals", []elastic.Status{s("b", 0, 2, 10), s("a", 0, 2, 10)}, "a"},
	} {
		if got, _ := elastic.Best(tt.in); got.Name != tt.want {
			t.Errorf("%s: %s", tt.name, got.Name)
		}
	}
	if _, ok := elastic.Best(nil); ok {
		t.Error("the best of none")
	}
}

func TestNodeSnapshotAndRestore(t *testing.T) {
	f := newFleet(t, nil)
	f.start("a", "b")
	f.untilTally("a", "1 voters, 1 standbys, 0 spares")
	f.put("a", "k", "in the snapshot")
	f.until("the standby has it", func() bool { return f.nodes["b"].Status().Revision >= f.nodes["a"].Status().Revision })
	snap := filepath.Join(t.TempDir(), "snap.db")
	if err := f.nodes["b"].Snapshot(t.Context(), snap); err != nil { // a standby's
		t.Fatal(err)
	}
	f.put("a", "k", "later")
	if err := f.nodes["a"].Restore(t.Context(), snap+".none"); err == nil {
		t.Error("a missing file was restored")
	}
	if got := f.get("b", "k"); got != "later" {
		t.Errorf("after a restore that failed: %q", got)
	}
	if err := f.nodes["a"].Restore(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	f.untilTally("a", "1 voters, 1 standbys, 0 spares")
	f.until("b follows", func() bool { return f.nodes["b"].Status().Cluster == f.nodes["a"].Status().Cluster })
	if got := f.get("b", "k"); got != "in the snapshot" {
		t.Errorf("k is %q", got)
	}
	// and on a machine that belongs to no cluster
	n := f.open("z")
	if err := n.Restore(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	if got := f.get("z", "k"); got != "in the snapshot" {
		t.Errorf("on a new machine: %q", got)
	}
}
