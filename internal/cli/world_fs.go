package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// worldFS is what the commands on the shared file system have in common.
type worldFS struct {
	*app
	volume string
	format string
}

func (a *app) worldFS() *cobra.Command {
	w := &worldFS{app: a}
	cmd := group("fs", "Share files between machines", w.ls(), w.tree(), w.stat(), w.cat(), w.get(), w.put(), w.mkdir(), w.ln(), w.mv(), w.rm(),
		w.chmod(), w.df(), w.gc(), w.mount(), w.unmount(), w.volumeCmd())
	cmd.Long = `Share files between machines

All machines of a cluster see the same files, which are kept in its database: a few gigabytes at most. A file changes as a
whole, and who reads it meanwhile goes on reading what was there. The volume "default" is made by the first write.`
	cmd.Example = `  shoal world fs put site.conf /site.conf
  shoal world fs ls /
  shoal world fs cat /site.conf
  mkdir /mnt/world && shoal world fs mount /mnt/world`
	cmd.PersistentFlags().StringVar(&w.volume, "volume", "default", "Volume to use")
	return cmd
}

// run makes a command that needs a connection.
func (w *worldFS) run(use, short, example string, args cobra.PositionalArgs, do func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := w.connect(cmd.Context())
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}}
}

func modeText(f api.WorldFile) string {
	return map[string]string{"directory": "d", "symlink": "l"}[f.Type] + f.Mode
}

// fileRows are the rows of a listing; name says how a file is called in it.
func fileRows(fs []api.WorldFile, name func(api.WorldFile) string) [][]string {
	var rows [][]string
	for _, f := range fs {
		n := name(f)
		if f.Target != "" {
			n += " -> " + f.Target
		}
		size := sizeIEC(f.Size)
		if f.Type == "directory" {
			size = ""
		}
		rows = append(rows, []string{n, f.Type, f.Mode, fmt.Sprintf("%d:%d", f.UID, f.GID), size, minute(f.Modified)})
	}
	return rows
}

var fileHeader = []string{"NAME", "TYPE", "MODE", "OWNER", "SIZE", "MODIFIED"}

func (w *worldFS) ls() *cobra.Command {
	cmd := w.run("ls [<path>]", "List a directory", "  shoal world fs ls\n  shoal world fs ls / -f json", nargs(0, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			if err := checkFormat(w.format); err != nil {
				return err
			}
			p := "/"
			if len(args) > 0 {
				p = args[0]
			}
			d, err := c.ReadWorldFile(ctx, w.volume, p, "bytes=0-0")
			if err == nil && d.Dir == nil {
				_ = d.Content.Close()
			}
			var ce *client.Error
			if err != nil && !(errors.As(err, &ce) && ce.Status == 416) { // an empty file
				return err
			}
			if d == nil || d.Dir == nil {
				f, err := c.WorldFile(ctx, w.volume, p)
				if err != nil {
					return err
				}
				d = &client.WorldContent{Dir: []api.WorldFile{*f}}
			}
			return w.table(w.format, fileHeader, fileRows(d.Dir, func(f api.WorldFile) string { return path.Base(f.Path) }), d.Dir)
		})
	cmd.Aliases = []string{"list"}
	formatFlag(cmd, &w.format)
	return cmd
}

func (w *worldFS) tree() *cobra.Command {
	cmd := w.run("tree [<path>]", "List all that is below a path", "  shoal world fs tree /etc", nargs(0, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			if err := checkFormat(w.format); err != nil {
				return err
			}
			all, err := c.WorldTree(ctx, w.volume, path.Join("/", strings.Join(args, "")))
			if err != nil {
				return err
			}
			return w.table(w.format, fileHeader, fileRows(all, func(f api.WorldFile) string { return f.Path }), all)
		})
	formatFlag(cmd, &w.format)
	return cmd
}

func (w *worldFS) stat() *cobra.Command {
	return w.run("stat <path>", "Describe a file, directory or link", "  shoal world fs stat /site.conf", nargs(1, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			f, err := c.WorldFile(ctx, w.volume, args[0])
			if err != nil {
				return err
			}
			return w.yaml(f)
		})
}

// copyTo copies a file's content, or a part of it.
func (w *worldFS) copyTo(ctx context.Context, c *client.Client, p, rang string, to io.Writer) error {
	f, err := c.ReadWorldFile(ctx, w.volume, p, rang)
	if err != nil {
		return err
	}
	if f.Dir != nil {
		return fmt.Errorf("%s is a directory", p)
	}
	defer func() { _ = f.Content.Close() }()
	_, err = io.Copy(to, f.Content)
	return err
}

func (w *worldFS) cat() *cobra.Command {
	var rang string
	cmd := w.run("cat <path>...", "Write the content of files to standard output", "  shoal world fs cat /site.conf\n  shoal world fs cat /big --range 0-1023", nargs(1, -1),
		func(ctx context.Context, c *client.Client, args []string) error {
			for _, p := range args {
				r := rang
				if r != "" {
					r = "bytes=" + r
				}
				if err := w.copyTo(ctx, c, p, r, w.Out); err != nil {
					return err
				}
			}
			return nil
		})
	cmd.Flags().StringVar(&rang, "range", "", "Only these bytes, from-to, both included and counted from 0")
	return cmd
}

func (w *worldFS) mkdir() *cobra.Command {
	var post api.WorldFilePost
	cmd := w.run("mkdir <path>...", "Make directories", "  shoal world fs mkdir -p /etc/site", nargs(1, -1),
		func(ctx context.Context, c *client.Client, args []string) error {
			post.Action = "mkdir"
			for _, p := range args {
				if err := c.PostWorldFile(ctx, w.volume, p, post); err != nil {
					return err
				}
			}
			return nil
		})
	cmd.Flags().BoolVarP(&post.Parents, "parents", "p", false, "Make those above too; no error if it exists")
	cmd.Flags().StringVarP(&post.Mode, "mode", "m", "", "Permissions, octal (default 0755)")
	return cmd
}

