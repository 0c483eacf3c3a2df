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

const profileHeader = `This is a YAML representation of the profile.
Any line starting with a '# will be ignored.

A profile consists of a set of configuration items followed by a set of devices.
Note that the name is shown but cannot be changed.`

func (a *app) profileNoun() noun {
	return noun{name: "profile", arg: "<profile>", header: profileHeader, complete: a.completeProfiles,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			p, etag, err := c.Profile(ctx, name)
			if err != nil {
				return nil, err
			}
			edit := *p
			return &document{show: p, edit: &edit, config: &edit.Config, save: func(ctx context.Context) error {
				return c.UpdateProfile(ctx, name, edit.ProfilePut, etag)
			}}, nil
		}}
}

func (a *app) cmdProfile() *cobra.Command {
	subs := append(a.nounCommands(a.profileNoun()), a.profileList(), a.profileCreate(), a.profileCopy(), a.profileDelete(),
		a.profileRename(), a.profileAssign(), a.profileMember("add"), a.profileMember("remove"), a.cmdDevice(a.profileDevices()))
	return group("profile", "Manage profiles", subs...)
}

func (a *app) profileList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List profiles", Args: nargs(0, 1), Example: "  shoal profile list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			all, err := c.Profiles(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, p := range all {
				rows = append(rows, []string{p.Name, p.Description, fmt.Sprint(len(p.UsedBy))})
			}
			sortRows(rows)
			return a.table(format, []string{"NAME", "DESCRIPTION", "USED BY"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

// connectTo connects where a command's only argument is an optional "local:".
func (a *app) connectTo(ctx context.Context, args []string) (*client.Client, error) {
	if len(args) > 0 {
		name, err := a.local(args[0])
		if err != nil {
			return nil, err
		}
		if name != "" {
			return nil, usagef("Filtering isn't supported here: unexpected argument %q", args[0])
		}
	}
	return a.connect(ctx)
}

func (a *app) profileCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create <profile>", Short: "Create profiles", Args: nargs(1, 1), Example: "  shoal profile create web\n  shoal profile create web < profile.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "profile")
			if err != nil {
				return err
			}
			doc, err := a.stdinDocument()
			if err != nil {
				return err
			}
			p := api.Profile{}
			if err := unmarshalYAML(doc, &p); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.CreateProfile(cmd.Context(), api.ProfilesPost{ProfilePut: p.ProfilePut, Name: name}); err != nil {
				return err
			}
			a.sayf("Profile %s created", name)
			return nil
		},
	}
}

func (a *app) profileCopy() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use: "copy <profile> <profile>", Aliases: []string{"cp"}, Short: "Copy profiles", Args: nargs(2, 2),
		Example: "  shoal profile copy default web", ValidArgsFunction: completer(a.completeProfiles).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			p, _, err := c.Profile(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if target != "" {
				c = c.WithProject(target)
			}
			to := names[1]
			if to == "" {
				to = names[0]
			}
			return c.CreateProfile(cmd.Context(), api.ProfilesPost{ProfilePut: p.ProfilePut, Name: to})
		},
	}
	cmd.Flags().StringVar(&target, "target-project", "", "Copy to a project different from the source")
	return cmd
}

func (a *app) profileDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <profile>", Aliases: []string{"rm"}, Short: "Delete profiles", Args: nargs(1, 1), Example: "  shoal profile delete web",
		ValidArgsFunction: completer(a.completeProfiles).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "profile", func(ctx context.Context, c *client.Client, name string) error { return c.DeleteProfile(ctx, name) },
				"Profile %s deleted")
		},
	}
}

// simple does one synchronous thing to a named object and says so.
func (a *app) simple(cmd *cobra.Command, arg, kind string, do func(context.Context, *client.Client, string) error, said string) error {
	name, err := a.named(arg, kind)
	if err != nil {
		return err
	}
	c, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	if err := do(cmd.Context(), c, name); err != nil {
		return err
	}
	a.sayf(said, name)
	return nil
}

func (a *app) profileRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <profile> <new-name>", Aliases: []string{"mv"}, Short: "Rename profiles", Args: nargs(2, 2), Example: "  shoal profile rename web www",
		ValidArgsFunction: completer(a.completeProfiles).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "profile", func(ctx context.Context, c *client.Client, name string) error {
				return c.RenameProfile(ctx, name, args[1])
			}, "Profile %s renamed to "+strings.ReplaceAll(args[1], "%", "%%"))
		},
	}
}

// setProfiles reads an instance, changes its profiles and writes it back.
func (a *app) setProfiles(cmd *cobra.Command, arg string, change func([]string) ([]string, error)) (string, error) {
	name, err := a.named(arg, "instance")
	if err != nil {
		return "", err
	}
	c, err := a.connect(cmd.Context())
	if err != nil {
		return "", err
	}
	i, etag, err := c.Instance(cmd.Context(), name)
	if err != nil {
		return "", err
	}
	if i.Profiles, err = change(i.Profiles); err != nil {
		return "", err
	}
	op, err := c.UpdateInstance(cmd.Context(), name, i.InstancePut, etag)
	if err != nil {
		return "", err
	}
	return name, a.wait(cmd.Context(), op)
}

func (a *app) profileAssign() *cobra.Command {
	return &cobra.Command{
		Use: "assign <instance> <profiles>", Aliases: []string{"apply"}, Short: "Assign sets of profiles to instances", Args: nargs(2, 2),
		Example:           "  shoal profile assign web default,db\n      Set the profiles of \"web\" to \"default\" and \"db\".\n  shoal profile assign web ''\n      Remove all profiles from \"web\".",
		ValidArgsFunction: completer(a.completeInstances).then(a.completeProfiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			profiles := []string{}
			if args[1] != "" {
				profiles = strings.Split(args[1], ",")
			}
			name, err := a.setProfiles(cmd, args[0], func([]string) ([]string, error) { return profiles, nil })
			if err != nil {
				return err
			}
			if args[1] == "" {
				args[1] = "(none)"
			}
			a.sayf("Profiles %s applied to %s", args[1], name)
			return nil
		},
	}
}

// profileMember is "profile add" and "profile remove".
func (a *app) profileMember(verb string) *cobra.Command {
	short, said := "Add profiles to instances", "Profile %s added to %s"
	if verb == "remove" {
		short, said = "Remove profiles from instances", "Profile %s removed from %s"
	}
	return &cobra.Command{
		Use: verb + " <instance> <profile>", Short: short, Args: nargs(2, 2), Example: "  shoal profile " + verb + " web db",
		ValidArgsFunction: completer(a.completeInstances).then(a.completeProfiles),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.setProfiles(cmd, args[0], func(have []string) ([]string, error) {
				if verb == "add" {
					return append(have, args[1]), nil
				}
				if !slices.Contains(have, args[1]) {
					return nil, fmt.Errorf("Profile %s isn't currently applied to %s", args[1], args[0]) //nolint:staticcheck // lxc's text
				}
				return slices.DeleteFunc(have, func(p string) bool { return p == args[1] }), nil
			})
			if err != nil {
				return err
			}
			a.sayf(said, args[1], name)
			return nil
		},
	}
}
