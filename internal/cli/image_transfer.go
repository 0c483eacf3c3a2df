package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

func (a *app) imageImport() *cobra.Command {
	var aliases []string
	var public bool
	cmd := &cobra.Command{
		Use: "import <tarball>|<metadata> [<rootfs>] [remote:] [key=value...]", Short: "Import images into the image store", Args: nargs(1, -1),
		Long: `Import images into the image store

An image is either one tarball (metadata.yaml, rootfs/, templates/), or a metadata tarball and a root filesystem
(squashfs or tarball; qcow2 for virtual machines).`,
		Example: "  shoal image import debian.tar.xz --alias debian\n  shoal image import meta.tar.xz rootfs.squashfs --alias debian os=Debian",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			u := client.ImageUpload{Public: public, Properties: map[string]string{}}
			var files []string
			for i, arg := range args {
				key, value, isPair := strings.Cut(arg, "=")
				switch {
				case i > 0 && strings.HasSuffix(arg, ":"):
					if _, err := a.local(arg); err != nil {
						return err
					}
				case i > 0 && isPair && !exists(arg):
					u.Properties[key] = value
				default:
					files = append(files, arg)
				}
			}
			if len(files) == 0 || len(files) > 2 {
				return usagef("Invalid number of arguments: an image is one or two files, got %d", len(files))
			}
			u.Metadata = files[0]
			if len(files) == 2 {
				u.RootFS = files[1]
			}
			return a.importImage(cmd.Context(), u, aliases)
		},
	}
	cmd.Flags().StringArrayVar(&aliases, "alias", nil, "New aliases to add to the image")
	cmd.Flags().BoolVar(&public, "public", false, "Make image public")
	return cmd
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func (a *app) importImage(ctx context.Context, u client.ImageUpload, aliases []string) error {
	for _, f := range []string{u.Metadata, u.RootFS} {
		if strings.HasPrefix(f, "https://") || strings.HasPrefix(f, "http://") {
			return fmt.Errorf("importing from a URL is not supported yet; download %s and import the file", f)
		}
		if st, err := os.Stat(f); f != "" && err == nil && st.IsDir() {
			return fmt.Errorf("%s is a directory; an image is one or two files", f)
		}
	}
	if u.RootFS != "" {
		vm, err := isDiskImage(u.RootFS)
		if err != nil {
			return err
		}
		u.VM = vm
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	p := a.progress("Transferring image")
	defer p.clear()
	if p.on {
		meter := newMeter(p)
		u.Progress = meter.update
	}
	op, fp, err := c.UploadImage(ctx, u)
	if err != nil {
		return err
	}
	p.clear()
	if err := a.wait(ctx, op); err != nil {
		return err
	}
	if got, ok := op.Last().Metadata["fingerprint"].(string); ok {
		fp = got
	}
	a.sayf("Image imported with fingerprint: %s", fp)
	for _, al := range aliases {
		if err := c.CreateImageAlias(ctx, newAlias(al, fp)); err != nil {
			return fmt.Errorf("alias %s: %w", al, err)
		}
	}
	return nil
}

// isDiskImage reports whether a file begins as a qcow2 disk does.
func isDiskImage(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	return bytes.Equal(magic, []byte("QFI\xfb")), nil
}

// meter turns byte counts into "45% (12.00MB/s)".
type meter struct {
	p     *progress
	start time.Time
	next  time.Time
}

func newMeter(p *progress) *meter { now := time.Now(); return &meter{p: p, start: now, next: now} }

func (m *meter) update(n, total int64) {
	now := time.Now()
	if now.Before(m.next) && n < total {
		return
	}
	m.next = now.Add(100 * time.Millisecond)
	rate := sizeSI(int64(float64(n)/max(now.Sub(m.start).Seconds(), 0.001))) + "/s"
	if total > 0 {
		m.p.show(fmt.Sprintf("%d%% (%s)", n*100/total, rate))
		return
	}
	m.p.show(fmt.Sprintf("%s (%s)", sizeSI(n), rate))
}

func (a *app) imageExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export <image> [<target>]", Short: "Export and download images", Args: nargs(1, 2),
		Long:    "Export and download images\n\nThe target is a directory, by default the working directory, or the beginning of the files' names. \"-\" writes a unified image to standard output.",
		Example: "  shoal image export debian /srv/images/\n  shoal image export debian backup", ValidArgsFunction: completer(a.completeImages).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			target := "."
			if len(args) > 1 {
				target = args[1]
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			i, _, err := c.ResolveImage(cmd.Context(), name)
			if err != nil {
				return err
			}
			if err := c.ExportImage(cmd.Context(), i.Fingerprint, func(p client.ImagePart) error { return a.savePart(p, target, i.Fingerprint) }); err != nil {
				return err
			}
			if target != "-" {
				a.sayf("Image exported successfully!")
			}
			return nil
		},
	}
	cmd.Flags().Bool("vm", false, "Query virtual machine images")
	return cmd
}

// savePart writes one file of an image. It appears under its name when it is complete.
func (a *app) savePart(part client.ImagePart, target, fingerprint string) (err error) {
	if target == "-" {
		if part.Name != "" {
			return errors.New("a split image has two files and cannot be written to standard output")
		}
		_, err := io.Copy(a.Out, part.Content)
		return err
	}
	name := filepath.Join(target, part.Filename)
	if st, serr := os.Stat(target); serr != nil || !st.IsDir() {
		if strings.HasSuffix(target, "/") {
			return fmt.Errorf("directory %s does not exist", target)
		}
		_, ext, _ := strings.Cut(part.Filename, ".")
		name = target
		if ext != "" {
			name += "." + ext
		}
		if part.Name == "metadata" {
			name = filepath.Join(filepath.Dir(name), "meta-"+filepath.Base(name))
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".shoal-export-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	p := a.progress("Exporting the image")
	defer p.clear()
	m := newMeter(p)
	_, err = io.Copy(io.MultiWriter(tmp, writerFunc(func(n int64) { m.update(n, part.Size) }).counting()), part.Content)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return fmt.Errorf("write image %s: %w", fingerprint, err)
	}
	return os.Rename(tmp.Name(), name)
}

// writerFunc is told how many bytes have been written so far.
type writerFunc func(n int64)

type countingWriter struct {
	n    int64
	tell writerFunc
}

func (f writerFunc) counting() io.Writer { return &countingWriter{tell: f} }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	w.tell(w.n)
	return len(p), nil
}
