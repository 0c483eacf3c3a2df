package fs

import (
	"context"
	"io"
	iofs "io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/shoal-project/shoal/kvstore"
)

// File is an open file or directory. Its methods are those of [os.File]; they may be called from several goroutines, one at a time goes
// on. The context it was opened with bounds all of them.
//
// Reads see the file as it was when it was opened and what was written through this handle. What was written, the
// truncation by O_TRUNC too, is there for others after Sync or Close, as a whole.
type File struct {
	f    *FS
	ctx  context.Context
	name string
	flag int
	v    *view // at the revision of opening

	mu      sync.Mutex
	closed  bool
	ino     Ino
	n       inode // as it was when opened or committed
	rev     int64 // of n
	c       *content
	up      *upload
	changed bool   // since the last commit
	written int64  // when, ns since 1970
	tag     string // of the commit under way: says after a lost answer that it was ours
	off     int64
	dir     dirCursor
}

// Name returns the path as it was given.
func (h *File) Name() string { return h.name }

func (h *File) fail(op string, err error) error { return pathError(op, h.name, err) }

// enter locks the handle for an operation on its content.
func (h *File) enter(op string, write bool) error {
	h.mu.Lock()
	var err error
	acc := h.flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	switch {
	case h.closed:
		err = iofs.ErrClosed
	case h.n.Mode.IsDir():
		err = syscall.EISDIR
	case write && acc == os.O_RDONLY, !write && acc == os.O_WRONLY:
		err = syscall.EBADF
	}
	if err != nil {
		h.mu.Unlock()
	}
	return h.fail(op, err)
}

// Read implements io.Reader.
func (h *File) Read(p []byte) (int, error) {
	if err := h.enter("read", false); err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	n, err := h.c.readAt(h.ctx, p, h.off)
	h.off += int64(n)
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, h.fail("read", err)
}

// ReadAt implements io.ReaderAt.
func (h *File) ReadAt(p []byte, off int64) (int, error) {
	if err := h.enter("read", false); err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	if off < 0 {
		return 0, h.fail("read", syscall.EINVAL)
	}
	n, err := h.c.readAt(h.ctx, p, off)
	if err == nil && n < len(p) {
		return n, io.EOF
	}
	return n, h.fail("read", err)
}

// Write implements io.Writer. With O_APPEND it writes at the end of what this handle sees.
func (h *File) Write(p []byte) (int, error) {
	if err := h.enter("write", true); err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	if h.flag&os.O_APPEND != 0 {
		h.off = h.c.size
	}
	n, err := h.write(p, h.off)
	h.off += int64(n)
	return n, err
}

func (h *File) write(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := h.c.writeAt(h.ctx, p, off)
	h.touch(n > 0)
	return n, h.fail("write", err)
}

func (h *File) touch(did bool) {
	if did {
		h.changed, h.tag = true, ""
		h.written = h.f.st.now().UnixNano()
	}
}

// WriteAt implements io.WriterAt. As with os.File it is an error with O_APPEND.
func (h *File) WriteAt(p []byte, off int64) (int, error) {
	if err := h.enter("write", true); err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	if off < 0 || h.flag&os.O_APPEND != 0 {
		return 0, h.fail("write", syscall.EINVAL)
	}
	return h.write(p, off)
}

// WriteString is Write.
func (h *File) WriteString(s string) (int, error) { return h.Write([]byte(s)) }

// Seek implements io.Seeker. A directory can be sought to its begin only.
func (h *File) Seek(off int64, whence int) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, h.fail("seek", iofs.ErrClosed)
	}
	if h.n.Mode.IsDir() {
		if off != 0 || whence != io.SeekStart {
			return 0, h.fail("seek", syscall.EINVAL)
		}
		h.dir = dirCursor{}
		return 0, nil
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += h.off
	case io.SeekEnd:
		off += h.c.size
	default:
		off = -1
	}
	if off < 0 {
		return 0, h.fail("seek", syscall.EINVAL)
	}
	h.off = off
	return off, nil
}

// Truncate sets the size; the position stays.
func (h *File) Truncate(size int64) error {
	if err := h.enter("truncate", true); err != nil {
		return err
	}
	defer h.mu.Unlock()
	err := h.c.truncate(h.ctx, size)
	h.touch(err == nil)
	return h.fail("truncate", err)
}

// Stat describes the file as this handle sees it.
func (h *File) Stat() (iofs.FileInfo, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, h.fail("stat", iofs.ErrClosed)
	}
	if h.n.Mode.IsDir() {
		i, err := h.v.info(h.ctx, h.ino, base(h.name))
		if err != nil {
			return nil, h.fail("stat", err)
		}
		return i, nil
	}
	i := &Info{name: base(h.name), n: h.n, Ino: h.ino, Revision: h.rev}
	i.n.Size = h.c.size
	if h.changed {
		i.n.Mtime = h.written
	}
	return i, nil
}

// Changed says whether something was written that no commit has made visible.
func (h *File) Changed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// Sync makes what was written visible to others. When it fails nothing was made visible, or, with class Unavailable, all or nothing; it can be called
// again. After ErrConflict that is useless: open the file again.
func (h *File) Sync() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return h.fail("sync", iofs.ErrClosed)
	}
	return h.fail("sync", h.commit())
}

// Close syncs and ends the handle, whether or not that fails; what was not committed is gone then.
func (h *File) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return h.fail("close", iofs.ErrClosed)
	}
	err := h.commit()
	h.end()
	return h.fail("close", err)
}

// Abandon ends the handle without making anything visible.
func (h *File) Abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.end()
	}
}

func (h *File) end() {
	h.closed = true
	if h.c != nil {
		h.c.end()
	}
	if h.up != nil {
		if err := h.up.release(context.WithoutCancel(h.ctx)); err != nil {
			h.f.st.log.Debug("pins run out by themselves", "err", err)
		}
	}
	h.c, h.dir = nil, dirCursor{}
}

// commit writes the content and swaps the inode in one transaction. A change of mode, owner or time by others in the meantime is kept.
func (h *File) commit() error {
	if !h.changed {
		return nil
	}
	n := h.n
	if err := h.c.store(h.ctx, &n); err != nil {
		return err
	}
	if h.tag == "" {
		h.tag = newID()
	}
	n.Tag, n.Mtime = h.tag, h.written
	rev, err := h.f.change(h.ctx, "write", h.name, func(v *view) (kvstore.Txn, error) {
		cur, kv, err := v.inode(h.ctx, h.ino)
		switch {
		case err != nil:
			return kvstore.Txn{}, err
		case cur.Tag == n.Tag: // it has happened: the answer was lost
			n, h.rev = cur, kv.ModRevision
			return kvstore.Txn{}, nil
		case cur.Tag != h.n.Tag:
			return kvstore.Txn{}, ErrConflict
		}
		n.Mode, n.UID, n.GID = cur.Mode, cur.UID, cur.GID
		if cur.Mtime != h.n.Mtime {
			n.Mtime = cur.Mtime // somebody has set it
		}
		if err := h.up.ensure(h.ctx); err != nil {
			return kvstore.Txn{}, err
		}
		t := kvstore.Txn{If: []kvstore.Compare{kvstore.Unchanged(kv.Key, kv.ModRevision)}, Then: []kvstore.Op{kvstore.Put(kv.Key, encode(n))}}
		h.up.commit(&t)
		return t, nil
	})
	if err != nil {
		return err
	}
	if rev != 0 {
		h.rev = rev
	}
	h.n, h.changed, h.tag, h.v.rev = n, false, "", h.rev
	h.up.committed()
	h.c.stored(n)
	return nil
}
