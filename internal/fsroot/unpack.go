package fsroot

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
	"golang.org/x/sys/unix"
)

// Limits bound what one archive may make. Zero fields mean the default.
type Limits struct {
	Entries int64 // files, directories, links, … that are made; default 1,000,000
	Bytes   int64 // content of all entries together, holes and what is not selected included; default 64 GiB
	Depth   int   // directories above an entry; default 256
}

func (l Limits) orDefault() Limits {
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Depth == 0 {
		l.Depth = 256
	}
	return l
}

// UnpackOptions say what of an archive is made, and how.
//
// Names are cleaned of "./", "//" and a trailing slash; absolute names, "..", NUL bytes, parts of more than 255 and names of
// more than 4095 bytes are refused. Missing parents are made (0755, root). An entry whose path leads through
// a link or something else that is no directory is refused. A later entry replaces a file, link, device or FIFO of the
// same name and gives a directory of the same name new metadata; a directory never becomes something else, nor
// something else a directory. Hard links must name an earlier entry that is not a directory. The targets of symbolic
// links are kept as they are, they belong to the guest. Anything refused ends the unpacking.
type UnpackOptions struct {
	Limits Limits
	// StripComponents drops that many leading parts of every name, of hard link targets too; what has no more is skipped.
	StripComponents int
	// Select says whether an entry, named as cleaned and before stripping, is made; nil: all are. A directory that is not
	// selected does not keep what is below it from being made.
	Select func(name string) bool
	// System keeps what a root file system needs: owners, all mode bits (setuid too), extended attributes
	// (security.capability, POSIX ACLs, user.*; others are skipped), FIFOs. It needs root, and the target must be where
	// only root can enter. Without it files belong to the daemon, modes are cut to 0755, attributes are skipped, FIFOs refused.
	System bool
	// Devices allows character and block devices; otherwise they are refused.
	Devices bool
	// Sync returns only when the tree is on disk.
	Sync bool
}

// UnpackResult counts what an archive made.
type UnpackResult struct {
	Entries       int64
	Bytes         int64
	SkippedXattrs int64 // attributes of other namespaces, or that the file system does not have
}

// Unpack unpacks the tar archive r into the new directory name (errs.Exists when there is something). r is read to its end,
// so that a [Decompress] below it compares its checksum; an archive without its end mark is refused as truncated. The
// tree appears under its name only when it is whole; on an error nothing stays. Errors name the entry.
func (r *Root) Unpack(ctx context.Context, name string, archive io.Reader, opts UnpackOptions) (res UnpackResult, err error) {
	if _, err := r.Lstat(name); err == nil {
		return res, errs.Exists("unpack: %s exists already", name)
	}
	tmp := filepath.Join(filepath.Dir(name), TempPrefix+rand.Text())
	if err := r.Mkdir(tmp, 0o700); err != nil {
		return res, fmt.Errorf("unpack %s: %w", name, Classify(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack %s: %w", name, Classify(err)), r.RemoveTree(tmp))
		}
	}()
	dir, err := r.Open(tmp)
	if err != nil {
		return res, err
	}
	defer dir.Close()
	u := newUnpacker(ctx, int(dir.Fd()), opts)
	defer u.close()
	if err := u.all(archive); err != nil {
		return UnpackResult{}, err
	}
	// RENAME_NOREPLACE would need both parents' descriptors; a directory never replaces a file or a directory with content.
	rename := r.Rename
	if opts.Sync {
		rename = r.RenameSync
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return UnpackResult{}, err
		}
	}
	if err := rename(tmp, name); err != nil {
		return UnpackResult{}, err
	}
	return u.res, nil
}

// maxTrailer is how much may follow the end mark: tar pads to its record size.
const maxTrailer = 16 << 20

func (u *unpacker) all(archive io.Reader) error {
	watch := &endWatch{r: archive}
	tr := tar.NewReader(watch)
	for {
		if err := u.ctx.Err(); err != nil {
			return context.Cause(u.ctx)
		}
		watch.n = 0 // the content before was read to its end, less than a block of padding is left
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %q: %w", printable(hdr.Name), err)
		}
	}
	if watch.n < 512 {
		return errs.Invalid("the archive is truncated or no tar archive: it has no end mark")
	}
	n, err := io.Copy(io.Discard, io.LimitReader(archive, maxTrailer))
	if err != nil {
		return archiveError(err)
	}
	if n == maxTrailer {
		return errs.TooLarge("the archive goes on after its end mark")
	}
	return u.finishDirectories()
}

// archiveError classifies what reading the archive gave: a damaged archive is the sender's fault, an error of the
// connection or disk below it is not.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) ||
		errors.Is(err, tar.ErrInsecurePath) {
		return errs.Classify(errs.InvalidInput, fmt.Errorf("damaged archive: %w", err))
	}
	return fmt.Errorf("read archive: %w", err)
}

// endWatch counts what is read while the next header is looked for: archive/tar takes the end of the stream for the
// end of the archive, but an end mark has at least one block.
type endWatch struct {
	r io.Reader
	n int
}

func (e *endWatch) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.n += n
	return n, err
}

// cleanName returns the parts of an entry's name; none for the tree itself.
func cleanName(name string, maxDepth int) ([]string, error) {
	switch {
	case name == "":
		return nil, errs.Invalid("the name is empty")
	case len(name) > 4095:
		return nil, errs.Invalid("the name has %d bytes, at most 4095 are allowed", len(name))
	case name[0] == '/':
		return nil, errs.Invalid("absolute names are not allowed")
	case strings.ContainsRune(name, 0):
		return nil, errs.Invalid("the name contains a NUL byte")
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch {
		case p == "" || p == ".":
			continue
		case p == "..":
			return nil, errs.Invalid(`names with ".." are not allowed`)
		case len(p) > 255:
			return nil, errs.Invalid("a part of the name has %d bytes, at most 255 are allowed", len(p))
		}
		parts = append(parts, p)
	}
	if len(parts) > maxDepth {
		return nil, errs.TooLarge("the entry lies %d directories deep, at most %d are allowed", len(parts), maxDepth)
	}
	return parts, nil
}

// printable shortens a hostile name for an error text.
func printable(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}
