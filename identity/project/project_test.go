package project_test

import (
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

func service(t *testing.T, usedBy map[string][]string) *project.Service {
	t.Helper()
	s, err := project.New(project.Deps{State: state.NewMemory(), UsedBy: func(p api.ProjectName) []string { return usedBy[p.String()] }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// update replaces a project's writable part.
func update(t *testing.T, s *project.Service, name api.ProjectName, put api.ProjectPut) error {
	t.Helper()
	return s.Update(t.Context(), name, func(api.ProjectPut) (api.ProjectPut, error) { return put, nil })
}

func TestTheDefaultProjectAlwaysExists(t *testing.T) {
	s := service(t, nil)
	p, err := s.Get(api.DefaultProject)
	if err != nil || p.Config[project.Networks] != "true" || p.UsedBy == nil {
		t.Fatalf("got %+v, %v", p, err)
	}
	if err := s.Delete(t.Context(), api.DefaultProject); !errs.Is(err, errs.Denied) {
		t.Errorf("deleted: %v", err)
	}
	if _, err := s.Create(t.Context(), "default", api.ProjectPut{}); !errs.IsExists(err) {
		t.Errorf("created twice: %v", err)
	}
	if err := update(t, s, api.DefaultProject, api.ProjectPut{Description: "mine"}); err != nil {
		t.Fatal(err)
	}
	if err := update(t, s, api.DefaultProject, api.ProjectPut{Config: api.Config{project.Images: "false"}}); err == nil {
		t.Error("switched off a feature of the default project")
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Description != "mine" || all[0].Config[project.Images] != "true" {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestLife(t *testing.T) {
	used := map[string][]string{}
	s := service(t, used)
	name, err := s.Create(t.Context(), "foo", api.ProjectPut{Config: api.Config{project.Images: "false", "user.a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if eff, err := s.Effective(name, project.Images); err != nil || eff != api.DefaultProject {
		t.Errorf("images of foo are in %v, %v", eff, err)
	}
	if eff, err := s.Effective(name, project.Profiles); err != nil || eff != name {
		t.Errorf("profiles of foo are in %v, %v", eff, err)
	}
	used["foo"] = []string{"/1.0/profiles/default?project=foo"}
	if err := update(t, s, name, api.ProjectPut{Config: api.Config{project.Images: "true"}}); err != nil {
		t.Errorf("an empty project refuses a feature: %v", err)
	}
	used["foo"] = append(used["foo"], "/1.0/instances/c1?project=foo")
	if err := update(t, s, name, api.ProjectPut{Config: api.Config{project.Images: "false"}}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("changed a feature under an instance: %v", err)
	}
	if err := s.Delete(t.Context(), name); !errs.Is(err, errs.InvalidInput) || err.Error() != "Only empty projects can be removed" {
		t.Errorf("deleted with an instance: %v", err)
	}
	delete(used, "foo")
	if err := s.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if err := s.Exists(name); !errs.IsNotFound(err) || err.Error() != "Project not found" {
		t.Errorf("still there: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	s := service(t, nil)
	for name, c := range map[string]struct {
		project string
		config  api.Config
		class   errs.Class
		text    string
	}{
		"space":       {"a b", nil, errs.InvalidInput, "Project names may not contain spaces"},
		"empty":       {"", nil, errs.InvalidInput, "No name provided"},
		"slash":       {"a/b", nil, errs.InvalidInput, ""},
		"unknown key": {"foo", api.Config{"nope": "1"}, errs.InvalidInput, ""},
		"not a bool":  {"foo", api.Config{project.Images: "maybe"}, errs.InvalidInput, ""},
		"not a limit": {"foo", api.Config{"limits.instances": "many"}, errs.InvalidInput, ""},
		"not a word":  {"foo", api.Config{"restricted.backups": "perhaps"}, errs.InvalidInput, ""},
		"not a path":  {"foo", api.Config{"restricted.devices.disk.paths": "/a/../b"}, errs.InvalidInput, ""},
		"not an id":   {"foo", api.Config{"restricted.idmap.uid": "9-1"}, errs.InvalidInput, ""},
		"no effect":   {"foo", api.Config{"images.auto_update_interval": "3"}, errs.UnsupportedClass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(t.Context(), c.project, api.ProjectPut{Config: c.config})
			if !errs.Is(err, c.class) || (c.text != "" && err.Error() != c.text) {
				t.Errorf("got %v", err)
			}
			if all, _ := s.List(); len(all) != 1 {
				t.Error("something was created")
			}
		})
	}
}
