package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (w *worldFS) put() *cobra.Command {
	var recursive, fresh bool
	var mode string
	cmd := w.run("put <file>|- <path>", "Write a file, all of it or nothing", "  shoal world fs put site.conf /site.conf\n  shoal world fs put -r ./site /srv\n  date | shoal world fs put - /stamp",
		nargs(2, 2), func(ctx context.Context, c *client.Client, args []string) error {
			if recursive {
				return w.putTree(ctx, c, args[0], args[1])
			}
			in := w.In
			opts := client.WorldWrite{Mode: mode, New: fresh}
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				st, err := f.Stat()
				if err != nil {
					return err
				}
				if st.IsDir() {
					return fmt.Errorf("%s is a directory; use --recursive", args[0])
				}
				if in = f; mode == "" {
					opts.Mode = fmt.Sprintf("%04o", st.Mode().Perm())
				}
			}
			p := args[1]
			if strings.HasSuffix(p, "/") && args[0] != "-" {
				p += filepath.Base(args[0])
			}
			_, err := c.WriteWorldFile(ctx, w.volume, p, in, opts)
			return err
		})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "Write a directory with all that is in it, file by file")
	cmd.Flags().BoolVar(&fresh, "new", false, "Fail if something is there")
	cmd.Flags().StringVarP(&mode, "mode", "m", "", "Permissions of a new file, octal (default: as the file has)")
	return cmd
}

// putTree writes a directory, file by file; links stay links, what is neither is passed over with a word.
func (w *worldFS) putTree(ctx context.Context, c *client.Client, from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		at, mode := path.Join("/", to, p), fmt.Sprintf("%04o", i.Mode().Perm())
		switch i.Mode().Type() {
		case fs.ModeDir:
			return c.PostWorldFile(ctx, w.volume, at, api.WorldFilePost{Action: "mkdir", Parents: true, Mode: mode})
		case fs.ModeSymlink:
			target, err := root.Readlink(p)
			if err == nil {
				err = c.PostWorldFile(ctx, w.volume, at, api.WorldFilePost{Action: "symlink", Target: target})
			}
			return err
		case 0:
		default:
			w.errorf("%s is not copied: it is neither file, directory nor link\n", p)
			return nil
		}
		f, err := root.Open(p)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = c.WriteWorldFile(ctx, w.volume, at, f, client.WorldWrite{Mode: mode})
		return err
	})
}

func (w *worldFS) get() *cobra.Command {
	var recursive bool
	cmd := w.run("get <path> [<file>]", "Fetch a file", "  shoal world fs get /site.conf\n  shoal world fs get /site.conf - | less\n  shoal world fs get -r /srv ./srv", nargs(1, 2),
		func(ctx context.Context, c *client.Client, args []string) error {
			to := path.Base(path.Clean("/" + args[0]))
			if len(args) == 2 {
				to = args[1]
			}
			if to == "-" {
				return w.copyTo(ctx, c, args[0], "", w.Out)
			}
			if recursive {
				return w.getTree(ctx, c, args[0], to)
			}
			if st, err := os.Stat(to); err == nil && st.IsDir() {
				to = filepath.Join(to, path.Base(path.Clean("/"+args[0])))
			}
			root, err := os.OpenRoot(filepath.Dir(to))
			if err != nil {
				return err
			}
			defer func() { _ = root.Close() }()
			return w.fetch(ctx, c, args[0], root, filepath.Base(to), 0o666)
		})
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "Fetch a directory with all that is in it")
	return cmd
}

// fetch writes a file beside its place and moves it there when it is complete.
func (w *worldFS) fetch(ctx context.Context, c *client.Client, p string, root *os.Root, name string, mode fs.FileMode) error {
	part := name + ".part"
	_ = root.Remove(part)
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = errors.Join(w.copyTo(ctx, c, p, "", f), f.Close())
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		_ = root.Remove(part)
	}
	return err
}

// getTree fetches a directory; nothing that its names and links say leads out of the target.
func (w *worldFS) getTree(ctx context.Context, c *client.Client, from, to string) error {
	all, err := c.WorldTree(ctx, w.volume, from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	top := path.Clean("/" + from)
	for _, f := range all {
		rel := strings.TrimPrefix(strings.TrimPrefix(f.Path, top), "/")
		if rel == "" {
			continue
		}
		var mode uint32
		_, _ = fmt.Sscanf(f.Mode, "%o", &mode)
		perm := fs.FileMode(mode) & fs.ModePerm
		switch f.Type {
		case "directory":
			err = root.MkdirAll(rel, perm|0o700)
		case "symlink":
			err = root.Symlink(f.Target, rel)
		default:
			err = w.fetch(ctx, c, f.Path, root, rel, perm)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
