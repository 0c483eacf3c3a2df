package world

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Member is a member of the database.
type Member struct {
	ID         uint64
	Name       string // "" until it has started for the first time
	PeerURLs   []string
	ClientURLs []string
	Learner    bool // has no vote yet
	Leader     bool
}

// MemberSource knows the members; the elastic database is one. Safe for concurrent use.
type MemberSource interface {
	// Members returns all members as the database knows them now; class Unavailable without a quorum.
	Members(ctx context.Context) ([]Member, error)
}

// MemberNotifier is what a MemberSource may be too: then changes are seen at once and not at the next look.
type MemberNotifier interface {
	// MembersChanged returns a channel that is closed at the next change; who is told asks for the next one before it reads.
	MembersChanged() <-chan struct{}
}

// MemberChange is what happened to a member.
type MemberChange string

// The changes.
const (
	MemberJoined   MemberChange = "joined"
	MemberLeft     MemberChange = "left"
	MemberPromoted MemberChange = "promoted" // a learner became a voter
	MemberDemoted  MemberChange = "demoted"  // a voter came back as a learner
	MemberUpdated  MemberChange = "updated"  // its name or its URLs
	LeaderChanged  MemberChange = "leader"   // Member leads now; the zero Member: nobody
)

// MemberEvent is one change, or the first event, which has no Change.
type MemberEvent struct {
	Change  MemberChange
	Member  Member
	Members []Member // all of them after the change, by ID
	Err     error    // set: the members cannot be read for now; the next event says that they can
}

// memberLook is how often the members are read when nobody tells of changes.
const memberLook = time.Second

// Members returns the members of the database, by ID. Class Unsupported where nobody knows them.
func (w *World) Members(ctx context.Context) ([]Member, error) {
	if w.o.Members == nil {
		return nil, errs.Unsupported("this world does not know the members of its database")
	}
	ms, err := w.o.Members.Members(ctx)
	if err != nil {
		return nil, inCall(err, "members of the database")
	}
	ms = slices.Clone(ms)
	slices.SortFunc(ms, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return ms, nil
}

// WatchMembers gives exactly one first event and then one for each change, in order, until ctx ends; then the channel is closed. What
// changes and changes back between two looks is not seen. When the members cannot be read there is one event with Err, and one without a
// Change when they can again.
func (w *World) WatchMembers(ctx context.Context) (<-chan MemberEvent, error) {
	if w.o.Members == nil {
		return nil, errs.Unsupported("this world does not know the members of its database")
	}
	out := make(chan MemberEvent)
	go func() {
		defer close(out)
		w.followMembers(ctx, out)
	}()
	return out, nil
}

func (w *World) followMembers(ctx context.Context, out chan<- MemberEvent) {
	t := time.NewTicker(memberLook)
	defer t.Stop()
	var known []Member
	first, failed := true, false
	for {
		var changed <-chan struct{}
		if n, ok := w.o.Members.(MemberNotifier); ok {
			changed = n.MembersChanged()
		}
		now, err := w.Members(ctx)
		var events []MemberEvent
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failed:
			failed = true
			events = []MemberEvent{{Members: known, Err: err}}
		case err == nil:
			events = diffMembers(known, now)
			if first || failed {
				events = []MemberEvent{{Members: now}}
			}
			known, first, failed = now, false, false
		}
		for _, e := range events {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// diffMembers returns what leads from one list of members to another, both by ID.
func diffMembers(was, now []Member) []MemberEvent {
	var out []MemberEvent
	add := func(c MemberChange, m Member) { out = append(out, MemberEvent{Change: c, Member: m, Members: now}) }
	old := map[uint64]Member{}
	for _, m := range was {
		old[m.ID] = m
	}
	var led, leads Member
	for _, m := range was {
		if m.Leader {
			led = m
		}
		if !slices.ContainsFunc(now, func(n Member) bool { return n.ID == m.ID }) {
			add(MemberLeft, m)
		}
	}
	for _, m := range now {
		if m.Leader {
			leads = m
		}
		o, known := old[m.ID]
		switch {
		case !known:
			add(MemberJoined, m)
		case o.Learner && !m.Learner:
			add(MemberPromoted, m)
		case !o.Learner && m.Learner:
			add(MemberDemoted, m)
		case o.Name != m.Name, !sameSet(o.PeerURLs, m.PeerURLs), !sameSet(o.ClientURLs, m.ClientURLs):
			add(MemberUpdated, m)
		}
	}
	if led.ID != leads.ID {
		add(LeaderChanged, leads)
	}
	return out
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.SortedFunc(slices.Values(a), strings.Compare), slices.SortedFunc(slices.Values(b), strings.Compare))
}
