package image

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// reserve is what images leave free on their filesystem, in bytes: the database and logs live there too. Small
// filesystems leave a twentieth.
const reserve = 256 << 20

// spaceLeft returns errs.NoSpace when images may not write any more.
func (s *Service) spaceLeft() error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root.Name(), &st); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	free, total := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	keep := min(reserve, total/20)
	if free < keep {
		return errs.NoSpace("not enough space for images: %d bytes are free on the filesystem of %s, %d are kept free", free, s.root.Name(), keep)
	}
	if st.Files > 0 && st.Ffree < st.Files/50 {
		return errs.NoSpace("not enough space for images: %d of %d inodes are free on the filesystem of %s", st.Ffree, st.Files, s.root.Name())
	}
	return nil
}

// watchSpace returns a context that ends with errs.NoSpace when the disk is nearly full: how much a packed file system
// unpacks to is known only by unpacking it.
func (s *Service) watchSpace(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := s.spaceLeft(); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

func processors() int { return min(runtime.NumCPU(), 8) }
