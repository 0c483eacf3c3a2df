package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

func (a *app) filePull() *cobra.Command {
	var mkdir, recursive bool
	cmd := &cobra.Command{
		Use: "pull <instance>/<path> [<instance>/<path>...] <target path>", Short: "Pull files from instances", Args: nargs(2, -1),
		Long:    "Pull files from instances\n\nThe target \"-\" is standard output.",
		Example: "  shoal file pull web/etc/hosts .\n  shoal file pull -r web/var/log ./logs/\n  shoal file pull web/etc/os-release -",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pull(cmd.Context(), args[:len(args)-1], args[len(args)-1], mkdir, recursive)
		},
	}
	cmd.Flags().BoolVarP(&mkdir, "create-dirs", "p", false, "Create any directories necessary")
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "Recursively transfer files")
	return cmd
}

func (a *app) pull(ctx context.Context, args []string, target string, mkdir, recursive bool) error {
	sources, err := a.instancePaths(args)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	toDir := strings.HasSuffix(target, "/")
	st, err := os.Stat(target)
	switch {
	case target == "-":
	case err == nil:
		if toDir && !st.IsDir() {
			return fmt.Errorf("target %s is not a directory", target)
		}
		toDir = st.IsDir()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case mkdir:
		dir := target
		if !toDir && !recursive {
			dir = filepath.Dir(target)
		} else {
			toDir = true
		}
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	case toDir || recursive:
		return fmt.Errorf("target directory %s does not exist; create it, or use -p", target)
	}
	if len(sources) > 1 && !toDir {
		return errOneFile
	}
	for _, src := range sources {
		inst, p := src.instance, src.path
		var err error
		switch {
		case target == "-":
			err = a.pullToStdout(ctx, c, inst, p)
		case toDir:
			err = a.pullInto(ctx, c, inst, p, target, path.Base(p), recursive)
		default:
			err = a.pullInto(ctx, c, inst, p, filepath.Dir(target), filepath.Base(target), recursive)
		}
		if err != nil {
			return fmt.Errorf("pull %s: %w", src, err)
		}
	}
	return nil
}

func (a *app) pullToStdout(ctx context.Context, c *client.Client, inst, p string) error {
	p, err := follow(ctx, c, inst, p)
	if err != nil {
		return err
	}
	f, err := c.File(ctx, inst, p)
	if err != nil {
		return err
	}
	if f.Type == client.FileTypeDirectory {
		return errors.New("can't pull a directory without --recursive")
	}
	defer func() { _ = f.Content.Close() }()
	_, err = io.Copy(a.Out, f.Content)
	return err
}

// maxLinks bounds a chain of links, as Linux does.
const maxLinks = 40

// follow returns the path of what the links at p lead to, within the instance.
func follow(ctx context.Context, c *client.Client, inst, p string) (string, error) {
	for range maxLinks {
		f, err := c.File(ctx, inst, p)
		if err != nil {
			return p, err
		}
		if f.Type != client.FileTypeSymlink {
			if f.Content != nil {
				_ = f.Content.Close()
			}
			return p, nil
		}
		target, err := readLink(f)
		if err != nil {
			return p, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(p), target)
		}
		p = path.Clean(target)
	}
	return p, errors.New("too many links")
}

// readLink reads the target of a link and closes it.
func readLink(f *client.File) (string, error) {
	defer func() { _ = f.Content.Close() }()
	target, err := io.ReadAll(io.LimitReader(f.Content, 4097))
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	if len(target) > 4096 {
		return "", errors.New("read link: the target is too long")
	}
	return strings.TrimSuffix(string(target), "\n"), nil
}

// pullInto fetches p as name in a local directory. Everything is written through an [os.Root]: names and links
// that a guest made up cannot lead out of the directory.
func (a *app) pullInto(ctx context.Context, c *client.Client, inst, p, dir, name string, recursive bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if name == "/" || name == "." {
		name = inst
	}
	if recursive { // whoever names a link to a tree means the tree; links in it stay links
		if p, err = follow(ctx, c, inst, p); err != nil {
			return err
		}
	}
	return a.pullEntry(ctx, c, root, inst, p, name, recursive)
}

// maxDepth bounds the depth of a tree that is pulled.
const maxDepth = 200

func (a *app) pullEntry(ctx context.Context, c *client.Client, root *os.Root, inst, p, name string, recursive bool) error {
	if strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("%s is more than %d directories deep", p, maxDepth)
	}
	f, err := c.File(ctx, inst, p)
	if err != nil {
		return err
	}
	if f.Content != nil {
		defer func() { _ = f.Content.Close() }()
	}
	switch f.Type {
	case client.FileTypeDirectory:
		if !recursive {
			return errors.New("can't pull a directory without --recursive")
		}
		if err := root.Mkdir(name, fs.FileMode(f.Mode).Perm()|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, e := range f.Entries {
			if e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00") {
				return fmt.Errorf("%s has an entry with the impossible name %q", p, e)
			}
			if err := a.pullEntry(ctx, c, root, inst, path.Join(p, e), name+"/"+e, recursive); err != nil {
				return err
			}
		}
		return nil
	case client.FileTypeSymlink:
		target, err := readLink(f)
		if err != nil {
			return err
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(target, name)
	}
	return a.pullFile(root, inst, p, name, f)
}

func (a *app) pullFile(root *os.Root, inst, p, name string, f *client.File) error {
	mode := fs.FileMode(f.Mode).Perm()
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode|0o200)
	if err != nil {
		return err
	}
	pr := a.progress("Pulling " + name + " from " + inst + p)
	m := newMeter(pr)
	_, err = io.Copy(io.MultiWriter(out, writerFunc(func(n int64) { m.update(n, -1) }).counting()), f.Content)
	pr.clear()
	return errors.Join(err, out.Chmod(mode), out.Close())
}
