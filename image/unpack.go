package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/run"
)

// maxUnpacked bounds what one archive may unpack to, in bytes, whatever the disk could take.
const maxUnpacked = 256 << 30

// isMeta selects what belongs to the metadata of an image.
func isMeta(name string) bool {
	return name == unified.MetadataFile || name == unified.TemplatesDir || path.Dir(name) == unified.TemplatesDir
}

// unpackTar unpacks a root file system, with owners, modes, attributes and devices.
func (b *builder) unpackTar(ctx context.Context, p uploadPart, to string, sel func(string) bool) error {
	system := os.Geteuid() == 0
	return b.unpack(ctx, p, to, fsroot.UnpackOptions{
		Limits: fsroot.Limits{Entries: 4 << 20, Bytes: maxUnpacked, Depth: 256}, Select: sel, System: system, Devices: system,
	})
}

// unpack unpacks an archive into the new directory to.
func (b *builder) unpack(ctx context.Context, p uploadPart, to string, opts fsroot.UnpackOptions) error {
	f, err := b.root.Open(p.File)
	if err != nil {
		return err
	}
	defer f.Close()
	watch, stop := b.s.watchSpace(ctx)
	defer stop()
	plain, err := b.s.decompress(watch, f, p.Packed)
	if err != nil {
		return err
	}
	_, err = b.root.Unpack(watch, to, plain, opts)
	err = errors.Join(err, plain.Close())
	if full := context.Cause(watch); err != nil && errs.Is(full, errs.NoSpaceClass) {
		return full
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", p.Part, err)
	}
	return nil
}

// decompress returns the plain stream of an archive. The xz program is three times as fast as the Go library, so it
// is used where it is installed.
func (s *Service) decompress(ctx context.Context, f *os.File, kind fsroot.Compression) (io.ReadCloser, error) {
	if l, ok := s.deps.Runner.(interface{ Look(string) (string, error) }); ok && kind == fsroot.XZ {
		if _, err := l.Look("xz"); err == nil {
			return s.startXZ(ctx, f), nil
		}
	}
	r, _, err := fsroot.Decompress(f, maxUnpacked)
	return r, err
}

// startXZ decompresses with the xz program, whose memory is limited to what the strongest usual level needs.
func (s *Service) startXZ(ctx context.Context, f *os.File) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	x := &xzReader{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(x.done)
		_, err := s.deps.Runner.Run(ctx, run.Command{
			Name: "xz", Args: []string{"--decompress", "--stdout", "--quiet", "--memlimit-decompress=256MiB"},
			Stdin: f, Stdout: pw, Timeout: unpackTimeout,
		})
		var failed *run.Error
		if errors.As(err, &failed) && failed.ExitCode > 0 {
			err = errs.Invalid("the archive is damaged or truncated: xz: %s", strings.TrimSpace(failed.Stderr))
		}
		pw.CloseWithError(err) // nil is the end of the stream
	}()
	return x
}

type xzReader struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the program when the stream was not read to its end.
func (x *xzReader) Close() error {
	x.cancel()
	err := x.PipeReader.Close()
	<-x.done
	return err
}
