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

func (a *app) completeOperations(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Operations(ctx, false)
		return collect(all, err, func(o api.Operation) string { return o.ID })
	})(cmd, args, s)
}

func (a *app) cmdOperation() *cobra.Command {
	show := &cobra.Command{
		Use: "show <operation>", Short: "Show details on a background operation", Args: nargs(1, 1), Example: "  shoal operation show 344a79e4-d88a-45bf-9c39-c72c26f6ab8a",
		ValidArgsFunction: completer(a.completeOperations).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "operation")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			op, _, err := c.Operation(cmd.Context(), name)
			if err != nil {
				return err
			}
			return a.yaml(op)
		},
	}
	del := &cobra.Command{
		Use: "delete <operation>", Aliases: []string{"cancel", "rm"}, Short: "Delete a background operation (will attempt to cancel)", Args: nargs(1, 1),
		Example: "  shoal operation delete 344a79e4-d88a-45bf-9c39-c72c26f6ab8a", ValidArgsFunction: completer(a.completeOperations).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "operation", func(ctx context.Context, c *client.Client, id string) error { return c.DeleteOperation(ctx, id) },
				"Operation %s deleted")
		},
	}
	return group("operation", "List, show and delete background operations", del, a.operationList(), show)
}

func (a *app) operationList() *cobra.Command {
	var format string
	var all bool
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List background operations", Args: nargs(0, 1), Example: "  shoal operation list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			ops, err := c.Operations(cmd.Context(), all)
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, o := range ops {
				rows = append(rows, []string{o.ID, strings.ToUpper(o.Class), o.Description, strings.ToUpper(o.Status), upperYesNo(o.MayCancel), o.CreatedAt.UTC().Format(minuteLayout)})
			}
			sortRows(rows)
			if ops == nil {
				ops = []api.Operation{}
			}
			return a.table(format, []string{"ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"}, rows, ops)
		},
	}
	cmd.Flags().BoolVar(&all, "all-projects", false, "List operations from all projects")
	formatFlag(cmd, &format)
	return cmd
}

var warningColumns = []column[api.Warning]{
	{'c', "COUNT", func(w api.Warning) string { return fmt.Sprint(w.Count) }},
	{'l', "LAST SEEN", func(w api.Warning) string { return w.LastSeenAt.UTC().Format(longLayout) }},
	{'L', "LOCATION", func(w api.Warning) string { return w.Location }},
	{'f', "FIRST SEEN", func(w api.Warning) string { return w.FirstSeenAt.UTC().Format(longLayout) }},
	{'p', "PROJECT", func(w api.Warning) string { return w.Project }},
	{'s', "SEVERITY", func(w api.Warning) string { return strings.ToUpper(w.Severity) }},
	{'S', "STATUS", func(w api.Warning) string { return strings.ToUpper(w.Status) }},
	{'u', "UUID", func(w api.Warning) string { return w.UUID }},
	{'t', "TYPE", func(w api.Warning) string { return w.Type }},
}

func (a *app) cmdWarning() *cobra.Command {
	ack := &cobra.Command{
		Use: "acknowledge <warning>", Aliases: []string{"ack"}, Short: "Acknowledge warning", Args: nargs(1, 1), Example: "  shoal warning acknowledge <uuid>",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := a.named(args[0], "warning")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.SetWarningStatus(cmd.Context(), id, "acknowledged")
		},
	}
	del := &cobra.Command{
		Use: "delete <warning>", Aliases: []string{"rm"}, Short: "Delete warning", Args: nargs(1, 1), Example: "  shoal warning delete <uuid>",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := a.named(args[0], "warning")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.DeleteWarning(cmd.Context(), id)
		},
	}
	show := &cobra.Command{
		Use: "show <warning>", Short: "Show warning", Args: nargs(1, 1), Example: "  shoal warning show <uuid>",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := a.named(args[0], "warning")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			w, _, err := c.Warning(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.yaml(w)
		},
	}
	return group("warning", "Manage warnings", ack, del, a.warningList(), show)
}

func (a *app) warningList() *cobra.Command {
	var format, columns string
	var all bool
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List warnings", Args: nargs(0, 1), Example: "  shoal warning list --all",
		Long: "List warnings\n\nColumn shorthand chars:\n  c - Count\n  l - Last seen\n  L - Location\n  f - First seen\n  p - Project\n  s - Severity\n  S - Status\n  u - UUID\n  t - Type",
		RunE: func(cmd *cobra.Command, args []string) error {
			cols, err := pickColumns(columns, warningColumns)
			if err != nil {
				return err
			}
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			ws, err := c.Warnings(cmd.Context())
			if err != nil {
				return err
			}
			if !all {
				ws = slices.DeleteFunc(ws, func(w api.Warning) bool { return w.Status != "new" })
			}
			return tableOf(a, format, cols, ws)
		},
	}
	cmd.Flags().StringVarP(&columns, "columns", "c", "utSscpl", "Columns")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "List all warnings")
	formatFlag(cmd, &format)
	return cmd
}
