package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const imageHeader = `This is a YAML representation of the image properties.
Any line starting with a '# will be ignored.

Each property is represented by a single line:
An example would be:
  description: My custom image`

func (a *app) imageNoun() noun {
	return noun{name: "image", arg: "<image>", header: imageHeader, complete: a.completeImages,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			i, etag, err := c.ResolveImage(ctx, name)
			if err != nil {
				return nil, err
			}
			put := i.ImagePut
			return &document{show: &put, edit: &put, config: &put.Properties, save: func(ctx context.Context) error {
				return c.UpdateImage(ctx, i.Fingerprint, put, etag)
			}}, nil
		}}
}

func (a *app) cmdImage() *cobra.Command {
	n := a.imageNoun()
	property := func(cmd *cobra.Command, use, short string) *cobra.Command {
		cmd.Use, cmd.Short, cmd.Long, cmd.Example = use, short, "", "  shoal image "+strings.NewReplacer("<image>", "debian", "<key>", "os", "<value>", "Debian").Replace(use)
		return cmd
	}
	alias := group("alias", "Manage image aliases", a.aliasCreate(), a.aliasDelete(), a.aliasList(), a.aliasRename())
	return group("image", "Manage images", alias, a.imageDelete(), a.nounEdit(n), a.imageExport(), a.imageImport(), a.imageInfo(), a.imageList(), a.nounShow(n),
		property(a.nounGet(n), "get-property <image> <key>", "Get image properties"),
		property(a.nounSet(n), "set-property <image> <key> <value>", "Set image properties"),
		property(a.nounUnset(n), "unset-property <image> <key>", "Unset image properties"))
}

var imageColumns = []column[api.Image]{
	{'l', "ALIAS", func(i api.Image) string {
		if len(i.Aliases) == 0 {
			return ""
		}
		shortest := slices.MinFunc(i.Aliases, func(x, y api.ImageAlias) int { return cmp.Compare(len(x.Name), len(y.Name)) }).Name
		if n := len(i.Aliases); n > 1 {
			return fmt.Sprintf("%s (%d more)", shortest, n-1)
		}
		return shortest
	}},
	{'L', "ALIASES", func(i api.Image) string {
		var names []string
		for _, al := range i.Aliases {
			names = append(names, al.Name)
		}
		return strings.Join(sorted(names), "\n")
	}},
	{'f', "FINGERPRINT", func(i api.Image) string { return i.Fingerprint[:min(12, len(i.Fingerprint))] }},
	{'F', "FINGERPRINT", func(i api.Image) string { return i.Fingerprint }},
	{'p', "PUBLIC", func(i api.Image) string { return yesNo(i.Public) }},
	{'d', "DESCRIPTION", func(i api.Image) string { return i.Properties["description"] }},
	{'a', "ARCHITECTURE", func(i api.Image) string { return i.Architecture }},
	{'t', "TYPE", func(i api.Image) string { return strings.ToUpper(i.Type) }},
	{'s', "SIZE", func(i api.Image) string { return fmt.Sprintf("%.2fMB", float64(i.Size)/1024/1024) }},
	{'u', "UPLOAD DATE", func(i api.Image) string { return i.UploadedAt.UTC().Format(longLayout) }},
}

func (a *app) imageList() *cobra.Command {
	var format, columns string
	cmd := &cobra.Command{
		Use: "list [remote:] [<filter>...]", Aliases: []string{"ls"}, Short: "List images",
		Long: `List images

A filter is key=value on a property, or part of the fingerprint or of an alias.

Column shorthand chars:
  l - Shortest image alias (and optionally number of other aliases)
  L - Newline-separated list of all image aliases
  f - Fingerprint (short)     F - Fingerprint (long)
  p - Whether image is public d - Description
  a - Architecture            s - Size
  u - Upload date             t - Type`,
		Example: "  shoal image list\n  shoal image list os=Debian -c lfs -f csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && strings.HasSuffix(args[0], ":") {
				if _, err := a.local(args[0]); err != nil {
					return err
				}
				args = args[1:]
			}
			cols, err := pickColumns(columns, imageColumns)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			images, err := c.Images(cmd.Context(), "")
			if err != nil {
				return err
			}
			images = slices.DeleteFunc(images, func(i api.Image) bool { return !imageMatches(i, args) })
			return tableOf(a, format, cols, images)
		},
	}
	cmd.Flags().StringVarP(&columns, "columns", "c", "lfpdatsu", "Columns")
	formatFlag(cmd, &format)
	return cmd
}

