package fusefs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/fs"
)

// maxMounts bounds what one process serves.
const maxMounts = 256

// Deps is what Mounts need.
type Deps struct {
	Store *fs.Store
	Log   *slog.Logger // nil: none
	// Source marks the mounts of this daemon among those of the machine, so that the next process knows which it may clear away.
	Source string
}

// Mount is a volume that is mounted.
type Mount struct {
	Volume string
	Path   string
	server *fuse.Server
	gone   chan struct{} // closed when nothing is served any more, whoever unmounted
}

// Mounts are the mounts of this process. Safe for concurrent use.
type Mounts struct {
	d      Deps
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	mounts map[string]*Mount // by path
}

// New clears away what a process before left mounted. Nothing is mounted yet.
func New(d Deps) (*Mounts, error) {
	if d.Store == nil || d.Source == "" || strings.ContainsAny(d.Source, " ,\\\n\t") {
		return nil, errs.Invalid("mounts need a store and a source without blanks and commas, not %q", d.Source)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mounts{d: d, mounts: map[string]*Mount{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.clear()
	return m, nil
}

const fstype = "shoalfs"

// clear unmounts what nobody serves.
func (m *Mounts) clear() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for in := bufio.NewScanner(f); in.Scan(); {
		p, ok := ours(in.Text(), m.d.Source)
		if !ok {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); errors.Is(err, unix.ENOTCONN) {
			err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			m.d.Log.Info("a mount of the shared file system was left over", "path", p, "err", err)
		}
	}
}

// ours reads a line of mountinfo (proc_pid_mountinfo(5)) and returns the mount point if it is one of source.
func ours(line, source string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	was, is := strings.Fields(before), strings.Fields(after)
	if !ok || len(was) < 6 || len(is) < 2 || is[0] != "fuse."+fstype || is[1] != source {
		return "", false
	}
	return unescape(was[4]), true
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Mount mounts a volume at an existing empty directory, for all users of the machine.
func (m *Mounts) Mount(ctx context.Context, volume, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return errs.Invalid("mount at %q: want a clean absolute path", path)
	}
	f, err := m.d.Store.Open(ctx, volume)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return errs.Invalid("mount at %s: %w", path, err)
	}
	if es, err := os.ReadDir(real); err != nil || len(es) > 0 {
		return errs.Invalid("mount at %s: want an empty directory (%v)", path, errors.Join(err, notEmpty(len(es))))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return errs.Unavailable("the daemon stops")
	}
	if m.mounts[real] != nil {
		return errs.Exists("%s is mounted", path)
	}
	if len(m.mounts) >= maxMounts {
		return errs.Busy("%d volumes are mounted: no more are allowed", maxMounts)
	}
	return m.mount(f, real)
}

func notEmpty(n int) error {
	if n == 0 {
		return nil
	}
	return errors.New("there are files in it")
}

func (m *Mounts) mount(f *fs.FS, path string) error {
	root := &node{ctx: m.ctx, f: f, ino: fs.Root}
	opts := &gofs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, FsName: m.d.Source, Name: fstype, Options: []string{"default_permissions"},
		DirectMountStrict: true, // no helper program
		DirectMountFlags:  unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY,
		MaxReadAhead:      1 << 20, DisableXAttrs: true, Logger: log.New(io.Discard, "", 0),
	}}
	opts.RootStableAttr = &gofs.StableAttr{Ino: uint64(fs.Root)}
	s, err := gofs.Mount(path, root, opts)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EPERM):
		return errs.Unsupported("mount at %s: this machine cannot mount FUSE file systems (is there a /dev/fuse?): %w", path, err)
	case err != nil:
		return errs.Classify(errs.Internal, err)
	}
	mt := &Mount{Volume: f.Name(), Path: path, server: s, gone: make(chan struct{})}
	m.mounts[path] = mt
	go func() { // ends when it is unmounted, by us or by umount(8)
		defer close(mt.gone)
		s.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.mounts[path] == mt {
			delete(m.mounts, path)
		}
	}()
	return nil
}

// List returns what is mounted, by path.
func (m *Mounts) List() []Mount {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Mount
	for _, x := range m.mounts {
		out = append(out, Mount{Volume: x.Volume, Path: x.Path})
	}
	slices.SortFunc(out, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// Unmount ends a mount, when nobody uses it.
func (m *Mounts) Unmount(path string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	m.mu.Lock()
	mt := m.mounts[path]
	m.mu.Unlock()
	if mt == nil {
		return errs.NotFound("nothing of the shared file system is mounted at %s", path)
	}
	if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return errs.Busy("%s is in use: end the processes that have files or directories open there", path)
		}
		return errs.Classify(errs.Internal, err)
	}
	<-mt.gone
	return nil
}

// Close unmounts everything; who uses a mount gets errors.
func (m *Mounts) Close() error {
	m.mu.Lock()
	m.cancel()
	var list []*Mount
	for _, x := range m.mounts {
		list = append(list, x)
	}
	m.mu.Unlock()
	var all []error
	for _, x := range list {
		if err := unix.Unmount(x.Path, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			all = append(all, err)
			continue
		}
		<-x.gone
	}
	return errors.Join(all...)
}
