package project_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// gated is a project service over a table of instances that are nothing but names.
type gated struct {
	*project.Service
	db    *state.DB
	table *state.Table[policy.Instance]
}

func newGated(t *testing.T) *gated {
	t.Helper()
	g := &gated{db: state.NewMemory()}
	g.table = state.NewTable[policy.Instance](g.db, "things", 1)
	var err error
	g.Service, err = project.New(project.Deps{State: g.db, Contents: func(p api.ProjectName) (policy.Contents, error) {
		c := policy.Contents{Instances: map[string]policy.Instance{}}
		for _, it := range g.table.List(state.Prefix(p.String())) {
			c.Instances[it.Value.Name] = it.Value
		}
		return c, nil
	}, UsedBy: func(p api.ProjectName) (out []string) {
		for _, it := range g.table.List(state.Prefix(p.String())) {
			out = append(out, "/1.0/instances/"+it.Value.Name)
		}
		return out
	}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// add writes an instance as rooms do.
func (g *gated) add(t *testing.T, p api.ProjectName, name string) error {
	for {
		x := policy.Instance{Name: name, Type: api.TypeContainer}
		ops, err := g.Gate(p, policy.Contents{}, policy.OneInstance(x))
		if err != nil {
			return err
		}
		_, err = g.db.Txn(t.Context(), append(ops, g.table.CreateOp(state.Key(p.String(), name), x))...)
		if !errs.IsConflict(err) && !errs.IsExists(err) {
			return err
		}
	}
}

func TestRacingCreatesDoNotExceedALimit(t *testing.T) {
	g := newGated(t)
	p, err := g.Create(t.Context(), "p", api.ProjectPut{Config: api.Config{"limits.instances": "5"}})
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := g.add(t, p, fmt.Sprint("c", i))
			if err == nil {
				done.Add(1)
			} else if !errs.Is(err, errs.Denied) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st, err := g.State(p); err != nil || done.Load() != 5 || st.Resources["instances"] != (api.ProjectStateResource{Limit: 5, Usage: 5}) {
		t.Errorf("%d were made, state %+v, %v", done.Load(), st, err)
	}
}

// A limit that is set while instances are being made holds: either it is refused because they are there, or they are.
func TestALimitThatComesBetween(t *testing.T) {
	for _, name := range []string{"p", "default"} {
		g := newGated(t)
		p, err := api.ParseProjectName(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "default" {
			if _, err := g.Create(t.Context(), name, api.ProjectPut{}); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := g.add(t, p, fmt.Sprint("c", i)); err != nil && !errs.Is(err, errs.Denied) {
					t.Error(err)
				}
			})
		}
		var refused error
		wg.Go(func() { refused = update(t, g.Service, p, api.ProjectPut{Config: api.Config{"limits.instances": "4"}}) })
		wg.Wait()
		st, err := g.State(p)
		if err != nil {
			t.Fatal(err)
		}
		if n := st.Resources["instances"].Usage; refused == nil && n > 4 || refused != nil && (n <= 4 || !errs.Is(refused, errs.InvalidInput)) {
			t.Errorf("%s: %d instances, the limit of 4: %v", name, n, refused)
		}
	}
}

// A project that goes while something is made in it is either gone and empty, or there.
func TestNothingIsMadeInAProjectThatGoes(t *testing.T) {
	for range 20 {
		g := newGated(t)
		p, err := g.Create(t.Context(), "p", api.ProjectPut{})
		if err != nil {
			t.Fatal(err)
		}
		var made, gone error
		var wg sync.WaitGroup
		wg.Go(func() { made = g.add(t, p, "c1") })
		wg.Go(func() { gone = g.Delete(t.Context(), p) })
		wg.Wait()
		if (made == nil) == (gone == nil) {
			t.Fatalf("made: %v; deleted: %v", made, gone)
		}
	}
}

func TestRename(t *testing.T) {
	g := newGated(t)
	p, err := g.Create(t.Context(), "p", api.ProjectPut{Description: "d", Config: api.Config{"limits.instances": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	for to, class := range map[string]errs.Class{"a b": errs.InvalidInput, "": errs.InvalidInput, "default": errs.ExistsClass, "p": errs.ExistsClass} {
		if err := g.Rename(t.Context(), p, to); !errs.Is(err, class) {
			t.Errorf("to %q: %v", to, err)
		}
	}
	if err := g.Rename(t.Context(), api.DefaultProject, "q"); !errs.Is(err, errs.Denied) {
		t.Error(err)
	}
	if err := g.Rename(t.Context(), p, "q"); err != nil {
		t.Fatal(err)
	}
	q, _ := api.ParseProjectName("q")
	if got, err := g.Get(q); err != nil || got.Description != "d" || got.Config["limits.instances"] != "1" || !errs.IsNotFound(g.Exists(p)) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := g.add(t, q, "c1"); err != nil {
		t.Fatal(err)
	}
	if err := g.Rename(t.Context(), q, "r"); !errs.Is(err, errs.InvalidInput) {
		t.Error(err)
	}
}
