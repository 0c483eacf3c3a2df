package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) cmdWorld() *cobra.Command {
	cmd := group("world", "Share facts, deploys and files between machines",
		a.worldDeploy(), a.worldExport(), a.worldFS(), a.worldInfo(), a.worldMachine(), a.worldMap(), a.worldMember(), a.worldSchedule(), a.worldString())
	cmd.Long = `Share facts, deploys and files between machines

The World is what all machines of a cluster see: strings, string maps with an entry for each machine, resources that one
machine exports and others collect, and deploys. What can be listed can be watched with --watch.`
	cmd.Example = `  shoal world string set motd "hello"
  shoal world string get motd --watch
  shoal world map list -f json
  shoal world export set ssh-host-key h1 < /etc/ssh/ssh_host_ed25519_key.pub
  shoal world deploy add site.yaml --wait`
	return cmd
}

// view is a command that shows something of the World, once or with --watch again after each change.
type view[T any] struct {
	use, short, example string
	long                string
	aliases             []string
	args                cobra.PositionalArgs
	flags               func(*cobra.Command)
	live                func(c *client.Client, args []string) (client.Live[T], error)
	header              []string
	rows                func(T) [][]string
	plain               func(T) string // instead of a table, where that is clearer
}

func newView[T any](a *app, v view[T]) *cobra.Command {
	var format string
	var watch bool
	cmd := &cobra.Command{Use: v.use, Aliases: v.aliases, Short: v.short, Long: v.long, Example: v.example, Args: v.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			live, err := v.live(c, args)
			if err != nil {
				return err
			}
			show := func(val T) error {
				if v.plain != nil && format == "table" {
					a.printf("%s", v.plain(val))
					return nil
				}
				return a.table(format, v.header, v.rows(val), val)
			}
			if watch {
				return a.watched(live.Follow(cmd.Context(), func(val T) error {
					if format == "table" && v.plain == nil && !a.quiet {
						a.printf("%s\n", time.Now().Format(time.TimeOnly))
					}
					return show(val)
				}))
			}
			val, err := live.Get(cmd.Context())
			if err != nil {
				return err
			}
			return show(val)
		}}
	formatFlag(cmd, &format)
	cmd.Flags().BoolVar(&watch, "watch", false, "Show it again after each change, until Ctrl-C")
	if v.flags != nil {
		v.flags(cmd)
	}
	return cmd
}

// watched makes Ctrl-C the normal end of a watch.
func (a *app) watched(err error) error {
	if err == context.Canceled {
		return &exitCodeError{code: exitInterrupted}
	}
	return err
}

// worldData is a value for people: what is not text is said to be so.
func worldData(d api.WorldData) string {
	if d.Encoding != "" {
		return fmt.Sprintf("(%s) %s", d.Encoding, d.Value)
	}
	return d.Value
}

func (a *app) worldInfo() *cobra.Command {
	return &cobra.Command{Use: "info", Short: "Show where the World lies and what is in it", Args: nargs(0, 0), Example: "  shoal world info",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			w, err := c.World(cmd.Context())
			if err != nil {
				return err
			}
			return a.yaml(w)
		}}
}

func (a *app) worldMember() *cobra.Command {
	list := newView(a, view[[]api.WorldMember]{
		use: "list", short: "List the members of the database", aliases: []string{"ls"}, args: nargs(0, 0), example: "  shoal world member list",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldMember], error) {
			return c.WorldMembers(), nil
		},
		header: []string{"ID", "NAME", "ROLE", "LEADER", "CLIENT URLS"},
		rows: func(ms []api.WorldMember) [][]string {
			var rows [][]string
			for _, m := range ms {
				rows = append(rows, []string{m.ID, m.Name, memberRole(m), upperYesNo(m.Leader), strings.Join(m.ClientURLs, "\n")})
			}
			return rows
		},
	})
	list.Flags().Lookup("watch").Hidden = true // members are followed change by change
	var format string
	watch := &cobra.Command{Use: "watch", Short: "Follow members joining, leaving, being promoted and leading", Args: nargs(0, 0),
		Example: "  shoal world member watch\n  shoal world member watch -f json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return usagef("Invalid format %q: it has to be text or json", format)
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.watched(c.FollowWorldMembers(cmd.Context(), func(e api.WorldMemberEvent) error {
				if format == "json" {
					return json.NewEncoder(a.Out).Encode(e)
				}
				a.printf("%s  %s\n", e.Time.Local().Format(time.TimeOnly), memberEventText(e))
				return nil
			}))
		}}
	watch.Flags().StringVarP(&format, "format", "f", "text", "Format (text|json)")
	return group("member", "List and follow the members of the database", list, watch)
}

func memberRole(m api.WorldMember) string {
	if m.Learner {
		return "standby"
	}
	return "voter"
}

func memberEventText(e api.WorldMemberEvent) string {
	switch {
	case e.Error != "":
		return "members unknown: " + e.Error
	case e.Change == "":
		var names []string
		for _, m := range e.Members {
			names = append(names, memberName(m))
		}
		return "members: " + strings.Join(names, ", ")
	case e.Change == "leader" && e.Member.ID == "0":
		return "leader: none"
	}
	return e.Change + ": " + memberName(*e.Member)
}

func memberName(m api.WorldMember) string {
	name := m.Name
	if name == "" {
		name = m.ID
	}
	return name + " (" + memberRole(m) + ")"
}
