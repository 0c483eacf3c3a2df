package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// maxValue bounds a value in bytes; the server takes a little less and says how much.
const maxValue = 1 << 20

func (a *app) worldString() *cobra.Command {
	get := newView(a, view[*api.WorldString]{
		use: "get <key>", short: "Show a string", args: nargs(1, 1), example: "  shoal world string get motd\n  shoal world string get motd --watch -f json",
		live: func(c *client.Client, args []string) (client.Live[*api.WorldString], error) {
			return c.WorldString(args[0]), nil
		},
		header: []string{"KEY", "VALUE"},
		rows:   func(s *api.WorldString) [][]string { return stringRows(s) },
		plain: func(s *api.WorldString) string {
			if s == nil {
				return "(not set)\n"
			}
			return strings.TrimSuffix(worldData(s.WorldData), "\n") + "\n"
		},
	})
	list := newView(a, view[[]api.WorldString]{
		use: "list", short: "List strings", aliases: []string{"ls"}, args: nargs(0, 0), example: "  shoal world string list\n  shoal world string list --watch",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldString], error) {
			return c.WorldStrings(), nil
		},
		header: []string{"KEY", "VALUE", "EXPIRES"},
		rows: func(all []api.WorldString) [][]string {
			var rows [][]string
			for _, s := range all {
				rows = append(rows, []string{s.Key, worldData(s.WorldData), upperYesNo(s.Expires)})
			}
			return rows
		},
	})
	set := a.worldSet("set <key> [<value>]", "Set a string", "  shoal world string set motd hello\n  shoal world string set lease/web h1 --ttl 30s\n  shoal world string set config < file",
		(*client.Client).SetWorldString)
	unset := a.worldUnset("unset <key>", "Delete a string", "  shoal world string unset motd", "The string %q doesn't exist", (*client.Client).DeleteWorldString)
	return group("string", "Manage strings that all machines see", get, list, set, unset)
}

func stringRows(s *api.WorldString) [][]string {
	if s == nil {
		return nil
	}
	return [][]string{{s.Key, worldData(s.WorldData)}}
}

func (a *app) worldMap() *cobra.Command {
	entries := func(m api.WorldStringMap) [][]string {
		var rows [][]string
		for _, machine := range slices.Sorted(maps.Keys(m.Entries)) {
			rows = append(rows, []string{m.Key, machine, worldData(m.Entries[machine])})
		}
		return rows
	}
	header := []string{"KEY", "MACHINE", "VALUE"}
	get := newView(a, view[api.WorldStringMap]{
		use: "get <key>", short: "Show what each machine says under a key", args: nargs(1, 1), example: "  shoal world map get ssh-host-key --watch",
		live: func(c *client.Client, args []string) (client.Live[api.WorldStringMap], error) {
			return c.WorldStringMap(args[0]), nil
		},
		header: header, rows: entries,
	})
	list := newView(a, view[[]api.WorldStringMap]{
		use: "list", short: "List string maps", aliases: []string{"ls"}, args: nargs(0, 0), example: "  shoal world map list -f json",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldStringMap], error) {
			return c.WorldStringMaps(), nil
		},
		header: header,
		rows: func(all []api.WorldStringMap) [][]string {
			var rows [][]string
			for _, m := range all {
				rows = append(rows, entries(m)...)
			}
			return rows
		},
	})
	set := a.worldSet("set <key> [<value>]", "Set this machine's entry", "  shoal world map set role db\n  shoal world map set key < file", (*client.Client).SetWorldStringMap)
	unset := a.worldUnset("unset <key>", "Delete this machine's entry", "  shoal world map unset role", "This machine has no entry in the string map %q", (*client.Client).DeleteWorldStringMap)
	return group("map", "Manage string maps, which have an entry for each machine", get, list, set, unset)
}

func (a *app) worldSet(use, short, example string, do func(*client.Client, context.Context, string, api.WorldStringPut) (bool, error)) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{Use: use, Short: short, Args: nargs(1, 2), Example: example,
		Long: short + "\n\nWithout a value, it is read from standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < 0 || ttl%time.Second != 0 {
				return usagef("Invalid time to live %v: it has to be whole seconds", ttl)
			}
			var value []byte
			if len(args) > 1 {
				value = []byte(args[1])
			} else {
				var err error
				if value, err = a.readValue(); err != nil {
					return err
				}
			}
			put := api.WorldStringPut{WorldData: dataOf(value), TTL: int(ttl / time.Second)}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			_, err = do(c, cmd.Context(), args[0], put)
			return err
		}}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "Have it go unless it is set again within this time, for example 30s")
	return cmd
}

func (a *app) worldUnset(use, short, example, none string, do func(*client.Client, context.Context, string) (bool, error)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: nargs(1, 1), Example: example, Aliases: []string{"delete", "rm"},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			changed, err := do(c, cmd.Context(), args[0])
			if err == nil && !changed {
				a.sayf(none, args[0])
			}
			return err
		}}
}

// readValue reads standard input.
func (a *app) readValue() ([]byte, error) {
	if f, ok := a.In.(*os.File); ok {
		if _, tty := terminal(f); tty {
			return nil, usagef("Missing value: give it as an argument or on standard input")
		}
	}
	b, err := io.ReadAll(io.LimitReader(a.In, maxValue+1))
	if err == nil && len(b) > maxValue {
		err = fmt.Errorf("standard input is larger than %d bytes", maxValue)
	}
	return b, err
}

// dataOf makes of a value what JSON can carry.
func dataOf(b []byte) api.WorldData {
	if utf8.Valid(b) {
		return api.WorldData{Value: string(b)}
	}
	return api.WorldData{Value: base64.StdEncoding.EncodeToString(b), Encoding: "base64"}
}
