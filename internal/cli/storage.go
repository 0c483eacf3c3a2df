package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const poolHeader = `This is a YAML representation of a storage pool.
Any line starting with a '# will be ignored.

Note that only the configuration and the description can be changed.`

func (a *app) poolNoun() noun {
	return noun{name: "storage", arg: "<pool>", header: poolHeader, complete: a.completePools,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			p, etag, err := c.StoragePool(ctx, name)
			if err != nil {
				return nil, err
			}
			p.UsedBy = sorted(p.UsedBy)
			edit := *p
			return &document{show: p, edit: &edit, config: &edit.Config, save: func(ctx context.Context) error {
				return c.UpdateStoragePool(ctx, name, edit.StoragePoolPut, etag)
			}}, nil
		}}
}

func (a *app) cmdStorage() *cobra.Command {
	var target string
	n := a.poolNoun()
	subs := []*cobra.Command{a.nounGet(n), a.nounSet(n), a.nounUnset(n), a.nounEdit(n), a.poolShow(n), a.poolInfo(), a.poolCreate()}
	for _, cmd := range subs {
		targetFlag(cmd, &target)
	}
	subs = append(subs, a.poolList(), a.poolDelete(), group("volume", "Manage storage volumes", a.volumeList(), a.volumeShow()))
	return group("storage", "Manage storage pools and volumes", subs...)
}

func (a *app) poolShow(n noun) *cobra.Command {
	var resources bool
	cmd := a.nounShow(n)
	show := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !resources {
			return show(cmd, args)
		}
		name, err := a.named(args[0], "storage pool")
		if err != nil {
			return err
		}
		c, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		r, err := c.StoragePoolResources(cmd.Context(), name)
		if err != nil {
			return err
		}
		return a.yaml(r)
	}
	cmd.Flags().BoolVar(&resources, "resources", false, "Show the resources available to the storage pool")
	return cmd
}

func (a *app) poolList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List available storage pools", Args: nargs(0, 1), Example: "  shoal storage list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			all, err := c.StoragePools(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, p := range all {
				rows = append(rows, []string{p.Name, p.Driver, p.Config["source"], p.Description, fmt.Sprint(len(p.UsedBy)), strings.ToUpper(p.Status)})
			}
			sortRows(rows)
			return a.table(format, []string{"NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) poolInfo() *cobra.Command {
	var bytes bool
	cmd := &cobra.Command{
		Use: "info <pool>", Short: "Show useful information about storage pools", Args: nargs(1, 1), Example: "  shoal storage info default",
		ValidArgsFunction: completer(a.completePools).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			p, _, err := c.StoragePool(cmd.Context(), name)
			if err != nil {
				return err
			}
			r, err := c.StoragePoolResources(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.printPool(p, r, bytes)
		},
	}
	cmd.Flags().BoolVar(&bytes, "bytes", false, "Show the used and free space in bytes")
	return cmd
}

// printPool prints info and used by as YAML maps with sorted keys.
func (a *app) printPool(p *api.StoragePool, r *api.ResourcesStoragePool, bytes bool) error {
	space := func(n uint64) string {
		if bytes {
			return fmt.Sprint(n)
		}
		return sizeIEC(int64(min(n, 1<<63-1)))
	}
	info := map[string]map[string]string{"info": {
		"name": p.Name, "description": p.Description, "driver": p.Driver,
		"total space": space(r.Space.Total), "space used": space(r.Space.Used),
	}}
	used := map[string]map[string][]string{"used by": {}}
	kinds := map[string]string{"instances": "instances", "containers": "instances", "virtual-machines": "instances", "profiles": "profiles", "images": "images", "storage-pools": "volumes", "networks": "networks"}
	for _, u := range p.UsedBy {
		path, query, _ := strings.Cut(strings.TrimPrefix(u, "/1.0/"), "?")
		parts := strings.Split(path, "/")
		kind, ok := kinds[parts[0]]
		if !ok {
			continue
		}
		name := parts[len(parts)-1]
		if project := strings.TrimPrefix(query, "project="); query != "" {
			name = fmt.Sprintf("%s (project %q)", name, project)
		}
		used["used by"][kind] = append(used["used by"][kind], name)
	}
	for _, names := range used["used by"] {
		slices.Sort(names)
	}
	if err := a.yaml(info); err != nil {
		return err
	}
	return a.yaml(used)
}

func (a *app) poolCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create <pool> <driver> [key=value...]", Short: "Create storage pools", Args: nargs(2, -1),
		Example: "  shoal storage create fast btrfs size=20GiB\n  shoal storage create plain dir",
		RunE: func(cmd *cobra.Command, args []string) error {
			kv, err := keyValues(args[2:])
			if err != nil {
				return err
			}
			return a.simple(cmd, args[0], "storage pool", func(ctx context.Context, c *client.Client, name string) error {
				return c.CreateStoragePool(ctx, api.StoragePoolsPost{StoragePoolPut: api.StoragePoolPut{Config: kv}, Name: name, Driver: args[1]})
			}, "Storage pool %s created")
		},
	}
}

