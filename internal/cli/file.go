package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

func (a *app) cmdFile() *cobra.Command {
	return group("file", "Manage files in instances", a.fileDelete(), a.fileEdit(), a.filePull(), a.filePush())
}

func (a *app) fileDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <instance>/<path> [<instance>/<path>...]", Aliases: []string{"rm"}, Short: "Delete files in instances", Args: nargs(1, -1),
		Example: "  shoal file delete web/tmp/old",
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := a.instancePaths(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := c.DeleteFile(cmd.Context(), f.instance, f.path); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) fileEdit() *cobra.Command {
	return &cobra.Command{
		Use: "edit <instance>/<path>", Short: "Edit files in instances", Args: nargs(1, 1), Example: "  shoal file edit web/etc/hosts\n  shoal file edit web/etc/hosts < hosts",
		RunE: func(cmd *cobra.Command, args []string) error {
			inst, p, err := a.instancePath(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			// Owner and mode stay as they are.
			put := func(r io.Reader) error {
				return c.WriteFile(cmd.Context(), inst, p, client.FileWrite{UID: -1, GID: -1, Mode: -1, Content: r})
			}
			if _, tty := terminal(a.In); !tty {
				return put(a.In)
			}
			f, err := c.File(cmd.Context(), inst, p)
			if err != nil {
				return err
			}
			if f.Type != client.FileTypeFile {
				return fmt.Errorf("%s is a %s; only files can be edited", args[0], f.Type)
			}
			defer func() { _ = f.Content.Close() }()
			text, err := io.ReadAll(io.LimitReader(f.Content, maxDocument+1))
			if err != nil {
				return err
			}
			if len(text) > maxDocument {
				return fmt.Errorf("%s is larger than %d bytes; pull it, edit it and push it", args[0], maxDocument)
			}
			return a.editLoop(cmd.Context(), text, func(b []byte) error { return put(strings.NewReader(string(b))) })
		},
	}
}

// pushFlags are the flags of push.
type pushFlags struct {
	mkdir, recursive bool
	uid, gid         int64
	mode             string
}

func (a *app) filePush() *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use: "push <source path>... <instance>/<path>", Short: "Push files into instances", Args: nargs(2, -1),
		Long: `Push files into instances

The files keep their mode and the numbers of their owner and group unless others are given. "-" is standard input. A target
that ends with a slash is a directory.`,
		Example: "  shoal file push /etc/hosts web/etc/hosts\n  shoal file push -r ./site web/srv/\n  echo hello | shoal file push - web/tmp/hello --mode 0600",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.push(cmd.Context(), &f, args[:len(args)-1], args[len(args)-1])
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.mkdir, "create-dirs", "p", false, "Create any directories necessary")
	fs.BoolVarP(&f.recursive, "recursive", "r", false, "Recursively transfer files")
	fs.Int64Var(&f.uid, "uid", -1, "Set the file's uid on push")
	fs.Int64Var(&f.gid, "gid", -1, "Set the file's gid on push")
	fs.StringVar(&f.mode, "mode", "", "Set the file's perms on push")
	return cmd
}

// parseMode reads octal permission bits.
func parseMode(s string) (int, error) {
	if s == "" {
		return -1, nil
	}
	m, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, usagef("Invalid mode %q: it has to be up to four octal digits", s)
	}
	return int(m), nil
}