func (w *worldFS) ln() *cobra.Command {
	return w.run("ln <target> <path>", "Make a symbolic link", "  shoal world fs ln site.conf /current", nargs(2, 2),
		func(ctx context.Context, c *client.Client, args []string) error {
			return c.PostWorldFile(ctx, w.volume, args[1], api.WorldFilePost{Action: "symlink", Target: args[0]})
		})
}

func (w *worldFS) mv() *cobra.Command {
	return w.run("mv <path> <new path>", "Rename a file or directory", "  shoal world fs mv /site.conf /old.conf", nargs(2, 2),
		func(ctx context.Context, c *client.Client, args []string) error {
			return c.PostWorldFile(ctx, w.volume, args[0], api.WorldFilePost{Action: "rename", Target: args[1]})
		})
}

func (w *worldFS) rm() *cobra.Command {
	var recursive bool
	cmd := w.run("rm <path>...", "Remove files and empty directories", "  shoal world fs rm /old.conf\n  shoal world fs rm -r /etc", nargs(1, -1),
		func(ctx context.Context, c *client.Client, args []string) error {
			for _, p := range args {
				if err := c.DeleteWorldFile(ctx, w.volume, p, recursive); err != nil {
					return err
				}
			}
			return nil
		})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "Remove directories with all that is in them; no error if nothing is there")
	return cmd
}

func (w *worldFS) chmod() *cobra.Command {
	return w.run("chmod <mode> <path>...", "Set permissions", "  shoal world fs chmod 0600 /etc/secret", nargs(2, -1),
		func(ctx context.Context, c *client.Client, args []string) error {
			for _, p := range args[1:] {
				if err := c.PatchWorldFile(ctx, w.volume, p, api.WorldFilePatch{Mode: &args[0]}); err != nil {
					return err
				}
			}
			return nil
		})
}

func (w *worldFS) df() *cobra.Command {
	cmd := w.run("df", "Show how much the volumes hold", "  shoal world fs df", nargs(0, 0),
		func(ctx context.Context, c *client.Client, _ []string) error {
			if err := checkFormat(w.format); err != nil {
				return err
			}
			u, err := c.WorldFS(ctx)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, v := range u.Volumes {
				rows = append(rows, []string{v.Name, strconv.FormatInt(v.Files, 10), strconv.FormatInt(v.Dirs, 10), strconv.FormatInt(v.Links, 10), sizeIEC(v.Bytes)})
			}
			if err := w.table(w.format, []string{"VOLUME", "FILES", "DIRECTORIES", "LINKS", "SIZE"}, rows, u); err != nil || w.format != "table" {
				return err
			}
			w.sayf("Content in the database, equal pieces once: %s in %d pieces", sizeIEC(u.Bytes), u.Blobs)
			return nil
		})
	formatFlag(cmd, &w.format)
	return cmd
}

func (w *worldFS) gc() *cobra.Command {
	return w.run("gc", "Delete content that no file has any more", "  shoal world fs gc", nargs(0, 0),
		func(ctx context.Context, c *client.Client, _ []string) error {
			g, err := c.CollectWorldFS(ctx)
			if err != nil {
				return err
			}
			w.sayf("Deleted %d pieces (%s); %d are in use", g.Swept, sizeIEC(g.Bytes), g.Live)
			return nil
		})
}

func (w *worldFS) mount() *cobra.Command {
	cmd := w.run("mount [<directory>]", "Mount a volume on the daemon's machine, read-only, or list mounts",
		"  shoal world fs mount /mnt/world\n  shoal world fs mount", nargs(0, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 1 {
				dir, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				return c.MountWorldVolume(ctx, api.WorldMount{Volume: w.volume, Path: dir})
			}
			if err := checkFormat(w.format); err != nil {
				return err
			}
			ms, err := c.WorldMounts(ctx)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, m := range ms {
				rows = append(rows, []string{m.Path, m.Volume})
			}
			return w.table(w.format, []string{"DIRECTORY", "VOLUME"}, rows, ms)
		})
	cmd.Long = `Mount a volume on the daemon's machine, read-only, or list mounts

The directory must be there and empty. The mount ends with the daemon, or with "shoal world fs unmount".`
	formatFlag(cmd, &w.format)
	return cmd
}

func (w *worldFS) unmount() *cobra.Command {
	cmd := w.run("unmount <directory>", "End a mount", "  shoal world fs unmount /mnt/world", nargs(1, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return c.UnmountWorldVolume(ctx, dir)
		})
	cmd.Aliases = []string{"umount"}
	return cmd
}

func (w *worldFS) volumeCmd() *cobra.Command {
	var post api.WorldVolumesPost
	create := w.run("create <name>", "Make a volume", "  shoal world fs volume create site", nargs(1, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			post.Name = args[0]
			return c.CreateWorldVolume(ctx, post)
		})
	create.Flags().Int64Var(&post.Chunk, "chunk", 0, "Bytes of the pieces in which content is kept and shared (default 524288)")
	del := w.run("delete <name>", "Delete a volume and all that is in it", "  shoal world fs volume delete site", nargs(1, 1),
		func(ctx context.Context, c *client.Client, args []string) error {
			return c.DeleteWorldVolume(ctx, args[0])
		})
	return group("volume", "Make and delete volumes", create, del)
}
