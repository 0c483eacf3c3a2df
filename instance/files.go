package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// Bounds against a hostile guest: its SFTP server decides what it answers.
const (
	maxListing  = 32 << 20 // bytes of a directory listing on the wire
	maxTarget   = 4096
	fileTimeout = time.Minute // of any call but reading and writing content
)

// SFTP opens a raw SFTP stream served inside the instance with the guest root's authority, running or stopped.
func (s *Service) SFTP(ctx context.Context, project api.ProjectName, name string) (io.ReadWriteCloser, error) {
	e, err := s.find(project, name)
	if err != nil {
		return nil, err
	}
	if status, _ := e.now(); status == api.Frozen || status == api.Freezing {
		return nil, errs.Busy("Instance is frozen")
	}
	r := e.name()
	item, err := s.store.get(r)
	if err != nil {
		return nil, err
	}
	d, err := s.driverFor(item.Value.Type)
	if err != nil {
		return nil, err
	}
	x, err := s.expand(project, item.Value)
	if err != nil {
		return nil, err
	}
	spec, err := s.spec(ctx, r, item.Value, x)
	if err != nil {
		return nil, err
	}
	conn, err := d.Files(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("open the files of instance %q: %w", r.name, err)
	}
	return conn, nil
}

// FileInfo says what is at a path inside an instance.
type FileInfo struct {
	Type    string // file, directory or symlink
	Mode    uint32 // permission bits, 0–07777
	UID     int64  // as the guest sees it
	GID     int64
	Size    int64
	ModTime api.Time
	Entries []string // of a directory, sorted
	Target  string   // of a symlink
}

// FilePut says what to write. Unset pointers keep what is there, or mean 0644 (directories 0755), uid 0 and gid 0.
type FilePut struct {
	Type    string // file (default), directory or symlink
	Mode    *uint32
	UID     *int64
	GID     *int64
	Append  bool
	Content io.Reader // of a file; the target of a symlink
}

// Files are the files of one instance, running or stopped, reached with the guest's own authority. Close it. Not for
// concurrent use.
type Files struct {
	s       *Service
	ref     ref
	conn    io.Closer
	client  *sftp.Client
	allowed *atomic.Int64 // bytes that may still be received
}

// Files opens a session; Busy "Instance is frozen" when it is.
func (s *Service) Files(ctx context.Context, project api.ProjectName, name string) (*Files, error) {
	conn, err := s.SFTP(ctx, project, name)
	if err != nil {
		return nil, err
	}
	f := &Files{s: s, ref: ref{project: project}, conn: conn, allowed: &atomic.Int64{}}
	if e, err := s.find(project, name); err == nil {
		f.ref = e.name()
	}
	f.allowed.Store(maxListing)
	err = f.guard(ctx, func() error {
		f.client, err = sftp.NewClientPipe(&budget{r: conn, left: f.allowed}, conn)
		return err
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("talk to the files of instance %q: %w", name, err)
	}
	return f, nil
}

// budget ends a stream from which too much came.
type budget struct {
	r    io.Reader
	left *atomic.Int64
}

func (b *budget) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left.Add(-int64(n)) < 0 {
		return 0, errs.TooLarge("the instance sends more than a directory or file can have")
	}
	return n, err
}

// guard runs a call on the session and ends the session when the guest does not answer in time or ctx ends.
func (f *Files) guard(ctx context.Context, call func() error) error {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() { f.conn.Close() })
	err := call()
	if !unhook() && err != nil {
		return fmt.Errorf("the instance does not answer: %w", ctx.Err())
	}
	return classify(err)
}

func classify(err error) error {
	var status *sftp.StatusError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return errs.NotFound("Not Found")
	case errors.Is(err, os.ErrExist):
		return errs.Exists("file exists")
	case errors.Is(err, os.ErrPermission):
		return errs.Forbidden("permission denied inside the instance")
	case errors.As(err, &status):
		return errs.Invalid("the instance answers: %.200s", strings.ToValidUTF8(status.Error(), "?"))
	}
	return err
}

