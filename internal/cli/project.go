package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const projectHeader = `This is a YAML representation of the project.
Any line starting with a '# will be ignored.

Note that the name is shown but cannot be changed.`

func (a *app) projectNoun() noun {
	return noun{name: "project", arg: "<project>", header: projectHeader, complete: a.completeProjects,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			p, etag, err := c.ProjectByName(ctx, name)
			if err != nil {
				return nil, err
			}
			p.UsedBy = sorted(p.UsedBy)
			edit := *p
			return &document{show: p, edit: &edit, config: &edit.Config, save: func(ctx context.Context) error {
				return c.UpdateProject(ctx, name, edit.ProjectPut, etag)
			}}, nil
		}}
}

func (a *app) cmdProject() *cobra.Command {
	return group("project", "Manage projects", append(a.nounCommands(a.projectNoun()), a.projectList(), a.projectCreate(), a.projectDelete())...)
}

func (a *app) projectList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List projects", Args: nargs(0, 1), Example: "  shoal project list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			all, err := c.Projects(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, p := range all {
				name := p.Name
				if name == c.Project() {
					name += " (current)"
				}
				has := func(feature string) string { return upperYesNo(p.Config["features."+feature] == "true") }
				rows = append(rows, []string{name, has("images"), has("profiles"), has("storage.volumes"), has("networks"), p.Description, fmt.Sprint(len(p.UsedBy))})
			}
			sortRows(rows)
			return a.table(format, []string{"NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) projectCreate() *cobra.Command {
	var config []string
	cmd := &cobra.Command{
		Use: "create <project>", Short: "Create projects", Args: nargs(1, 1), Example: "  shoal project create test -c features.images=false",
		RunE: func(cmd *cobra.Command, args []string) error {
			kv, err := keyValues(config)
			if err != nil {
				return err
			}
			return a.simple(cmd, args[0], "project", func(ctx context.Context, c *client.Client, name string) error {
				return c.CreateProject(ctx, name, api.ProjectPut{Config: kv})
			}, "Project %s created")
		},
	}
	cmd.Flags().StringArrayVarP(&config, "config", "c", nil, "Config key/value to apply to the new project")
	return cmd
}

func (a *app) projectDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <project>", Aliases: []string{"rm"}, Short: "Delete projects", Args: nargs(1, 1), Example: "  shoal project delete test",
		ValidArgsFunction: completer(a.completeProjects).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "project", func(ctx context.Context, c *client.Client, name string) error { return c.DeleteProject(ctx, name) },
				"Project %s deleted")
		},
	}
}
