package daemon

import (
	"context"
	"net/url"

	"github.com/shoal-project/shoal/api"
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
		for _, pr := range d.rooms.profiles.List(p) {
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
	if d.rooms.profiles != nil {
		for _, pr := range d.rooms.profiles.List(p) {
			out = append(out, objectURL("profiles", p, pr.Name))
		}
	}
	return out
}

// forgetProject takes a project out of all certificates.
func (d *daemon) forgetProject(ctx context.Context, p api.ProjectName) error {
	return d.rooms.trust.ForgetProject(ctx, p)
}
