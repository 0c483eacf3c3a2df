package project

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/internal/state"
)

// The features: kinds of objects that a project may keep for itself.
const (
	Images   = policy.Images
	Profiles = policy.Profiles
	Volumes  = policy.Volumes
	Networks = policy.Networks
)

// newDefaults is what a new project gets; the default project has every feature.
func newDefaults() map[string]string {
	return map[string]string{Images: "true", Profiles: "true", Volumes: "true", policy.Buckets: "true", Networks: "false"}
}

// inDefault are the features that the default project shows.
func inDefault() []string { return []string{Images, Networks, Profiles, policy.Buckets, Volumes} }

// record is a project as it is stored.
type record struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Config      map[string]string `json:"config"`
	// Watched says that whoever changes the contents changes this record too, see Gate.
	Watched bool  `json:"watched,omitempty"`
	Changes int64 `json:"changes,omitempty"` // how often the contents have changed while Watched
}

// Deps is what the service needs.
type Deps struct {
	State *state.DB
	// UsedBy returns the URLs of all objects in the project; nil means that nobody knows of any.
	UsedBy func(api.ProjectName) []string
	// Contents returns what is in the project, with effective configurations; nil means nothing.
	Contents func(api.ProjectName) (policy.Contents, error)
	// Leftovers returns what belongs to an empty project all the same (its default profile) and must go with it, or to the name that
	// to says when that is not zero; nil means nothing.
	Leftovers func(from, to api.ProjectName) ([]state.Op, error)
	// Forget takes rights on a project away from whoever has them; nil means that nobody has. It is called before a project is made,
	// for what one of that name has left behind, and after it was deleted.
	Forget func(context.Context, api.ProjectName) error
}

// Service keeps the projects. Safe for concurrent use.
type Service struct {
	d     Deps
	table *state.Table[record]
}

// New returns the service; the default project is there without having been stored.
func New(d Deps) (*Service, error) {
	if d.State == nil {
		return nil, fmt.Errorf("project: State is required")
	}
	if d.UsedBy == nil {
		d.UsedBy = func(api.ProjectName) []string { return nil }
	}
	if d.Contents == nil {
		d.Contents = func(api.ProjectName) (policy.Contents, error) { return policy.Contents{}, nil }
	}
	if d.Leftovers == nil {
		d.Leftovers = func(api.ProjectName, api.ProjectName) ([]state.Op, error) { return nil, nil }
	}
	if d.Forget == nil {
		d.Forget = func(context.Context, api.ProjectName) error { return nil }
	}
	return &Service{d: d, table: state.NewTable[record](d.State, "projects", 1)}, nil
}

func defaultRecord() record {
	c := map[string]string{}
	for _, f := range inDefault() {
		c[f] = "true"
	}
	return record{Name: "default", Description: "Default LXD project", Config: c}
}

func (s *Service) read(name api.ProjectName) (record, error) {
	item, err := s.item(name)
	return item.Value, err
}

// item returns the record with its revision; that of the default project is 0 as long as nobody has written to it.
func (s *Service) item(name api.ProjectName) (state.Item[record], error) {
	item, err := s.table.Get(state.Key(name.String()))
	switch {
	case errs.IsNotFound(err) && name == api.DefaultProject:
		return state.Item[record]{Key: state.Key(name.String()), Value: defaultRecord()}, nil
	case errs.IsNotFound(err):
		return item, errs.NotFound("Project not found")
	}
	return item, err
}

// render makes the object of the API; used_by is never null on the wire.
func (s *Service) render(r record) (api.Project, error) {
	name, err := api.ParseProjectName(r.Name)
	if err != nil {
		return api.Project{}, err
	}
	used := s.d.UsedBy(name)
	if used == nil {
		used = []string{}
	}
	return api.Project{ProjectPut: api.ProjectPut{Config: r.Config, Description: r.Description}, Name: r.Name, UsedBy: used}, nil
}

