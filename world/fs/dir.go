package fs

import (
	"io"
	iofs "io/fs"
	"syscall"
)

// dirCursor is how far a directory's handle has read. It is a name, not a number: what others add or remove moves nothing.
type dirCursor struct {
	after string
	done  bool
}

// next returns up to n more entries, all with n <= 0.
func (h *File) next(op string, n int) ([]*DirEntry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, h.fail(op, iofs.ErrClosed)
	case !h.n.Mode.IsDir():
		return nil, h.fail(op, syscall.ENOTDIR)
	case h.dir.done && n > 0:
		return nil, io.EOF
	case h.dir.done:
		return nil, nil
	}
	es, err := h.v.entries(h.ctx, h.ino, h.dir.after, max(n, 0))
	if err != nil {
		return nil, h.fail(op, err)
	}
	if len(es) > 0 {
		h.dir.after = es[len(es)-1].Name()
	}
	h.dir.done = n <= 0 || len(es) < n
	if n > 0 && len(es) == 0 {
		return nil, io.EOF
	}
	return es, nil
}

// ReadDir returns the next n entries in the order of their names, or all that are left with n <= 0, as [os.File.ReadDir].
func (h *File) ReadDir(n int) ([]iofs.DirEntry, error) {
	es, err := h.next("readdir", n)
	return dirEntries(es), err
}

// Readdir is ReadDir with the Info of each.
func (h *File) Readdir(n int) ([]iofs.FileInfo, error) {
	es, err := h.next("readdir", n)
	out := make([]iofs.FileInfo, 0, len(es))
	for _, e := range es {
		i, err := e.Info()
		if err != nil {
			return out, err
		}
		out = append(out, i)
	}
	return out, err
}

// Readdirnames is ReadDir with the names only.
func (h *File) Readdirnames(n int) ([]string, error) {
	es, err := h.next("readdir", n)
	out := make([]string, 0, len(es))
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out, err
}

func dirEntries(es []*DirEntry) []iofs.DirEntry {
	out := make([]iofs.DirEntry, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}