func imageMatches(i api.Image, filters []string) bool {
	for _, f := range filters {
		if key, value, ok := strings.Cut(f, "="); ok {
			have := map[string]string{"type": i.Type, "architecture": i.Architecture, "public": fmt.Sprint(i.Public), "fingerprint": i.Fingerprint}
			got, special := have[key]
			if !special {
				got = i.Properties[strings.TrimPrefix(key, "properties.")]
			}
			if got != value {
				return false
			}
			continue
		}
		named := slices.ContainsFunc(i.Aliases, func(al api.ImageAlias) bool { return strings.Contains(al.Name, f) })
		if !named && !strings.HasPrefix(i.Fingerprint, f) {
			return false
		}
	}
	return true
}

func (a *app) imageInfo() *cobra.Command {
	cmd := &cobra.Command{
		Use: "info <image>", Short: "Show useful information about images", Args: nargs(1, 1), Example: "  shoal image info debian",
		ValidArgsFunction: completer(a.completeImages).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			i, _, err := c.ResolveImage(cmd.Context(), name)
			if err != nil {
				return err
			}
			a.printImage(i)
			return nil
		},
	}
	cmd.Flags().Bool("vm", false, "Query virtual machine images")
	return cmd
}

func (a *app) printImage(i *api.Image) {
	state := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	a.printf("Fingerprint: %s\n", i.Fingerprint)
	a.printf("Size: %.2fMB\n", float64(i.Size)/1024/1024)
	a.printf("Architecture: %s\n", i.Architecture)
	a.printf("Type: %s\n", i.Type)
	a.printf("Public: %s\n", yesNo(i.Public))
	a.printf("Timestamps:\n")
	if timeIsSet(i.CreatedAt) {
		a.printf("    Created: %s\n", i.CreatedAt.UTC().Format(minuteLayout))
	}
	a.printf("    Uploaded: %s\n", i.UploadedAt.UTC().Format(minuteLayout))
	if timeIsSet(i.ExpiresAt) {
		a.printf("    Expires: %s\n", i.ExpiresAt.UTC().Format(minuteLayout))
	} else {
		a.printf("    Expires: never\n")
	}
	if timeIsSet(i.LastUsedAt) {
		a.printf("    Last used: %s\n", i.LastUsedAt.UTC().Format(minuteLayout))
	} else {
		a.printf("    Last used: never\n")
	}
	a.printf("Properties:\n")
	for _, k := range sortedKeys(i.Properties) {
		a.printf("    %s: %s\n", k, i.Properties[k])
	}
	a.printf("Aliases:\n")
	for _, al := range i.Aliases {
		if al.Description != "" {
			a.printf("    - %s (%s)\n", al.Name, al.Description)
		} else {
			a.printf("    - %s\n", al.Name)
		}
	}
	a.printf("Cached: %s\n", yesNo(i.Cached))
	a.printf("Auto update: %s\n", state(i.AutoUpdate, "enabled", "disabled"))
	if s := i.UpdateSource; s != nil {
		a.printf("Source:\n    Server: %s\n    Protocol: %s\n    Alias: %s\n", s.Server, s.Protocol, s.Alias)
	}
	if len(i.Profiles) == 0 {
		a.printf("Profiles: []\n")
		return
	}
	a.printf("Profiles:\n")
	for _, p := range i.Profiles {
		a.printf("    - %s\n", p)
	}
}

func (a *app) imageDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <image> [<image>...]", Aliases: []string{"rm"}, Short: "Delete images", Args: nargs(1, -1), Example: "  shoal image delete debian",
		ValidArgsFunction: completer(a.completeImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range names {
				i, _, err := c.ResolveImage(cmd.Context(), name)
				if err != nil {
					return err
				}
				op, err := c.DeleteImage(cmd.Context(), i.Fingerprint)
				if err != nil {
					return err
				}
				if err := a.wait(cmd.Context(), op); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
