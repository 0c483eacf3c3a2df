package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/run"
)

// Form is how the root file system of an image is kept.
type Form string

// The forms, best first.
const (
	Erofs     Form = "erofs"     // uncompressed, mounted from the file or through a loop device
	Squashfs  Form = "squashfs"  // as uploaded, mounted through a loop device; tar archives become directories
	Directory Form = "directory" // unpacked
)

// Info says how images are kept on this host.
type Info struct {
	Form Form
	Why  string // why not a better one, "" for the best
}

// probe tries the forms by making and mounting a tiny image.
func (s *Service) probe(ctx context.Context) Info {
	if s.deps.Form != "" {
		return Info{Form: s.deps.Form}
	}
	tmp := filepath.Join(s.root.Name(), fsroot.TempPrefix+"probe")
	defer func() {
		_ = fsmount.Unmount(filepath.Join(tmp, "mnt"))
		_ = s.root.RemoveTree(filepath.Base(tmp))
	}()
	for _, d := range []string{"tree", "mnt"} {
		if err := os.MkdirAll(filepath.Join(tmp, d), 0o700); err != nil {
			return Info{Directory, err.Error()}
		}
	}
	image, mnt := filepath.Join(tmp, "img"), filepath.Join(tmp, "mnt")
	err := s.makeErofs(ctx, image, filepath.Join(tmp, "tree"))
	if err == nil {
		err = fsmount.MountImage("erofs", image, mnt)
	}
	if err == nil {
		return Info{Form: Erofs}
	}
	info := Info{Squashfs, "erofs: " + err.Error()}
	_ = os.Remove(image)
	_, err = s.deps.Runner.Run(ctx, run.Command{Name: "mksquashfs", Args: []string{filepath.Join(tmp, "tree"), image, "-quiet", "-no-progress"}})
	if err == nil {
		err = fsmount.MountImage("squashfs", image, mnt)
	}
	if err != nil {
		info = Info{Directory, info.Why + "; squashfs: " + err.Error()}
	}
	s.deps.Logger.Info("images are not kept in the best form", "form", string(info.Form), "err", info.Why)
	return info
}

// makeErofs makes an uncompressed erofs image of a tree: nothing is unpacked when it is read.
func (s *Service) makeErofs(ctx context.Context, image, tree string) error {
	err := s.tied(ctx, run.Command{
		Name: "mkfs.erofs", Args: []string{"--quiet"}, Operands: []string{image, tree}, Timeout: unpackTimeout,
	})
	if err != nil {
		return fmt.Errorf("make erofs: %w", err)
	}
	return nil
}

// tied runs a program that dies with the daemon: one that goes on writing into a staging directory would be in the way
// of the next daemon, which sweeps it. The kernel ties it to the thread that started it, so that is kept.
func (s *Service) tied(ctx context.Context, c run.Command) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	_, err := s.deps.Runner.Run(ctx, c)
	return err
}

// unpackTimeout ends programs that unpack or build an image; a slow disk needs minutes for gigabytes.
const unpackTimeout = 30 * time.Minute

// unsquash unpacks a squashfs file into the new directory tree, which must be where only root can enter: the program
// runs as root on hostile input.
func (s *Service) unsquash(ctx context.Context, file, tree string) error {
	watch, stop := s.watchSpace(ctx)
	defer stop()
	err := s.tied(watch, run.Command{
		Name: "unsquashfs", Args: []string{"-no-progress", "-quiet", "-processors", strconv.Itoa(processors()), "-dest", tree},
		Operands: []string{file}, NoGuard: true, Timeout: unpackTimeout,
	})
	if cause := context.Cause(watch); err != nil && errs.Is(cause, errs.NoSpaceClass) {
		return cause
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if full := s.spaceLeft(); full != nil {
			return full
		}
		if errs.Is(err, errs.UnsupportedClass) {
			return err
		}
		return errs.Invalid("unpack the root file system: %v", err)
	}
	return nil
}
