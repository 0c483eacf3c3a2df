package instance

import (
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
)

// entry is what this node knows at run time about one instance of its own. There is one for each record.
type entry struct {
	id string // runtime id

	mu     sync.Mutex
	ref    ref // changes when the instance is renamed
	status api.StatusCode
	run    *run  // the process, from before driver.Create until it is torn down
	hold   *hold // the operation that changes the instance now

	comeback func() // cancels a restart by policy that is waiting; nil: none
	failures int    // ends in a row after which the policy restarted it

	disk   int64 // bytes used by the root, as of diskAt
	diskAt time.Time

	net    map[string]api.InstanceStateNetwork // as seen at netAt in the namespace of netPID; shared, never changed
	netPID int
	netAt  time.Time
}

// run is one life of an instance's process.
type run struct {
	pid      int       // 0 until driver.Create has returned
	created  time.Time // when that was; with the monotonic clock
	teardown sync.Once
	gone     chan struct{} // closed when the driver told us that the process ended
	exited   bool          // the same; under entry.mu
	let      bool          // the driver was told to let it run: how it ends is the guest's doing; under entry.mu
	exit     driver.Exit   // valid when exited
	trigger  string        // of templates, until the guest runs: a start that fails puts it back
	done     chan struct{} // closed when nothing of the run is left
}

func newRun() *run { return &run{done: make(chan struct{}), gone: make(chan struct{})} }

// isOf reports whether an exit can be that of this run. Drivers tell of an exit a little later than Kill returns, so the
// news of a process that was killed may arrive when the next one is there already.
func (r *run) isOf(exit driver.Exit) bool {
	if r.pid == 0 {
		return false
	}
	return exit.Time.IsZero() || time.Since(exit.Time) <= time.Since(r.created)
}

func (e *entry) name() ref {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ref
}

func (e *entry) now() (api.StatusCode, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run != nil {
		return e.status, e.run.pid
	}
	return e.status, 0
}

func (e *entry) set(s api.StatusCode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = s
}

// setFor changes the status on behalf of a run, unless that run has ended meanwhile.
func (e *entry) setFor(r *run, s api.StatusCode) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.run != r || r.exited {
		return false
	}
	e.status = s
	return true
}

func (e *entry) setTrigger(r *run, trigger string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.trigger = trigger
}

func (e *entry) trigger(r *run) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.trigger
}

func (e *entry) current() *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run
}

// isRunning reports whether the instance has a process that has not ended, frozen or not.
func isRunning(s api.StatusCode) bool { return s != api.Stopped && s != api.Error }

// entries finds entries by name and by runtime id.
type entries struct {
	mu   sync.Mutex
	refs map[string]*entry
	ids  map[string]*entry
}

func newEntries() *entries { return &entries{refs: map[string]*entry{}, ids: map[string]*entry{}} }

// add makes an entry for a name that must be free; nil when it is not.
func (t *entries) add(r ref, id string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[r.key()] != nil {
		return nil
	}
	e := &entry{id: id, ref: r, status: api.Stopped}
	t.refs[r.key()], t.ids[id] = e, e
	return e
}

func (t *entries) get(r ref) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refs[r.key()]
}

func (t *entries) byID(id string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[id]
}

// reserve gives e a second name, which must be free.
func (t *entries) reserve(r ref, e *entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[r.key()] != nil {
		return false
	}
	t.refs[r.key()] = e
	return true
}

// move makes to, which is reserved, the only name of e.
func (t *entries) move(e *entry, to ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(t.refs, e.ref.key())
	e.ref = to
	t.refs[to.key()] = e
}

// drop forgets a name, and the entry when it was its own.
func (t *entries) drop(r ref, e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs[r.key()] == e {
		delete(t.refs, r.key())
	}
	if e.name() == r {
		delete(t.ids, e.id)
	}
}
