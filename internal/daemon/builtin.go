package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/storage/btrfs"
	"github.com/shoal-project/shoal/storage/dir"
	storagedriver "github.com/shoal-project/shoal/storage/driver"
)

// This file is the list of drivers that are built in; a new one is added here and nowhere else.

func (d *daemon) storageDrivers() []storagedriver.Driver {
	return []storagedriver.Driver{dir.New(d.log), btrfs.New(run.Host{}, d.log)}
}

// instanceDrivers makes the drivers that this host can run. Close lets go of their instances, which run on.
func (d *daemon) instanceDrivers(ctx context.Context) (drivers map[string]driver.Driver, closeAll func(), err error) {
	shim, err := helper("shoal-shim")
	if err != nil {
		return nil, nil, err
	}
	agent, err := helper("shoal-agent")
	if err != nil {
		return nil, nil, err
	}
	containers, err := oci.New(ctx, oci.Config{
		// The service that the exits are for is made with the drivers; nothing exits before it calls Recover.
		Deps: driver.Deps{OnExit: func(id string, exit driver.Exit) { d.rooms.instances.Exited(id, exit) }},
		Dir:  filepath.Join(d.cfg.Dir, "containers"), Shim: shim, Agent: agent, Runner: run.Host{}, Logger: d.log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("container driver: %w", err)
	}
	d.rooms.drivers = []driver.Driver{containers}
	return map[string]driver.Driver{api.TypeContainer: containers}, containers.Close, nil
}

// helper finds a program of ours: beside the daemon, as built and as installed, or in /usr/lib/shoal.
func helper(name string) (string, error) {
	var tried []string
	if exe, err := os.Executable(); err == nil {
		tried = append(tried, filepath.Join(filepath.Dir(exe), name))
	}
	tried = append(tried, filepath.Join("/usr/lib/shoal", name))
	for _, path := range tried {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errs.Unsupported("the program %s is missing; it belongs beside shoald (looked for %v)", name, tried)
}
