package cli

import (
	"context"
	"fmt"
	"strings"

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
	return group("project", "Manage projects", append(a.nounCommands(a.projectNoun()), a.projectList(), a.projectCreate(), a.projectDelete(),
		a.projectInfo(), a.projectRename(), a.projectSwitch())...)
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

// amountOf says how a resource of a project's state is shown: sizes as such, the rest as numbers.
func amountOf(resource string, n int64) string {
	switch {
	case n < 0:
		return "UNLIMITED"
	case resource == "memory" || strings.HasPrefix(resource, "disk"):
		return sizeIEC(n)
	}
	return fmt.Sprint(n)
}

func (a *app) projectInfo() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info <project>", Short: "Show how much of its limits a project uses", Args: nargs(1, 1), Example: "  shoal project info test",
		ValidArgsFunction: completer(a.completeProjects).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.local(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			st, err := c.ProjectState(cmd.Context(), name)
			if err != nil {
				return err
			}
			rows := [][]string{}
			for k, r := range st.Resources {
				rows = append(rows, []string{strings.ToUpper(k), amountOf(k, r.Limit), amountOf(k, r.Usage)})
			}
			sortRows(rows)
			return a.table(format, []string{"RESOURCE", "LIMIT", "USAGE"}, rows, st)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) projectSwitch() *cobra.Command {
	return &cobra.Command{
		Use: "switch <project>", Short: "Switch the current project", Args: nargs(1, 1), Example: "  shoal project switch test",
		Long:              "Switch the current project\n\nCommands for this server work in the project from now on, unless --project or SHOAL_PROJECT names another.",
		ValidArgsFunction: completer(a.completeProjects).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "project")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if _, _, err := c.ProjectByName(cmd.Context(), name); err != nil {
				return err
			}
			on, _, err := a.server()
			if err != nil {
				return err
			}
			return a.changeRemotes(func(r *remotes) error {
				e := r.Remotes[on]
				e.Project = name
				r.Remotes[on] = e
				return nil
			})
		},
	}
}

func (a *app) projectRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <project> <new-name>", Aliases: []string{"mv"}, Short: "Rename empty projects", Args: nargs(2, 2), Example: "  shoal project rename test prod",
		ValidArgsFunction: completer(a.completeProjects).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "project", func(ctx context.Context, c *client.Client, name string) error {
				op, err := c.RenameProject(ctx, name, args[1])
				if err != nil {
					return err
				}
				return op.Wait(ctx)
			}, "Project %s renamed to "+strings.ReplaceAll(args[1], "%", "%%"))
		},
	}
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
