package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) worldExport() *cobra.Command {
	return group("export", "Show resources of one machine to others", a.worldExportList(), a.worldExportSet(), a.worldExportUnset(), a.worldExportReplace())
}

func (a *app) worldExportList() *cobra.Command {
	var o client.WorldExportsOptions
	return newView(a, view[[]api.WorldExport]{
		use: "list", aliases: []string{"ls", "collect"}, args: nargs(0, 0),
		short: "List what is exported to this machine or to all", long: `List what is exported to this machine or to all

What machines export that have been away for longer than their grace period is left out, except with --all.`,
		example: "  shoal world export list --kind ssh-host-key\n  shoal world export list --from h1 --watch\n  shoal world export list --all -f json",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldExport], error) {
			return c.WorldExports(o), nil
		},
		header: []string{"KIND", "NAME", "FROM", "TO", "VALUE"},
		rows: func(all []api.WorldExport) [][]string {
			var rows [][]string
			for _, e := range all {
				rows = append(rows, []string{e.Kind, e.Name, e.From, e.To, worldData(e.WorldData)})
			}
			return rows
		},
		flags: func(cmd *cobra.Command) {
			f := cmd.Flags()
			f.StringArrayVar(&o.Kinds, "kind", nil, "Only of this kind (may be given several times)")
			f.StringVar(&o.Name, "name", "", "Only of this name")
			f.StringVar(&o.From, "from", "", "Only of this machine")
			f.StringVar(&o.To, "to", "", "Only what was exported to this machine, or to all with \"*\"")
			f.BoolVar(&o.All, "all", false, "Also what is for other machines, or of machines long gone")
		},
	})
}

func (a *app) worldExportSet() *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "set <kind> <name> [<value>]", Short: "Export a resource of this machine", Args: nargs(2, 3),
		Long:    "Export a resource of this machine\n\nWithout a value, it is read from standard input.",
		Example: "  shoal world export set ssh-host-key h1 < /etc/ssh/ssh_host_ed25519_key.pub\n  shoal world export set volume-secret data x --to h2",
		RunE: func(cmd *cobra.Command, args []string) error {
			var value []byte
			if len(args) > 2 {
				value = []byte(args[2])
			} else {
				var err error
				if value, err = a.readValue(); err != nil {
					return err
				}
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.SetWorldExports(cmd.Context(), api.WorldExportsPost{Exports: []api.WorldExport{{Kind: args[0], Name: args[1], To: to, WorldData: dataOf(value)}}})
			return err
		}}
	cmd.Flags().StringVar(&to, "to", "", "The machine that it is for (default all)")
	return cmd
}

func (a *app) worldExportUnset() *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "unset <kind> <name>", Aliases: []string{"delete", "rm"}, Short: "Take an export of this machine back", Args: nargs(2, 2),
		Example: "  shoal world export unset ssh-host-key h1",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			changed, err := c.DeleteWorldExport(cmd.Context(), args[0], args[1], to)
			if err == nil && !changed {
				a.sayf("This machine doesn't export %q %q", args[0], args[1])
			}
			return err
		}}
	cmd.Flags().StringVar(&to, "to", "", "The machine that it was for (default all)")
	return cmd
}

func (a *app) worldExportReplace() *cobra.Command {
	var set string
	cmd := &cobra.Command{Use: "replace", Short: "Export what is on standard input and take the rest back", Args: nargs(0, 0),
		Long: `Export what is on standard input and take the rest back

A YAML or JSON list of objects with kind, name, value and, for one machine only, to. What this machine exported in the same set
before and is not in the list is taken back; what set exports is in the set "".`,
		Example: "  echo '[{kind: port, name: web, value: \"8080\"}]' | shoal world export replace --set web",
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := a.stdinDocument()
			if err != nil {
				return err
			}
			if doc == nil {
				return usagef("Missing list: give it on standard input")
			}
			post := api.WorldExportsPost{Replace: true, Set: set, Exports: []api.WorldExport{}}
			if err := unmarshalYAML(doc, &post.Exports); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.SetWorldExports(cmd.Context(), post)
			return err
		}}
	cmd.Flags().StringVar(&set, "set", "", "The set that is replaced")
	return cmd
}

func (a *app) worldMachine() *cobra.Command {
	list := newView(a, view[[]api.WorldMachine]{
		use: "list", short: "List the machines that are or were there", aliases: []string{"ls"}, args: nargs(0, 0), example: "  shoal world machine list --watch",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldMachine], error) {
			return c.WorldMachines(), nil
		},
		header: []string{"NAME", "STATE", "GRACE", "URLS", "KEY"},
		rows: func(all []api.WorldMachine) [][]string {
			var rows [][]string
			for _, m := range all {
				rows = append(rows, []string{m.Name, machineState(m), strings.Replace((time.Duration(m.Grace) * time.Second).String(), "h0m0s", "h", 1), strings.Join(m.URLs, "\n"), shortKey(m.Key)})
			}
			return rows
		},
	})
	forget := &cobra.Command{Use: "forget <machine>", Short: "Delete what a machine that is down left behind", Args: nargs(1, 1), Example: "  shoal world machine forget n0a1b2c3d",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.ForgetWorldMachine(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.sayf("Machine %s forgotten", args[0])
			return nil
		}}
	return group("machine", "List and forget machines", list, forget)
}

func machineState(m api.WorldMachine) string {
	switch {
	case m.Up:
		return "UP"
	case m.Hidden:
		return "GONE"
	}
	return "DOWN"
}

// shortKey is enough of a key's name to tell it from others.
func shortKey(key string) string {
	const n = len("ed25519:") + 12
	if len(key) > n {
		return fmt.Sprintf("%s…", key[:n])
	}
	return key
}
