package smoke_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/test/processes"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/scheduler"
)

func TestMain(m *testing.M) {
	processes.Main(func(c processes.Config, n *elastic.Node, mux *http.ServeMux) {
		s := &service{c: c, n: n}
		for path, call := range map[string]func(context.Context, *http.Request) (any, error){
			"/world/up": s.up, "/world/see": s.see, "/world/deploy": s.deploy, "/world/write": s.write, "/world/set": s.set,
		} {
			mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
				v, err := call(r.Context(), r)
				processes.Reply(w, v, err)
			})
		}
	})
	os.Exit(m.Run())
}

const (
	grace     = 4 * time.Second
	ttl       = 3 * time.Second
	exported  = "smoke-greeting" // a kind of resource
	schedule  = "smoke"
	stringKey = "smoke"
)

// service is the World on one machine.
type service struct {
	c processes.Config
	n *elastic.Node

	w     *world.World
	sched *scheduler.Scheduler
	vol   *fs.FS

	mu     sync.Mutex
	events []memberEvent
	died   error
}

// memberEvent is a world.MemberEvent with what the test looks at.
type memberEvent struct {
	Change world.MemberChange
	ID     uint64
	All    []uint64
	Failed bool
}

// members makes an elastic node a world.MemberSource.
type members struct{ n *elastic.Node }

func (m members) MembersChanged() <-chan struct{} {
	_, changed := m.n.Members()
	return changed
}

func (m members) Members(ctx context.Context) ([]world.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cl, _, err := m.n.Client(ctx)
	if err != nil {
		return nil, err
	}
	res, err := cl.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	view, _ := m.n.Members()
	var out []world.Member
	for _, e := range res.Members {
		leads := slices.ContainsFunc(view.Members, func(i elastic.MemberInfo) bool { return i.Leader && i.Name == e.Name })
		out = append(out, world.Member{ID: e.ID, Name: e.Name, PeerURLs: e.PeerURLs, Learner: e.IsLearner, Leader: leads})
	}
	return out, nil
}

// again does what may be done twice until the database answers.
func again(ctx context.Context, what func() error) error {
	for {
		err := what()
		if !errs.Is(err, errs.UnavailableClass) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// up has the machine take part in everything there is, for as long as its process lives.
func (s *service) up(ctx context.Context, _ *http.Request) (any, error) {
	var err error
	life := context.Background()
	kv := kvstore.New(etcd.NewSwitch(s.n), kvstore.Config{})
	s.w, err = world.New(life, world.Options{Machine: s.c.Name, KV: kv, AdvertiseURLs: []string{"https://" + s.c.Address}, Grace: grace, SessionTTL: ttl, Members: members{s.n}})
	if err != nil {
		return nil, err
	}
	if s.sched, err = scheduler.New(scheduler.Deps{KV: kv, Namespace: s.w.Namespace(), Host: s.c.Name, LockTTL: ttl}); err != nil {
		return nil, err
	}
	st, err := fs.New(fs.Deps{KV: kv, Prefix: "/smoke/fs/"})
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { _, err := s.w.Announce(ctx); return err },
		func() error {
			_, err := s.w.ResReplace(ctx, "smoke", []world.Export{{Kind: exported, Name: "of-" + s.c.Name, Data: "from " + s.c.Name}})
			return err
		},
		func() error { _, err := s.w.StrMapSet(ctx, stringKey, "entry of "+s.c.Name); return err },
		func() error { s.vol, err = st.OpenOrCreate(ctx, "smoke", fs.VolumeOptions{}); return err },
		func() error {
			_, err := s.sched.Join(ctx, schedule, scheduler.JoinOptions{Spec: &scheduler.Spec{Strategy: scheduler.RoundRobin, Max: 2}, TTL: ttl})
			return err
		},
	} {
		if err := again(ctx, step); err != nil {
			return nil, err
		}
	}
	seen, err := s.w.WatchMembers(life)
	if err != nil {
		return nil, err
	}
	go s.note(seen)
	deploys, err := s.w.WatchDeploy(life)
	if err != nil {
		return nil, err
	}
	go func() { s.fail(s.follow(life, deploys.C())) }()
	go func() { s.fail(s.sched.Run(life)) }()
	return "", nil
}

func (s *service) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.died = fmt.Errorf("something of %s has ended: %w", s.c.Name, err)
}