// List returns all projects, by name.
func (s *Service) List() ([]api.Project, error) {
	recs := map[string]record{"default": defaultRecord()}
	for _, item := range s.table.List("") {
		recs[item.Value.Name] = item.Value
	}
	out := make([]api.Project, 0, len(recs))
	for _, name := range slices.Sorted(maps.Keys(recs)) {
		p, err := s.render(recs[name])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Get returns a project; errs.NotFound when there is none.
func (s *Service) Get(name api.ProjectName) (api.Project, error) {
	r, err := s.read(name)
	if err != nil {
		return api.Project{}, err
	}
	return s.render(r)
}

// Exists returns errs.NotFound when there is no such project.
func (s *Service) Exists(name api.ProjectName) error {
	_, err := s.read(name)
	return err
}

// Effective returns the project that holds the objects of a feature for name: itself or the default one.
func (s *Service) Effective(name api.ProjectName, feature string) (api.ProjectName, error) {
	if name == api.DefaultProject {
		return name, nil
	}
	item, ok := s.table.Peek(state.Key(name.String()))
	if !ok {
		return api.ProjectName{}, errs.NotFound("Project not found")
	}
	if on, _ := schema.ParseBool(item.Value.Config[feature]); on {
		return name, nil
	}
	return api.DefaultProject, nil
}

// Create makes a project; features that the request does not name get LXD's defaults.
func (s *Service) Create(ctx context.Context, raw string, put api.ProjectPut) (api.ProjectName, error) {
	name, err := parseName(raw)
	if err != nil {
		return name, err
	}
	cfg := newDefaults()
	maps.Copy(cfg, put.Config)
	maps.DeleteFunc(cfg, func(_, v string) bool { return v == "" })
	if err := policy.CheckConfig(cfg); err != nil {
		return name, err
	}
	if name == api.DefaultProject {
		return name, errs.Exists("Project %q already exists", raw)
	}
	if _, err := s.read(name); errs.IsNotFound(err) {
		if err := s.d.Forget(ctx, name); err != nil {
			return name, err
		}
	}
	_, err = s.table.Create(ctx, state.Key(raw), record{Name: raw, Description: put.Description, Config: cfg, Watched: policy.Governed(cfg)})
	if errs.IsExists(err) {
		return name, errs.Exists("Project %q already exists", raw)
	}
	return name, err
}

// Delete removes an empty project. errs.Forbidden for the default one.
func (s *Service) Delete(ctx context.Context, name api.ProjectName) error {
	if name == api.DefaultProject {
		return errs.Forbidden("The 'default' project cannot be deleted")
	}
	return s.remove(ctx, name, api.ProjectName{}, "Only empty projects can be removed")
}

// Rename gives an empty project another name; errs.Exists when that is taken. Who had rights on the old name has none on the new one.
func (s *Service) Rename(ctx context.Context, name api.ProjectName, to string) error {
	if name == api.DefaultProject {
		return errs.Forbidden("The 'default' project cannot be renamed")
	}
	target, err := parseName(to)
	if err != nil {
		return err
	}
	if _, err := s.item(target); err == nil {
		return errs.Exists("A project named %q already exists", to)
	}
	if err := s.d.Forget(ctx, target); err != nil {
		return err
	}
	return s.remove(ctx, name, target, "Only empty projects can be renamed")
}

// remove takes a project away, or to another name, in one transaction.
func (s *Service) remove(ctx context.Context, name, to api.ProjectName, inUse string) error {
	for {
		item, err := s.watch(ctx, name)
		if err != nil {
			return err
		}
		if !empty(s.d.UsedBy(name)) {
			return errs.Invalid("%s", inUse)
		}
		ops, err := s.d.Leftovers(name, to)
		if err != nil {
			return err
		}
		ops = append(ops, s.table.DeleteOp(item))
		if !to.IsZero() {
			moved := item.Value
			moved.Name = to.String()
			ops = append(ops, s.table.CreateOp(state.Key(to.String()), moved))
		}
		_, err = s.d.State.Txn(ctx, ops...)
		switch {
		case errs.IsConflict(err) && ctx.Err() == nil:
			continue
		case errs.IsExists(err):
			return errs.Exists("A project named %q already exists", to)
		case err != nil:
			return err
		}
		return s.d.Forget(ctx, name)
	}
}

func parseName(raw string) (api.ProjectName, error) {
	if strings.Contains(raw, " ") {
		return api.ProjectName{}, errs.Invalid("Project names may not contain spaces")
	}
	if raw == "" {
		return api.ProjectName{}, errs.Invalid("No name provided")
	}
	return api.ParseProjectName(raw)
}

// empty ignores the default profile, which every project with profiles has.
func empty(usedBy []string) bool {
	for _, u := range usedBy {
		if !strings.HasPrefix(u, "/1.0/profiles/default") {
			return false
		}
	}
	return true
}
