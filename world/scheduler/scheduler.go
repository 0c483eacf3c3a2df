package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
)

// Deps is what a scheduler needs.
type Deps struct {
	KV        *kvstore.Client
	Namespace names.Namespace
	Host      string // this machine's name: who joins, and who is named as computer
	// LockTTL is after what time without a sign of life another computer takes over; 0: DefaultTTL.
	LockTTL time.Duration
	Log     *slog.Logger // nil: silent
}

// Scheduler is one machine's door to the schedules of a cluster. Safe for concurrent use.
type Scheduler struct {
	d      Deps
	keys   keys
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // over what follows
	places map[string]*Place
	pools  map[time.Duration]*kvstore.LeasePool
	closed bool
	wg     sync.WaitGroup
}

// New returns a scheduler. Whoever makes it closes it before the client.
func New(d Deps) (*Scheduler, error) {
	if err := CheckHost(d.Host); err != nil {
		return nil, err
	}
	if d.KV == nil {
		return nil, errs.Invalid("a scheduler needs a store")
	}
	if d.LockTTL == 0 {
		d.LockTTL = DefaultTTL
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{d: d, keys: keys{d.Namespace}, places: map[string]*Place{}, pools: map[time.Duration]*kvstore.LeasePool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Host is this machine's name.
func (s *Scheduler) Host() string { return s.d.Host }

// Close closes the places that are open (see [Place.Close]) and returns when nothing of the scheduler runs any more, observers too.
func (s *Scheduler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	var open []*Place
	for _, p := range s.places {
		open = append(open, p)
	}
	s.mu.Unlock()
	var err error
	for _, p := range open {
		err = errors.Join(err, p.Close(ctx))
	}
	s.cancel()
	s.wg.Wait()
	return err
}

// spawn runs f in a goroutine that Close waits for. It is false when the scheduler is closed.
func (s *Scheduler) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

var errClosed = errs.Unavailable("the scheduler is closed")

// Schedule is all that is known of one.
type Schedule struct {
	Name         string
	Spec         *Spec // nil: it has none (hosts take part, or the record cannot be read)
	SpecRevision int64 // at which it was written, for [Scheduler.Configure]
	Result       Result
	Computer     string      // host that wrote the result
	Inputs       int64       // revision that it was computed from
	Candidates   []Candidate // by name
	Broken       []string    // what could not be read, and why
}

func (b *board) view(name string, rev int64) Schedule {
	e := b.get(name)
	out := Schedule{Name: name, Spec: e.spec, SpecRevision: e.specRev, Candidates: e.candidates(), Result: e.view(b.keys, name, rev)}
	if e.result != nil {
		out.Computer, out.Inputs = e.result.Computer, e.result.Inputs
	}
	for _, err := range e.broken {
		out.Broken = append(out.Broken, err.Error())
	}
	slices.Sort(out.Broken)
	return out
}

// Standing is how it stands with a candidate.
type Standing struct {
	Candidate
	Chosen bool
	Reason string // why it is not
}

// Standings explains a schedule, candidate by candidate.
func (s Schedule) Standings() []Standing {
	out := make([]Standing, len(s.Candidates))
	for i, c := range s.Candidates {
		out[i] = Standing{Candidate: c, Chosen: slices.Contains(s.Result.Hosts, c.Host)}
		switch {
		case s.Spec == nil:
			out[i].Reason = "the schedule has no readable specification"
		case out[i].Chosen && c.Draining:
			out[i].Reason = "it is withdrawing and waits for another to take its place"
		case out[i].Chosen:
		case s.Spec.Eligible(c) != "":
			out[i].Reason = s.Spec.Eligible(c)
		case s.Result.Written == 0 || s.Inputs < c.Joined:
			out[i].Reason = "nothing was computed since it came"
		default:
			out[i].Reason = "it waits for a place"
		}
	}
	return out
}

// load reads everything below a prefix, at one revision.
func (s *Scheduler) load(ctx context.Context, prefix string) (*board, int64, error) {
	b := newBoard(s.keys)
	h, err := s.d.KV.List(ctx, prefix, func(kvs []kvstore.KeyValue) error {
		for _, kv := range kvs {
			b.apply(kvstore.Event{Type: kvstore.Created, KV: kv})
		}
		return nil
	})
	return b, h.Revision, kvstore.Hint(err)
}

// List returns all schedules by name, at one revision.
func (s *Scheduler) List(ctx context.Context) ([]Schedule, error) {
	b, rev, err := s.load(ctx, s.keys.all())
	if err != nil {
		return nil, fmt.Errorf("list schedules: %w", err)
	}
	out := make([]Schedule, 0, len(b.at))
	for name := range b.at {
		out = append(out, b.view(name, rev))
	}
	slices.SortFunc(out, func(a, b Schedule) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Get returns one schedule; NotFound when nobody has specified it and no host takes part.
func (s *Scheduler) Get(ctx context.Context, name string) (Schedule, error) {
	if err := CheckName(name); err != nil {
		return Schedule{}, err
	}
	b, rev, err := s.load(ctx, s.keys.schedule(name))
	if err != nil {
		return Schedule{}, fmt.Errorf("read schedule %q: %w", name, err)
	}
	if b.at[name] == nil {
		return Schedule{}, errs.NotFound("schedule %q does not exist", name)
	}
	return b.view(name, rev), nil
}

// AnyRevision has Configure write over whatever there is.
const AnyRevision = -1

// Configure writes the spec of a schedule that was last written at revision was: 0 for one that must not exist, AnyRevision for
// no condition. Exists or Conflict when that is not so. It returns the revision; an equal spec changes nothing.
func (s *Scheduler) Configure(ctx context.Context, name string, spec Spec, was int64) (int64, error) {
	if err := errors.Join(CheckName(name), spec.Check()); err != nil {
		return 0, err
	}
	key := s.keys.spec(name)
	for {
		kv, ok, err := s.d.KV.Get(ctx, key)
		if err != nil {
			return 0, fmt.Errorf("configure schedule %q: %w", name, kvstore.Hint(err))
		}
		switch have, derr := decode[Spec](kv); {
		case was == 0 && ok:
			return 0, errs.Exists("schedule %q exists", name)
		case was != AnyRevision && kv.ModRevision != was:
			return 0, errs.Conflict("schedule %q was changed since it was read (at revision %d, now %d)", name, was, kv.ModRevision)
		case ok && errs.Is(derr, errs.UnsupportedClass):
			return 0, derr
		case ok && derr == nil && have.Equal(spec):
			return kv.ModRevision, nil
		}
		r, err := s.d.KV.Txn(ctx, kvstore.Txn{If: []kvstore.Compare{kvstore.Unchanged(key, kv.ModRevision)}, Then: []kvstore.Op{kvstore.Put(key, encode(spec))}})
		if err != nil {
			return 0, fmt.Errorf("configure schedule %q: %w", name, kvstore.Hint(err))
		}
		if r.Succeeded {
			return r.Revision, nil
		}
	}
}

// Delete removes a schedule with its result. Busy while hosts take part, unless force: then their places end with NotFound.
func (s *Scheduler) Delete(ctx context.Context, name string, force bool) error {
	if err := CheckName(name); err != nil {
		return err
	}
	all := s.keys.schedule(name)
	t := kvstore.Txn{
		Then: []kvstore.Op{{Type: kvstore.OpDelete, Key: all, End: kvstore.PrefixEnd(all)}},
		Else: []kvstore.Op{{Type: kvstore.OpGet, Key: s.keys.hosts(name), End: kvstore.PrefixEnd(s.keys.hosts(name))}},
	}
	if !force {
		t.If = []kvstore.Compare{kvstore.NoneUnder(s.keys.hosts(name))}
	}
	r, err := s.d.KV.Txn(ctx, t)
	switch {
	case err != nil:
		return fmt.Errorf("delete schedule %q: %w", name, kvstore.Hint(err))
	case !r.Succeeded:
		var hosts []string
		for _, kv := range r.Results[0].KVs {
			if _, _, host, ok := s.keys.parse(kv.Key); ok {
				hosts = append(hosts, host)
			}
		}
		if n := len(hosts); n > 5 {
			hosts = append(hosts[:5], fmt.Sprintf("and %d more", n-5))
		}
		return errs.Busy("schedule %q is in use, hosts take part: %s (force deletes it all the same)", name, strings.Join(hosts, ", "))
	case r.Results[0].Deleted == 0:
		return errs.NotFound("schedule %q does not exist", name)
	}
	return nil
}

// Remove takes a host out of a schedule at once, for hosts that persist and will not come back. A host whose place is open joins
// again: exclude it in the spec instead. NotFound when it does not take part.
func (s *Scheduler) Remove(ctx context.Context, name, host string) error {
	if err := errors.Join(CheckName(name), CheckHost(host)); err != nil {
		return err
	}
	left, err := s.leave(ctx, name, host)
	if err == nil && !left {
		err = errs.NotFound("host %q does not take part in schedule %q", host, name)
	}
	return err
}
