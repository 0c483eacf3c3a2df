package daemon

import (
	"context"
	"errors"
	"net/url"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/internal/units"
)

// The rooms below instances do not know who uses their objects: these functions tell them.

// objectURL is an object's URL as used_by shows it.
func objectURL(kind string, p api.ProjectName, name string) string {
	u := "/1.0/" + kind + "/" + url.PathEscape(name)
	if p != api.DefaultProject {
		u += "?project=" + url.QueryEscape(p.String())
	}
	return u
}

// users lists the instances and profiles of all projects one of whose devices fits.
func (d *daemon) users(fits func(device map[string]string) bool) []string {
	if d.rooms.instances == nil {
		return nil
	}
	projects, err := d.rooms.projects.List()
	if err != nil {
		return nil
	}
	var out []string
	uses := func(devices api.Devices) bool {
		for _, dev := range devices {
			if fits(dev) {
				return true
			}
		}
		return false
	}
	for _, proj := range projects {
		p, err := api.ParseProjectName(proj.Name)
		if err != nil {
			continue
		}
		for _, i := range d.rooms.instances.List(p) {
			if uses(i.ExpandedDevices) {
				out = append(out, objectURL("instances", p, i.Name))
			}
		}
		for _, pr := range d.ownProfiles(p) {
			if uses(pr.Devices) {
				out = append(out, objectURL("profiles", p, pr.Name))
			}
		}
	}
	return out
}

func (d *daemon) poolUsedBy(pool api.PoolName) []string {
	return d.users(func(dev map[string]string) bool { return dev["type"] == "disk" && dev["pool"] == pool.String() })
}

// networkUsedBy ignores the project: a network's name is an interface of the host, so there is one of it.
func (d *daemon) networkUsedBy(_ api.ProjectName, n api.NetworkName) []string {
	return d.users(func(dev map[string]string) bool {
		return dev["type"] == "nic" && (dev["network"] == n.String() || (dev["network"] == "" && dev["parent"] == n.String()))
	})
}

// projectUsedBy lists what is in a project.
func (d *daemon) projectUsedBy(p api.ProjectName) []string {
	var out []string
	if d.rooms.instances != nil {
		for _, name := range d.rooms.instances.Names(p) {
			out = append(out, objectURL("instances", p, name))
		}
	}
	if d.rooms.images != nil {
		for _, img := range d.rooms.images.List(p) {
			out = append(out, objectURL("images", p, img.Fingerprint))
		}
	}
	for _, pr := range d.ownProfiles(p) {
		out = append(out, objectURL("profiles", p, pr.Name))
	}
	for _, n := range d.ownNetworks(p) {
		out = append(out, objectURL("networks", p, n))
	}
	return out
}

// ownProfiles lists a project's profiles, none when it shares those of the default project.
func (d *daemon) ownProfiles(p api.ProjectName) []api.Profile {
	if holder, err := d.rooms.projects.Effective(p, project.Profiles); err != nil || holder != p || d.rooms.profiles == nil {
		return nil
	}
	return d.rooms.profiles.List(p)
}

// ownNetworks lists the names of a project's managed networks, none when it shares those of the default project.
func (d *daemon) ownNetworks(p api.ProjectName) []string {
	if holder, err := d.rooms.projects.Effective(p, project.Networks); err != nil || holder != p || d.rooms.networks == nil {
		return nil
	}
	return d.rooms.networks.Names(p)
}

// projectContents is what the gate weighs: everything in a project, as it takes effect.
func (d *daemon) projectContents(p api.ProjectName) (policy.Contents, error) {
	out := policy.Contents{Profiles: map[string]policy.Profile{}, Networks: map[string]struct{}{}, Volumes: map[string]policy.Volume{}}
	var err error
	if d.rooms.instances != nil {
		out.Instances, err = d.rooms.instances.Contents(p)
	}
	for _, pr := range d.ownProfiles(p) {
		out.Profiles[pr.Name] = policy.Profile{Name: pr.Name, Config: pr.Config, Devices: pr.Devices}
	}
	for _, n := range d.ownNetworks(p) {
		out.Networks[n] = struct{}{}
	}
	return out, errors.Join(err, d.projectVolumes(p, out.Volumes))
}

// projectVolumes adds a project's custom volumes.
func (d *daemon) projectVolumes(p api.ProjectName, out map[string]policy.Volume) error {
	if d.rooms.storage == nil {
		return nil
	}
	for _, pool := range d.rooms.storage.PoolNames() {
		list, err := d.rooms.storage.ListVolumes(pool, p)
		if err != nil {
			return err
		}
		for _, v := range list {
			if v.Type != "custom" || v.Project != p.String() {
				continue
			}
			size, err := units.ParseBytes(v.Config["size"])
			if v.Config["size"] == "" || err != nil {
				size = 0
			}
			pv := policy.Volume{Pool: pool.String(), Name: v.Name, Size: size}
			out[policy.VolumeKey(pv)] = pv
		}
	}
	return nil
}

// forgetProject takes a project out of all certificates.
func (d *daemon) forgetProject(ctx context.Context, p api.ProjectName) error {
	return d.rooms.trust.ForgetProject(ctx, p)
}
