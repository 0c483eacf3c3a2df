package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) aliasCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create <alias> <fingerprint>", Short: "Create aliases for existing images", Args: nargs(2, 2), Example: "  shoal image alias create debian/12 5f1c",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "alias")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			i, _, err := c.ResolveImage(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return c.CreateImageAlias(cmd.Context(), newAlias(name, i.Fingerprint))
		},
	}
}

func newAlias(name, target string) api.ImageAliasesPost {
	return api.ImageAliasesPost{Name: name, ImageAliasesEntryPut: api.ImageAliasesEntryPut{Target: target}}
}

func (a *app) completeAliases(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.ImageAliases(ctx)
		return collect(all, err, func(e api.ImageAliasesEntry) string { return e.Name })
	})(cmd, args, s)
}

func (a *app) aliasDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <alias>", Aliases: []string{"rm"}, Short: "Delete image aliases", Args: nargs(1, 1), Example: "  shoal image alias delete debian/12",
		ValidArgsFunction: completer(a.completeAliases).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "alias")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.DeleteImageAlias(cmd.Context(), name)
		},
	}
}

func (a *app) aliasRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <alias> <new-name>", Aliases: []string{"mv"}, Short: "Rename aliases", Args: nargs(2, 2), Example: "  shoal image alias rename debian/12 bookworm",
		ValidArgsFunction: completer(a.completeAliases).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "alias")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.RenameImageAlias(cmd.Context(), name, args[1])
		},
	}
}

func (a *app) aliasList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:] [<filter>...]", Aliases: []string{"ls"}, Short: "List image aliases", Example: "  shoal image alias list debian",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && strings.HasSuffix(args[0], ":") {
				if _, err := a.local(args[0]); err != nil {
					return err
				}
				args = args[1:]
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.ImageAliases(cmd.Context())
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(e api.ImageAliasesEntry) bool {
				return slices.ContainsFunc(args, func(f string) bool { return !strings.Contains(e.Name, f) && !strings.HasPrefix(e.Target, f) })
			})
			rows := [][]string{}
			for _, e := range all {
				kind := e.Type
				if kind == "" {
					kind = api.TypeContainer
				}
				rows = append(rows, []string{e.Name, e.Target[:min(12, len(e.Target))], strings.ToUpper(kind), e.Description})
			}
			sortRows(rows)
			return a.table(format, []string{"ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}
