package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// serverEdit is the server's configuration as people edit it.
type serverEdit struct {
	Config map[string]string `yaml:"config"`
}

// loadServer reads the server's configuration.
func loadServer(ctx context.Context, c *client.Client) (*document, error) {
	s, etag, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	e := &serverEdit{Config: map[string]string{}}
	for k, v := range s.Config {
		e.Config[k] = fmt.Sprint(v)
	}
	return &document{show: e, edit: e, config: &e.Config, save: func(ctx context.Context) error {
		put := api.ServerPut{Config: map[string]any{}}
		for k, v := range e.Config {
			put.Config[k] = v
		}
		return c.UpdateServer(ctx, put, etag)
	}}, nil
}

// loadInstance reads an instance's configuration, or a snapshot's when name has a slash; snapshots cannot
// be written.
func (a *app) loadInstance(ctx context.Context, c *client.Client, name string, expanded bool) (*document, error) {
	if inst, snap, ok := strings.Cut(name, "/"); ok {
		s, _, err := c.InstanceSnapshot(ctx, inst, snap)
		if err != nil {
			return nil, err
		}
		return &document{show: s, edit: s, config: &s.Config, save: func(context.Context) error {
			return errors.New("snapshots cannot be changed")
		}}, nil
	}
	i, etag, err := c.Instance(ctx, name)
	if err != nil {
		return nil, err
	}
	put := i.InstancePut
	if expanded {
		put.Config, put.Devices = i.ExpandedConfig, i.ExpandedDevices
	}
	return &document{show: &put, edit: &put, config: &put.Config, save: func(ctx context.Context) error {
		op, err := c.UpdateInstance(ctx, name, put, etag)
		if err != nil {
			return err
		}
		return a.wait(ctx, op)
	}}, nil
}

const instanceHeader = `This is a YAML representation of the configuration.
Any line starting with a '# will be ignored.

A sample configuration looks like:
config:
  limits.memory: 1GiB
devices:
  data:
    path: /data
    source: /srv/data
    type: disk
ephemeral: false
profiles:
- default`

func (a *app) cmdConfig() *cobra.Command {
	var expanded bool
	var target string
	n := noun{name: "instance or server", arg: "<instance>", optional: true, header: instanceHeader, complete: a.completeInstances,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			if name == "" {
				return loadServer(ctx, c)
			}
			return a.loadInstance(ctx, c, name, expanded)
		}}
	get, show := a.nounGet(n), a.nounShow(n)
	get.Flags().BoolVarP(&expanded, "expanded", "e", false, "Access the expanded configuration")
	show.Flags().BoolVarP(&expanded, "expanded", "e", false, "Show the expanded configuration")
	cmds := []*cobra.Command{a.nounEdit(n), get, a.nounSet(n), show, a.nounUnset(n)}
	for _, cmd := range cmds {
		targetFlag(cmd, &target)
	}
	return group("config", "Manage instance and server configuration options", append(cmds, a.cmdDevice(a.instanceDevices()), a.cmdTrust())...)
}

// targetFlag adds lxc's --target, which means something in a cluster only.
func targetFlag(cmd *cobra.Command, target *string) {
	cmd.Flags().StringVar(target, "target", "", "Cluster member name")
	prev := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *target != "" {
			return errors.New("To use --target, the destination remote must be a cluster") //nolint:staticcheck // lxc's text
		}
		return prev(cmd, args)
	}
}

func instanceNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Instances(ctx, client.InstancesOptions{})
	return collect(all, err, func(i api.Instance) string { return i.Name })
}

func networkNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Networks(ctx)
	return collect(all, err, func(n api.Network) string { return n.Name })
}

func profileNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Profiles(ctx)
	return collect(all, err, func(p api.Profile) string { return p.Name })
}

func poolNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.StoragePools(ctx)
	return collect(all, err, func(p api.StoragePool) string { return p.Name })
}

func projectNames(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := c.Projects(ctx)
	return collect(all, err, func(p api.Project) string { return p.Name })
}