// clean makes a path absolute; ".." cannot leave the root, and the guest's kernel would not let it anyway.
func clean(p string) (string, error) {
	if len(p) > 4095 || strings.ContainsRune(p, 0) {
		return "", errs.Invalid("path of %d bytes: it may have 4095 and no NUL", len(p))
	}
	return path.Clean("/" + p), nil
}

func infoOf(st os.FileInfo) (FileInfo, error) {
	out := FileInfo{Size: st.Size(), ModTime: st.ModTime().UTC(), Mode: unixMode(st.Mode())}
	if sys, ok := st.Sys().(*sftp.FileStat); ok {
		out.UID, out.GID = int64(sys.UID), int64(sys.GID)
	}
	switch {
	case st.Mode().IsRegular():
		out.Type = "file"
	case st.IsDir():
		out.Type = "directory"
	case st.Mode()&os.ModeSymlink != 0:
		out.Type = "symlink"
	default:
		return out, errs.Invalid("only files, directories and symbolic links can be reached, this is %s", st.Mode().Type())
	}
	return out, nil
}

func unixMode(m os.FileMode) uint32 {
	out := uint32(m.Perm())
	for bit, flag := range map[os.FileMode]uint32{os.ModeSetuid: 0o4000, os.ModeSetgid: 0o2000, os.ModeSticky: 0o1000} {
		if m&bit != 0 {
			out |= flag
		}
	}
	return out
}

func goMode(m uint32) os.FileMode {
	out := os.FileMode(m & 0o777)
	for bit, flag := range map[os.FileMode]uint32{os.ModeSetuid: 0o4000, os.ModeSetgid: 0o2000, os.ModeSticky: 0o1000} {
		if m&flag != 0 {
			out |= bit
		}
	}
	return out
}

// Stat is Get without content, entries and target.
func (f *Files) Stat(ctx context.Context, p string) (FileInfo, error) {
	p, err := clean(p)
	if err != nil {
		return FileInfo{}, err
	}
	var st os.FileInfo
	if err := f.guard(ctx, func() error { st, err = f.client.Lstat(p); return err }); err != nil {
		return FileInfo{}, err
	}
	return infoOf(st)
}

// Get returns what is at path and, for a file, its content, which the caller closes before the session. A link is
// returned as a link. NotFound when there is nothing.
func (f *Files) Get(ctx context.Context, p string) (FileInfo, io.ReadCloser, error) {
	info, err := f.Stat(ctx, p)
	if err != nil {
		return info, nil, err
	}
	p, _ = clean(p)
	f.allowed.Store(maxListing)
	var content io.ReadCloser
	err = f.guard(ctx, func() error {
		switch info.Type {
		case "symlink":
			info.Target, err = f.client.ReadLink(p)
			if len(info.Target) > maxTarget {
				err = errs.TooLarge("the link's target has %d bytes", len(info.Target))
			}
		case "directory":
			var list []os.FileInfo
			list, err = f.client.ReadDirContext(ctx, p)
			info.Entries = []string{}
			for _, st := range list {
				// A name with a slash would make clients leave their target directory.
				if name := st.Name(); !strings.ContainsAny(name, "/\x00") && name != "." && name != ".." && name != "" {
					info.Entries = append(info.Entries, name)
				}
			}
			slices.Sort(info.Entries)
		default:
			content, err = f.client.Open(p)
		}
		return err
	})
	if err != nil {
		return info, nil, err
	}
	if content != nil {
		// The content may have any length, but not more than a little over what was announced: files grow.
		f.allowed.Store(2*info.Size + maxListing)
		content = &stream{ReadCloser: content, unhook: context.AfterFunc(ctx, func() { f.conn.Close() })}
		f.s.event(ctx, f.ref, "instance-file-retrieved", map[string]any{"path": p})
	}
	return info, content, nil
}

type stream struct {
	io.ReadCloser
	unhook func() bool
}

func (s *stream) Close() error { s.unhook(); return s.ReadCloser.Close() }

// Close ends the session.
func (f *Files) Close() error {
	err := f.conn.Close()
	_ = f.client.Close()
	return err
}
