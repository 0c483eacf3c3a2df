package daemon

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/trust"
)

// Config returns the server's configuration keys. With Replace, Merge and Environment it makes the daemon the
// rest.ServerService.
func (d *daemon) Config() map[string]string { return d.rooms.config.Get() }

// Replace sets the whole configuration.
func (d *daemon) Replace(ctx context.Context, c map[string]any) error {
	return d.rooms.config.Replace(ctx, c)
}

// Merge sets the given keys.
func (d *daemon) Merge(ctx context.Context, c map[string]any) error {
	return d.rooms.config.Merge(ctx, c)
}

// Environment describes the host and what was probed on it.
func (d *daemon) Environment() api.ServerEnvironment {
	env := hostEnvironment(d.cfg.Version)
	env.Addresses = d.addresses()
	env.Certificate, env.CertificateFingerprint = trust.Encode(d.net.pair.Leaf), trust.Fingerprint(d.net.pair.Leaf)
	var names, versions []string
	for _, drv := range d.rooms.drivers {
		i := drv.Info()
		names, versions = append(names, i.Name), append(versions, i.Version)
		for k, v := range i.Features {
			env.KernelFeatures[i.Name+"."+k] = v
		}
	}
	env.Driver, env.DriverVersion = strings.Join(names, " | "), strings.Join(versions, " | ")
	maps.Copy(env.KernelFeatures, d.imageFeatures())
	env.Database = d.describeDatabase()
	byName := map[string]string{}
	for _, i := range d.rooms.storage.Drivers() {
		byName[i.Name] = i.Version
		env.StorageDrivers = append(env.StorageDrivers, api.ServerStorageDriver{Name: i.Name, Version: i.Version})
	}
	// As LXD: the drivers of the pools that there are.
	names, versions = nil, nil
	for _, p := range d.rooms.storage.ListPools(context.Background()) {
		if v, ok := byName[p.Driver]; ok {
			names, versions = append(names, p.Driver), append(versions, v)
			delete(byName, p.Driver)
		}
	}
	env.Storage, env.StorageVersion = strings.Join(names, " | "), strings.Join(versions, " | ")
	return env
}

// imageFeatures says how images are mounted.
func (d *daemon) imageFeatures() map[string]string {
	return map[string]string{"image.form": fmt.Sprint(d.rooms.images.Info().Form)}
}
