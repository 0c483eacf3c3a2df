package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// MaxArgs bounds the encoded arguments of an entry, in bytes.
const MaxArgs = 1 << 20

// Step is one effect of an operation. See the package comment for what Do and Undo must keep to.
type Step struct {
	Name string // unique among the operation's steps and stable between versions of the daemon
	Do   func(ctx context.Context) error
	Undo func(ctx context.Context) error // nil: nothing to take back
}

// Direction says what becomes of an operation that was interrupted.
type Direction string

const (
	// UndoOnCrash takes back what was done, last step first. An error in a step does the same at once.
	UndoOnCrash Direction = "undo"
	// FinishOnCrash runs the steps again from the one that was interrupted. An error in a step leaves the entry in
	// the journal, to be finished by the next Run of its subject or the next start.
	FinishOnCrash Direction = "finish"
)

// Kind is a sort of operation.
type Kind struct {
	Name    string
	OnCrash Direction
	// Steps builds the list from the encoded arguments. Pure: same arguments, same names in the same order.
	Steps func(args json.RawMessage) ([]Step, error)
}

// NewKind returns a kind whose arguments are of type A.
func NewKind[A any](name string, onCrash Direction, steps func(A) []Step) Kind {
	return Kind{Name: name, OnCrash: onCrash, Steps: func(raw json.RawMessage) ([]Step, error) {
		var a A
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, fmt.Errorf("decode arguments of %s: %w", name, err)
		}
		return steps(a), nil
	}}
}

// Entry is one operation to run.
type Entry struct {
	Kind    string
	Subject string // what it is about, for example "instance/default/c1"
	Args    any    // encoded as JSON, ≤ MaxArgs bytes
}

// Options are the optional parts of a journal.
type Options struct {
	Log *slog.Logger
	// UndoTimeout bounds each Undo; 0 means 2 minutes. Undo does not end with the caller's context: a cancelled
	// creation must still be taken back.
	UndoTimeout time.Duration
}

// Journal keeps the entries of one directory. Safe for concurrent use; one process per directory.
type Journal struct {
	dir   string
	o     Options
	mu    sync.Mutex
	kinds map[string]Kind
	busy  map[string]bool    // subjects at work
	left  map[string]*record // subject → entry that waits to be settled
	seq   int64              // of the last entry
	point func(string)       // tests: called at each point where a crash makes a difference
}

// Open opens the journal in dir, made if need be with mode 0700, and reads the entries that an earlier process left.
// Nothing is undone or finished before [Journal.Recover].
func Open(dir string, o Options) (*Journal, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UndoTimeout == 0 {
		o.UndoTimeout = 2 * time.Minute
	}
	j := &Journal{dir: dir, o: o, kinds: map[string]Kind{}, busy: map[string]bool{}, left: map[string]*record{}, point: func(string) {}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := j.load(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return j, nil
}

// Register makes a kind known. Register all kinds before Recover and Run.
func (j *Journal) Register(k Kind) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.kinds[k.Name] = k
}

// Run performs an operation. When it returns nil every step was done and the entry is gone. When a step fails, an
// UndoOnCrash operation has been undone (errors of Undo are joined to the step's error); a FinishOnCrash one waits in
// the journal. Busy: another operation runs on the same subject.
func (j *Journal) Run(ctx context.Context, e Entry) error {
	j.mu.Lock()
	k, ok := j.kinds[e.Kind]
	j.mu.Unlock()
	if !ok {
		return fmt.Errorf("journal: kind %q is not registered", e.Kind)
	}
	args, err := json.Marshal(e.Args)
	if err != nil {
		return fmt.Errorf("journal: encode arguments of %s: %w", e.Kind, err)
	}
	if len(args) > MaxArgs {
		return errs.TooLarge("journal: arguments of %s have %d bytes, allowed are %d", e.Kind, len(args), MaxArgs)
	}
	steps, err := k.Steps(args)
	if err != nil {
		return err
	}
	old, err := j.enter(e.Subject)
	if err != nil {
		return err
	}
	defer j.leave(e.Subject)
	if old != nil {
		if err := j.settle(ctx, old); err != nil {
			return fmt.Errorf("settle the unfinished %s of %s first: %w", old.Kind, e.Subject, err)
		}
	}
	r := &record{header: header{Format: formatVersion, Seq: j.nextSeq(), Kind: e.Kind, Subject: e.Subject, OnCrash: k.OnCrash, Args: args, Time: time.Now()}}
	j.point("before-header")
	if err := r.create(j.dir); err != nil {
		return fmt.Errorf("journal: write down %s of %s: %w", e.Kind, e.Subject, err)
	}
	j.point("after-header")
	return j.forward(ctx, r, steps, 0)
}

// Recover settles every entry that an earlier process left, oldest first, and returns the errors of those that could not be. It is
// called once at start; one entry's failure does not keep the others from being settled.
func (j *Journal) Recover(ctx context.Context) error {
	j.mu.Lock()
	todo := make([]*record, 0, len(j.left))
	for _, r := range j.left {
		todo = append(todo, r)
	}
	j.mu.Unlock()
	sort.Slice(todo, func(a, b int) bool { return todo[a].Seq < todo[b].Seq })
	var all error
	for _, r := range todo {
		old, err := j.enter(r.Subject)
		if err != nil || old != r {
			if err == nil {
				j.leave(r.Subject)
			}
			continue // a Run was faster and settles it
		}
		err = j.settle(ctx, r)
		j.leave(r.Subject)
		if err != nil {
			all = errors.Join(all, fmt.Errorf("recover %s of %s: %w", r.Kind, r.Subject, err))
		}
	}
	return all
}

// Pending describes the entries that wait to be settled, oldest first, as "kind subject".
func (j *Journal) Pending() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	rs := make([]*record, 0, len(j.left))
	for _, r := range j.left {
		rs = append(rs, r)
	}
	sort.Slice(rs, func(a, b int) bool { return rs[a].Seq < rs[b].Seq })
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.Kind + " " + r.Subject
	}
	return out
}