func (a *app) poolDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <pool>", Aliases: []string{"rm"}, Short: "Delete storage pools", Args: nargs(1, 1), Example: "  shoal storage delete fast",
		ValidArgsFunction: completer(a.completePools).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "storage pool", func(ctx context.Context, c *client.Client, name string) error {
				return c.DeleteStoragePool(ctx, name)
			}, "Storage pool %s deleted")
		},
	}
}

func (a *app) volumeList() *cobra.Command {
	var format, columns string
	var all bool
	cmd := &cobra.Command{
		Use: "list <pool> [<filter>...]", Aliases: []string{"ls"}, Short: "List storage volumes", Args: nargs(1, -1),
		Long: `List storage volumes

A filter is key=value, for example type=custom or name=data.

Column shorthand chars:
  c - Content type (filesystem or block)
  d - Description
  e - Project name
  L - Location of the volume
  n - Name
  t - Type of volume (custom, image, container or virtual-machine)
  u - Number of references (used by)`,
		Example: "  shoal storage volume list default type=custom -c nc", ValidArgsFunction: completer(a.completePools).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			filters, err := keyValues(args[1:])
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("columns") {
				columns = "tndcu"
				if all {
					columns = "e" + columns
				}
			}
			cols, err := pickColumns(columns, volumeColumns)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			vols, err := c.StorageVolumes(cmd.Context(), pool, all)
			if err != nil {
				return err
			}
			vols = slices.DeleteFunc(vols, func(v api.StorageVolume) bool { return !volumeMatches(v, filters) })
			return tableOf(a, format, cols, vols)
		},
	}
	cmd.Flags().StringVarP(&columns, "columns", "c", "etndcuL", "Columns")
	cmd.Flags().BoolVar(&all, "all-projects", false, "All projects")
	formatFlag(cmd, &format)
	return cmd
}

var volumeColumns = []column[api.StorageVolume]{
	{'e', "PROJECT", func(v api.StorageVolume) string { return v.Project }},
	{'t', "TYPE", func(v api.StorageVolume) string { return v.Type }},
	{'n', "NAME", func(v api.StorageVolume) string { return v.Name }},
	{'d', "DESCRIPTION", func(v api.StorageVolume) string { return v.Description }},
	{'c', "CONTENT-TYPE", func(v api.StorageVolume) string {
		if v.ContentType == "" {
			return "filesystem"
		}
		return v.ContentType
	}},
	{'u', "USED BY", func(v api.StorageVolume) string { return fmt.Sprint(len(v.UsedBy)) }},
	{'L', "LOCATION", func(v api.StorageVolume) string { return v.Location }},
}

func volumeMatches(v api.StorageVolume, filters map[string]string) bool {
	have := map[string]string{"type": v.Type, "name": v.Name, "content_type": v.ContentType, "description": v.Description, "location": v.Location, "project": v.Project}
	for k, want := range filters {
		got, ok := have[k]
		if !ok {
			got = v.Config[strings.TrimPrefix(k, "config.")]
		}
		if got != want {
			return false
		}
	}
	return true
}

func (a *app) volumeShow() *cobra.Command {
	return &cobra.Command{
		Use: "show <pool> [<type>/]<volume>", Short: "Show storage volume configurations", Args: nargs(2, 2),
		Example:           "  shoal storage volume show default data\n  shoal storage volume show default container/web",
		ValidArgsFunction: completer(a.completePools).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			kind, name, ok := strings.Cut(args[1], "/")
			if !ok {
				kind, name = "custom", args[1]
			}
			v, _, err := c.StorageVolume(cmd.Context(), pool, kind, name)
			if err != nil {
				return err
			}
			v.UsedBy = sorted(v.UsedBy)
			return a.yaml(v)
		},
	}
}
