package policy

import (
	"maps"

	"github.com/shoal-project/shoal/internal/schema"
)

// Project is what the gate knows of a project.
type Project struct {
	Name   string
	Config map[string]string
}

// Restricted reports whether the restrictions hold.
func (p Project) Restricted() bool {
	on, _ := schema.ParseBool(p.Config[restrictedKey])
	return on
}

// word is the value of a restriction, its default when it is not set.
func (p Project) word(key string) string { return Keys().Get(p.Config, key) }

// Instance is an instance with its effective configuration: what its profiles and its own keys make together.
type Instance struct {
	Name    string
	Type    string // api.TypeContainer or api.TypeVirtualMachine
	Config  map[string]string
	Devices map[string]map[string]string
}

// Profile is a profile as it is: it is checked by itself too, so that it cannot lie in wait.
type Profile struct {
	Name    string
	Config  map[string]string
	Devices map[string]map[string]string
}

// Volume is a custom storage volume. Size is in bytes, 0: none was set.
type Volume struct {
	Pool, Name string
	Size       int64
}

// Copy is a snapshot or a backup, of an instance or a volume.
type Copy struct {
	Of     string // name of the instance or volume
	Name   string
	Backup bool
}

// Contents is what is in a project, or a part of it. Each kind has its names as keys: an object that is in two Contents under the
// same name is the same object, changed. A snapshot's or backup's key is made by [CopyKey], a volume's by [VolumeKey].
type Contents struct {
	Instances map[string]Instance
	Profiles  map[string]Profile
	Volumes   map[string]Volume
	Networks  map[string]struct{}
	Copies    map[string]Copy
}

// CopyKey is the key of a snapshot or backup.
func CopyKey(c Copy) string {
	if c.Backup {
		return c.Of + "/backups/" + c.Name
	}
	return c.Of + "/" + c.Name
}

// VolumeKey is the key of a volume.
func VolumeKey(v Volume) string { return v.Pool + "/" + v.Name }

// OneInstance is Contents of a single instance.
func OneInstance(i Instance) Contents { return Contents{Instances: map[string]Instance{i.Name: i}} }

// OneVolume is Contents of a single custom volume.
func OneVolume(v Volume) Contents { return Contents{Volumes: map[string]Volume{VolumeKey(v): v}} }

// OneNetwork is Contents of a single network.
func OneNetwork(name string) Contents { return Contents{Networks: map[string]struct{}{name: {}}} }

// OneCopy is Contents of a single snapshot or backup.
func OneCopy(c Copy) Contents { return Contents{Copies: map[string]Copy{CopyKey(c): c}} }

// Apply returns what c becomes when the objects of before make way for those of after.
func (c Contents) Apply(before, after Contents) Contents {
	return Contents{
		Instances: replaced(c.Instances, before.Instances, after.Instances),
		Profiles:  replaced(c.Profiles, before.Profiles, after.Profiles),
		Volumes:   replaced(c.Volumes, before.Volumes, after.Volumes),
		Networks:  replaced(c.Networks, before.Networks, after.Networks),
		Copies:    replaced(c.Copies, before.Copies, after.Copies),
	}
}

func replaced[V any](all, before, after map[string]V) map[string]V {
	out := maps.Clone(all)
	if out == nil {
		out = map[string]V{}
	}
	for k := range before {
		delete(out, k)
	}
	maps.Copy(out, after)
	return out
}
