package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// OpenUnfinished opens a tree among those that are being made; "." is the directory of all of them.
func (t *Tree) OpenUnfinished(name string) (*os.File, error) {
	return t.root.OpenFile(filepath.Join(newDir, name), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// Build makes a volume by calling build with the name that it has in [Tree.OpenUnfinished] until it is complete.
func (t *Tree) Build(v Volume, build func(name string) error) error {
	if there, err := t.Exists(v); err != nil || there {
		if err == nil {
			err = errs.Exists("volume %s already exists", v)
		}
		return err
	}
	name := rand.Text()
	return t.enter(name, v, build(name))
}

// Replace puts what build makes in the place of a volume that is there. The two change places in one step, so a crash leaves the
// one or the other; the next OpenTree sweeps what is left among the unfinished.
func (t *Tree) Replace(v Volume, build func(name string) error) error {
	there, err := t.Exists(v)
	if err == nil && !there {
		err = errs.NotFound("volume %s not found", v)
	}
	if err != nil {
		return err
	}
	name := rand.Text()
	if err = build(name); err == nil {
		err = t.exchange(newDir+"/"+name, v)
	}
	// What lies there now is the old volume, or what could not be finished.
	err = errors.Join(err, t.discard(newDir+"/"+name))
	if err != nil {
		return NoSpace(fmt.Errorf("replace volume %s: %w", v, err))
	}
	return nil
}

func (t *Tree) exchange(from string, to Volume) error {
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
	return unix.Renameat2(int(src.Fd()), filepath.Base(from), int(dst.Fd()), to.name, unix.RENAME_EXCHANGE)
}

// CopyByFile makes to a copy of from, file by file; prepare may be nil and sets a limit beforehand.
func (t *Tree) CopyByFile(ctx context.Context, from, to Volume, prepare func(dir *os.File) error, progress func(int64)) error {
	return t.Build(to, func(name string) error { return t.BuildByFile(ctx, name, from, to, prepare, progress) })
}

// BuildByFile makes a copy of from under a name in [Tree.OpenUnfinished] that can become the volume to.
func (t *Tree) BuildByFile(ctx context.Context, name string, from, to Volume, prepare func(dir *os.File) error, progress func(int64)) error {
	src, err := t.OpenVolume(from)
	if err != nil {
		return err
	}
	defer src.Close()
	parent, err := t.OpenUnfinished(".")
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := t.Make(parent, name); err != nil {
		return err
	}
	dst, err := t.OpenUnfinished(name)
	if err != nil {
		return err
	}
	defer dst.Close()
	if prepare != nil {
		if err := prepare(dst); err != nil {
			return err
		}
	}
	return CopyTree(ctx, src, dst, progress)
}
