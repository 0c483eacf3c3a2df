package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// The hidden directories of a pool. Volumes are made in newDir and die in trashDir, both on the pool's own
// filesystem, so that entering and leaving the visible part is one rename.
const (
	newDir   = ".new"
	trashDir = ".trash"
)

// Tree is the part of a pool that all drivers share: which directory is which volume, and how volumes come and go
// so that a crash never leaves half of one under its name.
type Tree struct {
	TreeDeps
	path  string
	root  *os.Root
	kick  chan struct{} // capacity 1: there may be trash
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// TreeDeps is what differs between drivers.
type TreeDeps struct {
	Make   func(dir *os.File, name string) error                      // makes an empty directory that can be a volume
	Remove func(ctx context.Context, dir *os.File, name string) error // removes one with all below it
	Freed  func(dir *os.File)                                         // optional: called in the pool after the trash was emptied
	Logger *slog.Logger
}

// OpenTree prepares the pool's directories below path, throws away volumes that were never finished and
// goes on removing what was in the trash. Close it.
func OpenTree(path string, d TreeDeps) (*Tree, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open pool directory: %w", err)
	}
	t := &Tree{TreeDeps: d, path: path, root: root, kick: make(chan struct{}, 1)}
	if err := t.prepare(); err != nil {
		root.Close()
		return nil, NoSpace(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.stop = cancel
	t.kick <- struct{}{}
	t.ended.Go(func() { t.emptyTrash(ctx) })
	return t, nil
}

func (t *Tree) prepare() error {
	dirs := map[string]fs.FileMode{newDir: 0o700, trashDir: 0o700}
	for _, k := range kinds {
		dirs[string(k)] = 0o711
	}
	for name, mode := range dirs {
		if err := t.root.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make pool directory: %w", err)
		}
		if st, err := t.root.Lstat(name); err != nil || !st.IsDir() {
			return errs.Invalid("%s in the pool is not a directory", name)
		}
	}
	left, err := fs.ReadDir(t.root.FS(), newDir)
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := t.root.Rename(newDir+"/"+e.Name(), trashDir+"/"+rand.Text()); err != nil {
			return fmt.Errorf("sweep unfinished volume: %w", err)
		}
	}
	return nil
}

// Close stops the background work, which the next OpenTree continues.
func (t *Tree) Close() error {
	t.stop()
	t.ended.Wait()
	return t.root.Close()
}

// Path returns the directory of a volume.
func (t *Tree) Path(v Volume) string { return filepath.Join(t.path, string(v.kind), v.name) }

func (v Volume) rel() string { return string(v.kind) + "/" + v.name }

// Exists reports whether a volume is there.
func (t *Tree) Exists(v Volume) (bool, error) {
	st, err := t.root.Lstat(v.rel())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for volume %s: %w", v, err)
	case !st.IsDir():
		return false, errs.Invalid("volume %s: there is something that is not a directory", v)
	}
	return true, nil
}

// Root returns the pool's directory.
func (t *Tree) Root() string { return t.path }

// OpenVolume returns the directory of a volume.
func (t *Tree) OpenVolume(v Volume) (*os.File, error) {
	f, err := t.root.OpenFile(v.rel(), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.NotFound("volume %s not found", v)
	}
	return f, err
}

// Create makes a volume: Make, then upper/ and work/ for an instance's, then prepare (a limit), then its name.
func (t *Tree) Create(v Volume, prepare func(dir *os.File) error) error {
	if there, err := t.Exists(v); err != nil || there {
		if err == nil {
			err = errs.Exists("volume %s already exists", v)
		}
		return err
	}
	name := rand.Text()
	return t.enter(name, v, t.build(name, v, prepare))
}

// enter gives the tree that was made under a name in newDir the volume's, or throws it away when making it failed.
func (t *Tree) enter(name string, v Volume, err error) error {
	if err == nil {
		err = t.renameNew(newDir+"/"+name, v)
	}
	if err != nil {
		t.discard(newDir + "/" + name)
		return NoSpace(fmt.Errorf("make volume %s: %w", v, err))
	}
	return nil
}

