package elastic_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/test/processes"
)

type machines struct{ *processes.Machines }

func newMachines(t *testing.T, base processes.Config) *machines {
	t.Helper()
	return &machines{processes.New(t, base)}
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
			if _, err := ms.Ask(name, "/put?v=v&k="+key, 20*time.Second); err == nil {
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
	ms.T.Helper()
	for _, k := range keys {
		if got := ms.Must(name, "/get?k="+k); got != `"v"` {
			ms.T.Errorf("%s was acknowledged and is %s", k, got)
		}
	}
}

func wan() processes.Config {
	return processes.Config{Tick: 100 * time.Millisecond, Election: time.Second, Ping: 500 * time.Millisecond, Offline: 4 * time.Second, Voters: 3, Standbys: 2}
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
			ms.Start(names...)
			ms.UntilTally("a", "3 voters, 2 standbys, 0 spares")
			var gaps, replaced []time.Duration
			for range 5 {
				lead := ms.Leader(names...)
				var through string
				for _, m := range ms.View(lead).Members {
					if m.Role == elastic.Voter && m.Name != lead {
						through = m.Name
					}
				}
				w := ms.write(through)
				ms.Until("a write", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.keys) > 20 })
				w.reset()
				ms.Kill(lead)
				killed := time.Now()
				ms.Until("writes again", func() bool { return w.since().After(killed.Add(100 * time.Millisecond)) })
				var dead time.Time
				ms.Until("a replacement", func() bool {
					v := ms.View(through)
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
				ms.Run(lead) // its copy is of no use any more
				ms.UntilTally(through, "3 voters, 2 standbys, 0 spares")
			}
			slices.Sort(gaps)
			slices.Sort(replaced)
			t.Logf("leader killed, first good write through another voter: median %v of %v; replaced after it counted as dead: median %v of %v", gaps[2], gaps, replaced[2], replaced)
		})
	}
}
