package daemon

import (
	"path/filepath"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/fsmount"
)

// anyInstanceUp reports whether an instance is in any state but stopped.
func (d *daemon) anyInstanceUp() bool {
	projects, err := d.rooms.projects.List()
	if err != nil {
		return true
	}
	for _, proj := range projects {
		p, err := api.ParseProjectName(proj.Name)
		if err != nil {
			return true
		}
		for _, i := range d.rooms.instances.List(p) {
			if i.StatusCode != api.Stopped {
				return true
			}
		}
	}
	return false
}

// unmountIdle takes away what the daemon has mounted below its directory: images and pools. It is called at the end of a
// clean stop when no instance is up, so that the directory can then be copied or removed like any other. With an instance
// up everything stays, for it and for the next start; so does what a crash leaves.
func (d *daemon) unmountIdle() {
	for _, pattern := range []string{"images/*/root", "storage-pools/*"} {
		paths, err := filepath.Glob(filepath.Join(d.cfg.Dir, pattern))
		if err != nil {
			d.log.Error("look for mounts", "err", err)
		}
		for _, p := range paths {
			if err := fsmount.Unmount(p); err != nil {
				d.log.Warn("a mount stays behind", "path", p, "err", err)
			}
		}
	}
}
