package api_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-project/shoal/api"
)

// samples have the fields that LXD 5.0.2 and its client put on the wire, one file of testdata for each, with the type that it must pass
// through unharmed: no field unknown, none lost, none renamed, null and empty kept apart.
func samples() map[string]any {
	return map[string]any{
		"error":                &api.Response{},
		"async":                &api.Response{},
		"operation":            &api.Operation{},
		"event-lifecycle":      &api.Event{},
		"lifecycle":            &api.EventLifecycle{},
		"storage-pool":         &api.StoragePool{},
		"network":              &api.Network{},
		"image":                &api.Image{},
		"profile":              &api.Profile{},
		"project":              &api.Project{},
		"instance":             &api.Instance{},
		"instance-state":       &api.InstanceState{},
		"instance-state-put":   &api.InstanceStatePut{},
		"exec-post":            &api.InstanceExecPost{},
		"exec-resize":          &api.InstanceExecControl{},
		"restore-put":          &api.InstancePut{},
		"storage-pool-space":   &api.ResourcesStoragePool{},
		"image-metadata":       &api.ImageMetadata{},
		"instance-create-post": &api.InstancesPost{},
	}
}

func TestWireSamplesPassUnharmed(t *testing.T) {
	for name, into := range samples() {
		t.Run(name, func(t *testing.T) {
			golden, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(golden))
			dec.DisallowUnknownFields()
			if err := dec.Decode(into); err != nil {
				t.Fatal(err)
			}
			out, err := json.Marshal(into)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parse(t, golden), parse(t, out)); diff != "" {
				t.Errorf("changed on the way (-wire +ours):\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEverySampleIsUsed(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := samples()[strings.TrimSuffix(filepath.Base(f), ".json")]; !ok {
			t.Errorf("%s is not tested", f)
		}
	}
}

// yaml and json must use the same words: users edit what the API sent as YAML and send it back.
func TestYAMLTagsEqualJSONTags(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ.PkgPath() != reflect.TypeFor[api.Response]().PkgPath() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			walk(f.Type)
			j, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			y, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if typ != reflect.TypeFor[api.Response]() && !f.Anonymous && j != y {
				t.Errorf("%s.%s: json %q, yaml %q", typ.Name(), f.Name, j, y)
			}
			if f.Anonymous && f.Tag.Get("yaml") != ",inline" {
				t.Errorf("%s.%s: embedded without yaml:\",inline\"", typ.Name(), f.Name)
			}
		}
	}
	for _, v := range samples() {
		walk(reflect.TypeOf(v))
	}
	for _, v := range []any{api.Server{}, api.InstanceFull{}, api.NetworkState{}, api.StorageVolume{}, api.Warning{}, api.ImagesPost{}, api.ImageAliasesEntry{}} {
		walk(reflect.TypeOf(v))
	}
}