func (t *Tree) build(name string, v Volume, prepare func(dir *os.File) error) error {
	parent, err := t.root.Open(newDir)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := t.Make(parent, name); err != nil {
		return err
	}
	dir, err := t.root.OpenFile(newDir+"/"+name, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	mode := os.FileMode(0o700)
	if v.kind == Custom {
		mode = 0o711
	}
	if err := dir.Chmod(mode); err != nil {
		return err
	}
	if v.kind == Containers {
		// upper becomes the root directory of the instance: what it has here is what "/" has inside.
		for sub, mode := range map[string]uint32{"upper": 0o755, "work": 0o700} {
			if err := unix.Mkdirat(int(dir.Fd()), sub, mode); err != nil {
				return fmt.Errorf("make %s: %w", sub, err)
			}
			if err := unix.Fchmodat(int(dir.Fd()), sub, mode, 0); err != nil { // whatever the umask was
				return fmt.Errorf("make %s: %w", sub, err)
			}
		}
	}
	if prepare != nil {
		return prepare(dir)
	}
	return nil
}

// renameNew gives the tree at from its name, never on top of something.
func (t *Tree) renameNew(from string, to Volume) error {
	src, err := t.root.Open(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := t.root.Open(string(to.kind))
	if err != nil {
		return err
	}
	defer dst.Close()
	err = unix.Renameat2(int(src.Fd()), filepath.Base(from), int(dst.Fd()), to.name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return errs.Exists("volume %s already exists", to)
	}
	return err
}

// RenameVolume moves a volume; nil when only the new name exists, as after a rename that was cut off.
func (t *Tree) RenameVolume(_ context.Context, from, to Volume) error {
	old, err := t.Exists(from)
	if err != nil {
		return err
	}
	there, err := t.Exists(to)
	switch {
	case err != nil:
		return err
	case there && !old:
		return nil
	case there:
		return errs.Exists("volume %s already exists", to)
	case !old:
		return errs.NotFound("volume %s not found", from)
	}
	if err := t.renameNew(from.rel(), to); err != nil {
		return NoSpace(fmt.Errorf("rename volume %s to %s: %w", from, to, err))
	}
	return nil
}

// DeleteVolume makes a volume disappear and gives its space back later.
func (t *Tree) DeleteVolume(_ context.Context, v Volume) error {
	there, err := t.Exists(v)
	if err != nil || !there {
		return err
	}
	return t.discard(v.rel())
}

func (t *Tree) discard(rel string) error {
	err := t.root.Rename(rel, trashDir+"/"+rand.Text())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("move %s to the trash: %w", rel, err)
	}
	select {
	case t.kick <- struct{}{}:
	default:
	}
	return nil
}

func (t *Tree) emptyTrash(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
		}
		freed := false
		for t.emptyTrashOnce(ctx) {
			freed = true
		}
		if freed && t.Freed != nil {
			t.freed()
		}
	}
}

func (t *Tree) freed() {
	dir, err := t.root.Open(".")
	if err != nil {
		return
	}
	defer dir.Close()
	t.Freed(dir)
}

// EmptyTrash removes all that is in the trash now.
func (t *Tree) EmptyTrash(ctx context.Context) error {
	dir, err := t.root.Open(trashDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, t.Remove(ctx, dir, name))
	}
	return err
}

// emptyTrashOnce removes what the trash holds now; true when there may be more that can be removed.
func (t *Tree) emptyTrashOnce(ctx context.Context) bool {
	dir, err := t.root.Open(trashDir)
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	again := false
	for _, name := range names {
		if ctx.Err() != nil {
			return false
		}
		if err := t.Remove(ctx, dir, name); err != nil {
			t.Logger.Warn("volume in the trash cannot be removed", "pool", t.path, "entry", name, "err", err)
			continue
		}
		again = true
	}
	return again
}

// Volumes lists the volumes that are there; names that none of ours can have are passed over.
func (t *Tree) Volumes(context.Context) ([]Volume, error) {
	var out []Volume
	for _, k := range kinds {
		entries, err := fs.ReadDir(t.root.FS(), string(k))
		if err != nil {
			return nil, fmt.Errorf("list volumes: %w", err)
		}
		for _, e := range entries {
			if v, err := Listed(k, e.Name()); err == nil && e.IsDir() {
				out = append(out, v)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out, nil
}

// NoSpace gives a full disk or an exhausted quota its class.
func NoSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errs.Classify(errs.NoSpaceClass, err)
	}
	return err
}
