package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const (
	listColumns     = "ns46tSL"
	listFastColumns = "nsacPt"
	// stateColumns need the runtime state of instances, which the server sends on request only.
	stateColumns = "46DmMNpuS"
)

func (a *app) cmdList() *cobra.Command {
	var columns, format string
	var all, fast bool
	cmd := &cobra.Command{
		Use: "list [remote:] [<filter>...]", Aliases: []string{"ls"}, Short: "List instances",
		Long: `List instances

Default column layout: ns46tS
Fast column layout: nsacPt

A filter is the beginning of a name, a regular expression on the name, or key=value, where key is a configuration key
(each part may be shortened: u.blah=abc) or one of type, status, architecture, location, ipv4 and ipv6; several values are
separated by commas, values of configuration keys may be regular expressions. All filters have to match.

Column shorthand chars:
  4 - IPv4 address                 a - Architecture            b - Storage pool
  6 - IPv6 address                 c - Creation date           d - Description
  D - Disk usage                   e - Project name            l - Last used date
  m - Memory usage                 M - Memory usage (%)        n - Name
  N - Number of processes          p - PID of the instance's init process
  P - Profiles                     s - State                   S - Number of snapshots
  t - Type                         u - CPU usage (in seconds)  L - Location
  f - Base image fingerprint (short)                           F - Base image fingerprint (long)

Other columns are [config:|devices:]key[:name][:maxWidth], separated by commas.`,
		Example: `  shoal list web status=running
  shoal list -c nFs46,volatile.eth0.hwaddr:MAC,config:image.os,devices:eth0.network:NET
  shoal list -c ns,user.comment:comment -f csv`,
		ValidArgsFunction: completer(a.completeInstances),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			changed := cmd.Flags().Changed("columns")
			switch {
			case fast && changed:
				return usagef("Can't specify --fast with --columns")
			case fast:
				columns = listFastColumns
			}
			if len(args) > 0 && strings.HasSuffix(args[0], ":") {
				if _, err := a.local(args[0]); err != nil {
					return err
				}
				args = args[1:]
			}
			return a.list(cmd, args, columns, format, all, changed)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&columns, "columns", "c", listColumns, "Columns")
	f.BoolVar(&fast, "fast", false, "Fast mode (same as --columns="+listFastColumns+")")
	f.BoolVar(&all, "all-projects", false, "Display instances from all projects")
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) list(cmd *cobra.Command, filters []string, columns, format string, all, chosen bool) error {
	ctx := cmd.Context()
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if !chosen && strings.Contains(columns, "L") {
		s, _, err := c.Server(ctx)
		if err != nil {
			return err
		}
		if !s.Environment.ServerClustered {
			columns = strings.ReplaceAll(columns, "L", "")
		}
	}
	if all && !chosen {
		columns = "e" + columns
	}
	cols, err := parseColumns(columns)
	if err != nil {
		return err
	}
	opts := client.InstancesOptions{AllProjects: all}
	full := needsState(cols) || format == "json" || format == "yaml" || needsStateFilter(filters)
	var items []api.InstanceFull
	if full {
		items, err = c.InstancesFull(ctx, opts)
	} else {
		var brief []api.Instance
		brief, err = c.Instances(ctx, opts)
		for _, i := range brief {
			items = append(items, api.InstanceFull{Instance: i})
		}
	}
	if err != nil {
		return err
	}
	items = slices.DeleteFunc(items, func(i api.InstanceFull) bool { return !matches(i, filters) })
	if items == nil {
		items = []api.InstanceFull{}
	}
	slices.SortStableFunc(items, func(x, y api.InstanceFull) int {
		if c := strings.Compare(x.Project, y.Project); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	return tableOf(a, format, cols, items)
}

func needsState(cols []column[api.InstanceFull]) bool {
	return slices.ContainsFunc(cols, func(c column[api.InstanceFull]) bool { return strings.ContainsRune(stateColumns, c.letter) })
}

func needsStateFilter(filters []string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return strings.HasPrefix(f, "ipv4=") || strings.HasPrefix(f, "ipv6=") })
}

func active(i api.InstanceFull) bool {
	return i.State != nil && i.StatusCode != api.Stopped && i.StatusCode != api.Error
}

// addresses are the addresses of a family that others can reach, "10.0.0.2 (eth0)".
func addresses(i api.InstanceFull, family string) []string {
	var out []string
	if !active(i) {
		return nil
	}
	for name, n := range i.State.Network {
		if n.Type == "loopback" {
			continue
		}
		for _, addr := range n.Addresses {
			if addr.Family == family && addr.Scope != "link" && addr.Scope != "local" {
				out = append(out, fmt.Sprintf("%s (%s)", addr.Address, name))
			}
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// rootDisk returns the name and device of the root filesystem.
func rootDisk(i api.Instance) (string, map[string]string) {
	for name, d := range i.ExpandedDevices {
		if d["type"] == "disk" && d["path"] == "/" && d["source"] == "" {
			return name, d
		}
	}
	return "", nil
}