// enter takes the subject and returns the entry that waits for it, if any.
func (j *Journal) enter(subject string) (*record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy[subject] {
		return nil, errs.Busy("%s: another operation is running on it", subject)
	}
	j.busy[subject] = true
	return j.left[subject], nil
}

func (j *Journal) leave(subject string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.busy, subject)
}

func (j *Journal) nextSeq() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	return j.seq
}

// settle finishes or undoes an entry that was left. The caller holds its subject.
func (j *Journal) settle(ctx context.Context, r *record) error {
	j.mu.Lock()
	k, ok := j.kinds[r.Kind]
	j.mu.Unlock()
	if !ok {
		return errs.Unsupported("this build does not know operations of kind %q", r.Kind)
	}
	steps, err := k.Steps(r.Args)
	if err != nil {
		return err
	}
	at, err := r.position(steps)
	if err != nil {
		return err
	}
	j.o.Log.Info("settling an interrupted operation", "kind", r.Kind, "subject", r.Subject, "direction", r.OnCrash, "step", r.begun)
	if r.OnCrash == FinishOnCrash {
		return j.forward(ctx, r, steps, max(at, 0))
	}
	if r.failed {
		at-- // that step said that it left nothing behind
	}
	return j.backward(ctx, r, steps, at)
}

// forward does the steps from number from on.
func (j *Journal) forward(ctx context.Context, r *record, steps []Step, from int) error {
	for i := from; i < len(steps); i++ {
		s := steps[i]
		err := ctx.Err()
		if err == nil {
			err = r.begin(s.Name)
		}
		if err != nil { // nothing of this step has happened
			return j.stopped(ctx, r, steps, i-1, s.Name, err)
		}
		j.point("begun-" + s.Name)
		if err := s.Do(ctx); err != nil {
			if werr := r.fail(s.Name); werr != nil {
				err = errors.Join(err, werr)
			}
			j.point("failed-" + s.Name)
			return j.stopped(ctx, r, steps, i-1, s.Name, err)
		}
		j.point("done-" + s.Name)
	}
	return j.finish(r)
}

// stopped deals with an error at step name, when steps 0…last are done.
func (j *Journal) stopped(ctx context.Context, r *record, steps []Step, last int, name string, err error) error {
	if r.OnCrash == FinishOnCrash {
		j.keep(r)
		return fmt.Errorf("%s: %w", name, err)
	}
	if uerr := j.backward(ctx, r, steps, last); uerr != nil {
		j.o.Log.Error("an operation could not be undone, it is tried again later", "kind", r.Kind, "subject", r.Subject, "err", uerr)
		return fmt.Errorf("%s: %w", name, errors.Join(err, uerr))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// backward undoes steps last…0. All are tried; the entry stays when one fails.
func (j *Journal) backward(ctx context.Context, r *record, steps []Step, last int) error {
	var all error
	for i := last; i >= 0; i-- {
		s := steps[i]
		if s.Undo == nil {
			continue
		}
		j.point("undo-" + s.Name)
		uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), j.o.UndoTimeout)
		err := s.Undo(uctx)
		cancel()
		if err != nil {
			all = errors.Join(all, fmt.Errorf("undo %s: %w", s.Name, err))
			break // the steps below may be what this one stands on
		}
		j.point("undone-" + s.Name)
	}
	if all != nil {
		j.keep(r)
		return all
	}
	return j.finish(r)
}

func (j *Journal) keep(r *record) {
	r.close()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left[r.Subject] = r
}

// finish is the point from which the operation counts as over, done or undone.
func (j *Journal) finish(r *record) error {
	if err := r.over(); err != nil {
		j.keep(r)
		return fmt.Errorf("journal: close %s of %s: %w", r.Kind, r.Subject, err)
	}
	j.point("over")
	r.remove()
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.left, r.Subject)
	return nil
}

// load reads the entries of the directory. One that cannot be read does not keep the daemon from starting: a damaged
// file is set aside under another name, one of a newer format is left for the build that knows it.
func (j *Journal) load() error {
	names, err := filepath.Glob(filepath.Join(j.dir, "*"+suffix))
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, n := range names {
		seq, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(n), suffix), 10, 64)
		if err != nil {
			continue // not ours
		}
		j.seq = max(j.seq, seq)
		r, err := read(n)
		switch {
		case errs.Is(err, errs.UnsupportedClass):
			j.o.Log.Error("left a journal entry of a newer daemon alone", "file", n, "err", err)
		case err != nil:
			j.o.Log.Error("set a damaged journal entry aside", "file", n, "err", err)
			err = os.Rename(n, n+".damaged")
		case r == nil: // over, or the header never reached the disk: no effect had begun
			err = os.Remove(n)
		case j.left[r.Subject] != nil: // cannot happen: an entry is settled before the next begins
			j.o.Log.Error("set a second journal entry for one subject aside", "file", n, "subject", r.Subject)
			err = os.Rename(n, n+".damaged")
		default:
			j.left[r.Subject] = r
		}
		if err != nil && !errs.Is(err, errs.UnsupportedClass) {
			return err
		}
	}
	return nil
}
