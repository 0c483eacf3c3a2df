package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// copyFlags say what of a copy differs from its original.
type copyFlags struct {
	config, profiles                           []string
	storage, targetProject                     string
	noProfiles, ephemeral, instanceOnly, again bool
}

func (a *app) cmdCopy() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use: "copy <instance>[/<snapshot>] <new-name>", Aliases: []string{"cp"}, Short: "Copy instances", Args: nargs(2, 2),
		Long: `Copy instances

The copy has the disk, the snapshots, the configuration and the devices of the original, and addresses of its own. The original may run.
With --refresh an existing copy gets what has changed: its disk becomes that of the original, missing snapshots come, others go.`,
		Example:           "  shoal copy web web2\n  shoal copy web/before-upgrade test -c limits.memory=1GiB\n  shoal copy web web2 --refresh",
		ValidArgsFunction: completer(a.completeInstances).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.copyOne(cmd.Context(), c, names[0], names[1], f)
		},
	}
	cmd.Flags().StringArrayVarP(&f.config, "config", "c", nil, "Config key/value to apply to the new instance")
	cmd.Flags().StringArrayVarP(&f.profiles, "profile", "p", nil, "Profile to apply to the new instance")
	cmd.Flags().BoolVar(&f.noProfiles, "no-profiles", false, "Create the instance with no profiles applied")
	cmd.Flags().BoolVarP(&f.ephemeral, "ephemeral", "e", false, "Ephemeral instance")
	cmd.Flags().StringVarP(&f.storage, "storage", "s", "", "Storage pool name")
	cmd.Flags().StringVar(&f.targetProject, "target-project", "", "Copy to a project different from the source")
	cmd.Flags().BoolVar(&f.instanceOnly, "instance-only", false, "Copy the instance without its snapshots")
	cmd.Flags().BoolVar(&f.again, "refresh", false, "Perform an incremental copy")
	return cmd
}

// copyOne asks the server for a copy.
func (a *app) copyOne(ctx context.Context, c *client.Client, from, to string, f copyFlags) error {
	if f.noProfiles && len(f.profiles) > 0 {
		return usagef("Both --profile and --no-profiles given")
	}
	cfg, err := keyValues(f.config)
	if err != nil {
		return err
	}
	req := api.InstancesPost{Name: to, Source: api.InstanceSource{
		Type: "copy", Source: from, InstanceOnly: f.instanceOnly, Refresh: f.again, Project: c.Project(),
	}}
	req.Config, req.Ephemeral, req.Profiles = cfg, f.ephemeral, f.profiles
	if f.noProfiles {
		req.Profiles = []string{}
	}
	if f.storage != "" {
		if req.Devices, err = rootIn(ctx, c, from, f.storage); err != nil {
			return err
		}
	}
	target := c
	if f.targetProject != "" {
		if req.Source.Project == "" {
			req.Source.Project = api.DefaultProject.String()
		}
		target = c.WithProject(f.targetProject)
	}
	op, err := target.CreateInstance(ctx, req)
	if err != nil {
		return err
	}
	return a.wait(ctx, op)
}

// rootIn is the root disk of an instance with another pool.
func rootIn(ctx context.Context, c *client.Client, name, pool string) (api.Devices, error) {
	inst, _, _ := strings.Cut(name, "/")
	i, _, err := c.Instance(ctx, inst)
	if err != nil {
		return nil, err
	}
	for dev, opts := range i.ExpandedDevices {
		if opts["type"] == "disk" && opts["path"] == "/" {
			opts["pool"] = pool
			return api.Devices{dev: opts}, nil
		}
	}
	return nil, errors.New("the instance has no root disk")
}
