package project

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// The features: kinds of objects that a project may keep for itself.
const (
	Images   = "features.images"
	Profiles = "features.profiles"
	Volumes  = "features.storage.volumes"
	Networks = "features.networks"
)

var features = []string{Images, Networks, Profiles, Volumes}

// newDefaults is what a new project gets; the default project has all of them.
var newDefaults = map[string]string{Images: "true", Profiles: "true", Volumes: "true", Networks: "false"}

// record is a project as it is stored.
type record struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Config      map[string]string `json:"config"`
}

// Deps is what the service needs.
type Deps struct {
	State *state.DB
	// UsedBy returns the URLs of all objects in the project; nil means that nobody knows of any.
	UsedBy func(api.ProjectName) []string
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
	if d.Forget == nil {
		d.Forget = func(context.Context, api.ProjectName) error { return nil }
	}
	return &Service{d: d, table: state.NewTable[record](d.State, "projects", 1)}, nil
}

func defaultRecord() record {
	c := map[string]string{}
	for _, f := range features {
		c[f] = "true"
	}
	return record{Name: "default", Description: "Default LXD project", Config: c}
}

func (s *Service) read(name api.ProjectName) (record, error) {
	item, err := s.table.Get(state.Key(name.String()))
	switch {
	case err == nil:
		return item.Value, nil
	case errs.IsNotFound(err) && name == api.DefaultProject:
		return defaultRecord(), nil
	case errs.IsNotFound(err):
		return record{}, errs.NotFound("Project not found")
	}
	return record{}, err
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
	r, err := s.read(name)
	if err != nil {
		return api.ProjectName{}, err
	}
	if r.Config[feature] == "true" {
		return name, nil
	}
	return api.DefaultProject, nil
}

// Create makes a project; features that the request does not name get LXD's defaults.
func (s *Service) Create(ctx context.Context, raw string, put api.ProjectPut) (api.ProjectName, error) {
	if strings.Contains(raw, " ") {
		return api.ProjectName{}, errs.Invalid("Project names may not contain spaces")
	}
	if raw == "" {
		return api.ProjectName{}, errs.Invalid("No name provided")
	}
	name, err := api.ParseProjectName(raw)
	if err != nil {
		return name, err
	}
	cfg := maps.Clone(newDefaults)
	maps.Copy(cfg, put.Config)
	if err := validate(cfg); err != nil {
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
	_, err = s.table.Create(ctx, state.Key(raw), record{raw, put.Description, cfg})
	if errs.IsExists(err) {
		return name, errs.Exists("Project %q already exists", raw)
	}
	return name, err
}

// Update replaces configuration and description. A feature cannot change while the project holds objects.
func (s *Service) Update(ctx context.Context, name api.ProjectName, put api.ProjectPut) error {
	cur, err := s.read(name)
	if err != nil {
		return err
	}
	cfg := maps.Clone(put.Config)
	if cfg == nil {
		cfg = map[string]string{}
	}
	for _, f := range features {
		if cfg[f] == "" {
			cfg[f] = cur.Config[f]
		}
	}
	if err := validate(cfg); err != nil {
		return err
	}
	for _, f := range features {
		if cfg[f] == cur.Config[f] {
			continue
		}
		if name == api.DefaultProject {
			return errs.Invalid("You can't change the features of the default project")
		}
		if !empty(s.d.UsedBy(name)) {
			verb := "enabled"
			if cfg[f] == "false" {
				verb = "disabled"
			}
			return errs.Invalid("Project feature %q cannot be %s on non-empty projects", f, verb)
		}
	}
	_, err = s.table.Put(ctx, state.Key(name.String()), record{name.String(), put.Description, cfg})
	return err
}

// Delete removes an empty project. errs.Forbidden for the default one.
func (s *Service) Delete(ctx context.Context, name api.ProjectName) error {
	if name == api.DefaultProject {
		return errs.Forbidden("The 'default' project cannot be deleted")
	}
	if err := s.Exists(name); err != nil {
		return err
	}
	if !empty(s.d.UsedBy(name)) {
		return errs.Invalid("Only empty projects can be removed")
	}
	err := s.table.Delete(ctx, state.Key(name.String()))
	if errs.IsNotFound(err) {
		return errs.NotFound("Project not found")
	}
	if err == nil {
		err = s.d.Forget(ctx, name)
	}
	return err
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

// validate accepts the features and user.* keys. Limits and restrictions are refused: ignoring them would be a lie.
func validate(cfg map[string]string) error {
	for k, v := range cfg {
		switch {
		case slices.Contains(features, k):
			if v != "true" && v != "false" {
				return errs.Invalid("Invalid value %q for project configuration key %q: must be true or false", v, k)
			}
		case strings.HasPrefix(k, "user."):
		case strings.HasPrefix(k, "limits."), strings.HasPrefix(k, "restricted"), strings.HasPrefix(k, "images."), strings.HasPrefix(k, "backups."):
			return errs.Unsupported("Project configuration key %q is not supported yet", k)
		default:
			return errs.Invalid("Invalid project configuration key %q: allowed are %s and user.*", k, strings.Join(features, ", "))
		}
	}
	return nil
}
