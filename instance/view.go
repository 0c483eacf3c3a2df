package instance

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/state"
)

// ETag is what an instance's entity tag is made from (a list of values to be JSON encoded and hashed).
type ETag []any

func (r record) etag() ETag {
	return ETag{r.Architecture, r.Config, r.Devices, r.Ephemeral, r.Profiles}
}

// Names returns the names of the project's instances, sorted.
func (s *Service) Names(project api.ProjectName) []string {
	names := []string{}
	for _, item := range s.store.list(project) {
		if item.Value.Phase != renaming {
			names = append(names, state.SplitKey(item.Key)[1])
		}
	}
	return names
}

// List returns the project's instances sorted by name (recursion=1). It reads memory only.
func (s *Service) List(project api.ProjectName) []api.Instance {
	out := []api.Instance{}
	for _, item := range s.store.list(project) {
		if inst, ok := s.render(item); ok {
			out = append(out, inst)
		}
	}
	return out
}

// Get returns one instance; NotFound "Instance not found".
func (s *Service) Get(project api.ProjectName, name string) (api.Instance, ETag, error) {
	item, err := s.item(project, name)
	if err != nil {
		return api.Instance{}, nil, err
	}
	inst, _ := s.render(item)
	return inst, item.Value.etag(), nil
}

func (s *Service) item(project api.ProjectName, name string) (state.Item[record], error) {
	e, err := s.find(project, name)
	if err != nil {
		return state.Item[record]{}, err
	}
	return s.store.get(e.name())
}

// render makes what clients see from a record. Profiles that cannot be read are left out of the expansion: the instance
// must stay visible.
func (s *Service) render(item state.Item[record]) (api.Instance, bool) {
	r, err := parseKey(item.Key)
	rec := item.Value
	if err != nil || rec.Phase == renaming {
		return api.Instance{}, false
	}
	var profiles []api.ProfilePut
	holder, err := s.d.Projects.Effective(r.project, policy.Profiles)
	if err != nil {
		holder = r.project
	}
	for _, name := range rec.Profiles {
		if p, err := s.d.Profiles.Peek(holder, name); err == nil {
			profiles = append(profiles, p)
		}
	}
	status := api.Stopped
	if e := s.entries.get(r); e != nil {
		status, _ = e.now()
	}
	rec = rec.clone()
	inst := api.Instance{
		InstancePut: api.InstancePut{
			Architecture: rec.Architecture, Config: rec.Config, Devices: rec.Devices, Ephemeral: rec.Ephemeral,
			Profiles: rec.Profiles, Description: rec.Description,
		},
		CreatedAt: rec.CreatedAt, LastUsedAt: rec.LastUsedAt, Name: r.name.String(), Project: r.project.String(), Type: rec.Type,
		Status: status.String(), StatusCode: status, Location: rec.Location,
	}
	if inst.Profiles == nil {
		inst.Profiles = []string{}
	}
	inst.ExpandedConfig, inst.ExpandedDevices = config.Expand(profiles, rec.Config, rec.Devices)
	return inst, true
}
