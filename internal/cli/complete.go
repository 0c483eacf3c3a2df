package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

// completionTime bounds what a shell waits for names.
const completionTime = time.Second

// A completer offers values for the arguments of a command.
type completer func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// names makes a completer of something that lists names.
func (a *app) names(list func(ctx context.Context, c *client.Client) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		prefix := ""
		if server, _, ok := strings.Cut(toComplete, ":"); ok {
			if _, err := a.local(toComplete); err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			prefix = server + ":"
		}
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completionTime)
		defer cancel()
		c, err := a.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := list(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for i := range all {
			all[i] = prefix + all[i]
		}
		return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(args, s) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes the first argument only.
func (f completer) first() completer { return f.upTo(1) }

// upTo completes the first n arguments.
func (f completer) upTo(n int) completer {
	return func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n || f == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, s)
	}
}

// then completes the first argument with f and the second with g.
func (f completer) then(g completer) completer {
	return func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return f(cmd, args, s)
		case 1:
			return g(cmd, nil, s)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func collect[T any](items []T, err error, name func(T) string) ([]string, error) {
	var out []string
	for _, v := range items {
		if n := name(v); n != "" {
			out = append(out, n)
		}
	}
	return out, err
}

func (a *app) completeInstances(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(instanceNames)(cmd, args, s)
}

func (a *app) completeImages(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		images, err := c.Images(ctx, "")
		var out []string
		for _, i := range images {
			for _, al := range i.Aliases {
				out = append(out, al.Name)
			}
			if len(i.Aliases) == 0 && len(i.Fingerprint) > 12 {
				out = append(out, i.Fingerprint[:12])
			}
		}
		return out, err
	})(cmd, args, s)
}

func (a *app) completeNetworks(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(networkNames)(cmd, args, s)
}

func (a *app) completeProfiles(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(profileNames)(cmd, args, s)
}

func (a *app) completePools(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(poolNames)(cmd, args, s)
}

func (a *app) completeProjects(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(projectNames)(cmd, args, s)
}
