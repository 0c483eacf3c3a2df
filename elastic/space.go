package elastic

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
)

// etcd ends its process when it cannot write what it has promised. So no change is taken once the disk has less than reserve left,
// which is more than the changes of one interval of its backend need, and the backend's file has ahead bytes more than it
// uses: what was taken before somebody else filled the disk, and what a start writes, always fits. (The log is allocated ahead
// by etcd itself.)
const (
	reserve = 32 << 20
	ahead   = 16 << 20
)

// Room returns errs.NoSpace when the disk of the database is too full for changes; reads go on. It asks the file system, which
// takes about a microsecond: ask before every change.
func (m *Member) Room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.cfg.Dir, &st); err != nil {
		return fmt.Errorf("ask for the space left for the database: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < reserve {
		return errs.NoSpace("no space for changes: the disk of %s has %d MiB left and the database needs %d; free some, and changes are taken again",
			m.cfg.Dir, free>>20, reserve>>20)
	}
	return nil
}

// allocate gives the backend's file its blocks ahead of need. File systems that cannot do so go without.
func (m *Member) allocate() error {
	f, err := os.OpenFile(filepath.Join(m.cfg.data(), "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size()+ahead)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSPC) {
		return nil // Room says the latter
	}
	return err
}