func (s *service) note(seen <-chan world.MemberEvent) {
	for e := range seen {
		m := memberEvent{Change: e.Change, ID: e.Member.ID, Failed: e.Err != nil}
		for _, of := range e.Members {
			m.All = append(m.All, of.ID)
		}
		s.mu.Lock()
		s.events = append(s.events, m)
		s.mu.Unlock()
	}
}

// follow carries deploys out, which takes no more than reading them.
func (s *service) follow(ctx context.Context, events <-chan struct{}) error {
	for range events {
		err := again(ctx, func() error {
			id, err := s.w.GetMaxDeployID(ctx)
			if err != nil || id == 0 {
				return err
			}
			payload, err := s.w.GetDeploy(ctx, id)
			if err == nil && !strings.HasPrefix(payload, "do ") {
				_, err = s.w.SetDeployStatus(ctx, id, world.DeployFailed, "unknown payload")
			} else if err == nil {
				_, err = s.w.SetDeployStatus(ctx, id, world.DeployDone, "")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *service) deploy(ctx context.Context, r *http.Request) (any, error) {
	id, err := strconv.ParseUint(r.FormValue("id"), 10, 64)
	if err != nil {
		return nil, err
	}
	return "", again(ctx, func() error {
		err := s.w.AddDeploy(ctx, id, "", "", r.FormValue("payload"))
		if errs.Is(err, errs.ConflictClass) { // an earlier try, of which nobody knew the outcome?
			if got, gerr := s.w.GetDeploy(ctx, id); gerr == nil && got == r.FormValue("payload") {
				return nil
			}
		}
		return err
	})
}

func (s *service) write(ctx context.Context, r *http.Request) (any, error) {
	return "", again(ctx, func() error {
		_, err := s.vol.Replace(ctx, "/file", strings.NewReader(r.FormValue("data")), fs.ReplaceOptions{Perm: 0o644})
		return fs.Classify(err)
	})
}

func (s *service) set(ctx context.Context, r *http.Request) (any, error) {
	return "", again(ctx, func() error { _, err := s.w.StrSet(ctx, stringKey, r.FormValue("value")); return err })
}

// sight is what a machine sees.
type sight struct {
	Before, After []world.MachineInfo // around the reading of Exports
	Exports       map[string]string   // by machine
	Entries       map[string]string   // of the string map
	Hosts         []string            // that the schedule chose, by name
	Status        map[string]world.DeployState
	File, String  string
	Events        []memberEvent
	Members       []world.Member
}

func (s *service) see(ctx context.Context, r *http.Request) (any, error) {
	var out sight
	s.mu.Lock()
	out.Events = slices.Clone(s.events)
	err := s.died
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(r.FormValue("deploy"), 10, 64)
	if err != nil {
		return nil, err
	}
	out.Exports, out.Status = map[string]string{}, map[string]world.DeployState{}
	for _, look := range []func() error{
		func() (err error) { out.Before, err = s.w.Machines(ctx); return err },
		func() error {
			list, err := s.w.ResCollect(ctx, []world.Filter{{Kind: exported}})
			for _, res := range list {
				out.Exports[res.From] += res.Data
			}
			return err
		},
		func() (err error) { out.After, err = s.w.Machines(ctx); return err },
		func() (err error) { out.Entries, err = s.w.StrMapGet(ctx, stringKey); return err },
		func() error {
			sch, err := s.sched.Get(ctx, schedule)
			out.Hosts = slices.Sorted(slices.Values(sch.Result.Hosts))
			return err
		},
		func() error {
			list, err := s.w.DeployStatus(ctx, id)
			for _, st := range list {
				out.Status[st.Machine] = st.State
			}
			return err
		},
		func() error { b, err := s.vol.ReadFile(ctx, "/file"); out.File = string(b); return err },
		func() (err error) { out.String, err = s.w.StrGet(ctx, stringKey); return err },
		func() (err error) { out.Members, err = s.w.Members(ctx); return err },
	} {
		if err := look(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