func (a *app) push(ctx context.Context, f *pushFlags, sources []string, target string) error {
	inst, dest, err := a.instancePath(target)
	if err != nil {
		return err
	}
	mode, err := parseMode(f.mode)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	isDir := strings.HasSuffix(dest, "/")
	dest = path.Clean(dest)
	if f.recursive {
		if f.uid != -1 || f.gid != -1 || mode != -1 {
			return usagef("Can't supply uid/gid/mode in recursive mode")
		}
		if f.mkdir {
			if err := makeDirs(ctx, c, inst, dest, -1, -1); err != nil {
				return err
			}
		}
		for _, src := range sources {
			if err := a.pushTree(ctx, c, inst, src, dest); err != nil {
				return err
			}
		}
		return nil
	}
	if len(sources) > 1 && !isDir {
		return usagef("Missing target directory")
	}
	if !isDir {
		// An existing directory is a target to put files in, slash or not.
		if st, err := c.StatFile(ctx, inst, dest); err == nil && st.Type == client.FileTypeDirectory {
			isDir = true
		}
	}
	for _, src := range sources {
		if err := a.pushFile(ctx, c, inst, src, dest, isDir, mode, f); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) pushFile(ctx context.Context, c *client.Client, inst, src, dest string, isDir bool, mode int, f *pushFlags) error {
	w := client.FileWrite{UID: f.uid, GID: f.gid, Mode: mode, Content: a.In}
	size := int64(-1)
	if src != "-" {
		file, err := os.Open(src)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		st, err := file.Stat()
		if err != nil {
			return err
		}
		if st.IsDir() {
			return fmt.Errorf("%s is a directory; use -r", src)
		}
		takeOwner(&w, st)
		w.Content, size = file, st.Size()
	} else if mode < 0 {
		w.Mode = 0o644
	}
	if isDir {
		dest = path.Join(dest, filepath.Base(src))
	}
	if f.mkdir {
		if err := makeDirs(ctx, c, inst, path.Dir(dest), w.UID, w.GID); err != nil {
			return err
		}
	}
	return a.sendFile(ctx, c, inst, src, dest, w, size)
}

func (a *app) sendFile(ctx context.Context, c *client.Client, inst, label, dest string, w client.FileWrite, size int64) error {
	p := a.progress("Pushing " + label + " to " + inst + dest)
	defer p.clear()
	if p.on && w.Content != nil {
		m := newMeter(p)
		w.Content = io.TeeReader(w.Content, writerFunc(func(n int64) { m.update(n, size) }).counting())
	}
	if err := c.WriteFile(ctx, inst, dest, w); err != nil {
		return fmt.Errorf("push %s: %w", label, err)
	}
	return nil
}

// takeOwner fills what the user left open from the local file.
func takeOwner(w *client.FileWrite, st os.FileInfo) {
	if w.Mode < 0 {
		w.Mode = int(st.Mode().Perm())
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		if w.UID < 0 {
			w.UID = int64(sys.Uid)
		}
		if w.GID < 0 {
			w.GID = int64(sys.Gid)
		}
	}
}

// makeDirs creates the directories of a path that are missing.
func makeDirs(ctx context.Context, c *client.Client, inst, dir string, uid, gid int64) error {
	dir = path.Clean(dir)
	var missing []string
	for dir != "/" && dir != "." {
		st, err := c.StatFile(ctx, inst, dir)
		if err == nil {
			if st.Type == client.FileTypeFile {
				return fmt.Errorf("%s is not a directory", dir)
			}
			break
		}
		if !client.IsNotFound(err) {
			return err
		}
		missing = append(missing, dir)
		dir = path.Dir(dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		w := client.FileWrite{Type: client.FileTypeDirectory, UID: uid, GID: gid, Mode: 0o755}
		if err := c.WriteFile(ctx, inst, missing[i], w); err != nil {
			return fmt.Errorf("create directory %s: %w", missing[i], err)
		}
	}
	return nil
}

// pushTree sends a file or directory with everything below it. Links are sent as links.
func (a *app) pushTree(ctx context.Context, c *client.Client, inst, source, dest string) error {
	source = filepath.Clean(source)
	parent := filepath.Dir(source)
	return filepath.Walk(source, func(p string, st os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(parent, p)
		if err != nil {
			return err
		}
		if source == "." || source == ".." {
			rel, err = filepath.Rel(source, p)
			if err != nil {
				return err
			}
		}
		to := path.Join(dest, filepath.ToSlash(rel))
		w := client.FileWrite{UID: -1, GID: -1, Mode: -1}
		takeOwner(&w, st)
		switch {
		case st.IsDir():
			if to == "/" || to == dest {
				return nil
			}
			w.Type = client.FileTypeDirectory
		case st.Mode()&os.ModeSymlink != 0:
			link, err := os.Readlink(p)
			if err != nil {
				return err
			}
			w.Type, w.Content = client.FileTypeSymlink, strings.NewReader(link)
		case st.Mode().IsRegular():
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			w.Content = f
		default:
			return fmt.Errorf("%s isn't a supported file type", p)
		}
		return a.sendFile(ctx, c, inst, p, to, w, st.Size())
	})
}

var errOneFile = errors.New("more than one file to pull: the target has to be a directory that exists, or end with a slash and -p")
