package fs_test

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/world/fs"
)

// handle is what an open file of either side can do.
type handle interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	Truncate(int64) error
	Stat() (iofs.FileInfo, error)
	Close() error
}

// side is a file system under test: the host's or ours.
type side struct {
	open     func(p string, flag int) (handle, error)
	mkdir    func(p string) error
	mkdirAll func(p string) error
	remove   func(p string) error
	purge    func(p string) error
	rename   func(from, to string) error
	symlink  func(target, p string) error
	chmod    func(p string, m iofs.FileMode) error
	tree     func() iofs.FS
}

func host(dir string) side {
	at := func(p string) string { return filepath.Join(dir, filepath.Clean("/"+p)) }
	return side{
		open:     func(p string, flag int) (handle, error) { return os.OpenFile(at(p), flag, 0o644) },
		mkdir:    func(p string) error { return os.Mkdir(at(p), 0o755) },
		mkdirAll: func(p string) error { return os.MkdirAll(at(p), 0o755) },
		remove:   func(p string) error { return os.Remove(at(p)) },
		purge:    func(p string) error { return os.RemoveAll(at(p)) },
		rename:   func(from, to string) error { return syscall.Rename(at(from), at(to)) },
		symlink:  func(target, p string) error { return os.Symlink(target, at(p)) },
		chmod:    func(p string, m iofs.FileMode) error { return os.Chmod(at(p), m) },
		tree:     func() iofs.FS { return os.DirFS(dir) },
	}
}

func ours(t *testing.T, f *fs.FS) side {
	ctx := t.Context()
	return side{
		open:     func(p string, flag int) (handle, error) { return f.OpenFile(ctx, p, flag, 0o644) },
		mkdir:    func(p string) error { return f.Mkdir(ctx, p, 0o755) },
		mkdirAll: func(p string) error { return f.MkdirAll(ctx, p, 0o755) },
		remove:   func(p string) error { return f.Remove(ctx, p) },
		purge:    func(p string) error { return f.RemoveAll(ctx, p) },
		rename:   func(from, to string) error { return f.Rename(ctx, from, to) },
		symlink:  func(target, p string) error { return f.Symlink(ctx, target, p) },
		chmod:    func(p string, m iofs.FileMode) error { return f.Chmod(ctx, p, m) },
		tree: func() iofs.FS {
			s, err := f.Snapshot(ctx)
			must(t, err)
			return s
		},
	}
}

// dump lists a tree: what a user can see of it.
func dump(t *testing.T, fsys iofs.FS) (out []string) {
	t.Helper()
	must(t, iofs.WalkDir(fsys, ".", func(p string, d iofs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v", p, i.Mode())
		switch d.Type() {
		case 0:
			b, err := iofs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", i.Size(), b)
		case iofs.ModeSymlink:
			to, err := iofs.ReadLink(fsys, p)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// op is one step that is done on a side; it returns what the user sees.
type op struct {
	name string
	do   func(s side) (string, error)
}

func errOp(f func(s side) error) func(side) (string, error) {
	return func(s side) (string, error) { return "", f(s) }
}

func randomOp(r *rand.Rand) op { return someOp(r, 12) }

// someOp is one of the first kinds, of which 8 change paths and the others files.
func someOp(r *rand.Rand, kinds int) op {
	names := []string{"a", "b", "c"}
	p := func() string {
		s := names[r.IntN(3)]
		for range r.IntN(3) {
			s = path.Join(s, names[r.IntN(3)])
		}
		return s
	}
	x, y := p(), p()
	switch r.IntN(kinds) {
	case 0:
		return op{"mkdir " + x, errOp(func(s side) error { return s.mkdir(x) })}
	case 1:
		return op{"mkdirall " + x, errOp(func(s side) error { return s.mkdirAll(x) })}
	case 2:
		return op{"remove " + x, errOp(func(s side) error { return s.remove(x) })}
	case 3:
		return op{"removeall " + x, errOp(func(s side) error { return s.purge(x) })}
	case 4, 5:
		return op{"rename " + x + " " + y, errOp(func(s side) error { return s.rename(x, y) })}
	case 6:
		target := []string{"a", "b", "c/a", "a/b"}[r.IntN(4)]
		return op{"symlink " + target + " " + x, errOp(func(s side) error { return s.symlink(target, x) })}
	case 7:
		m := iofs.FileMode(0o700 | r.IntN(0o100))
		return op{fmt.Sprint("chmod ", m, " ", x), errOp(func(s side) error { return s.chmod(x, m) })}
	}
	return randomFileOp(r, x)
}

// randomFileOp opens a file, does things with the handle, and closes it.
func randomFileOp(r *rand.Rand, p string) op {
	flag := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR}[r.IntN(3)]
	for _, f := range []int{os.O_CREATE, os.O_TRUNC, os.O_APPEND, os.O_EXCL} {
		if r.IntN(3) == 0 || f == os.O_CREATE && r.IntN(3) > 0 {
			flag |= f
		}
	}
	if flag&os.O_CREATE == 0 {
		flag &^= os.O_EXCL // undefined without
	}
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		flag &^= os.O_TRUNC // as well
	}
	seed := r.Uint64()
	return op{fmt.Sprintf("file %s flags %x seed %d", p, flag, seed), func(s side) (string, error) {
		h, err := s.open(p, flag)
		if err != nil {
			return "", err
		}
		out, r := "", rand.New(rand.NewPCG(seed, 1))
		if i, err := h.Stat(); err != nil || i.IsDir() {
			return "directory", errors.Join(err, h.Close()) // what can be done with those differs from host to host
		}
		for range r.IntN(8) {
			out += fmt.Sprintln(fileStep(h, r))
		}
		return out, h.Close()
	}}
}

func fileStep(h handle, r *rand.Rand) (string, int64, string) {
	size := func() int {
		return []int{1, 100, fs.MinChunk - 1, fs.MinChunk, fs.MinChunk + 1, 3 * fs.MinChunk}[r.IntN(6)]
	}
	off := func() int64 {
		return int64([]int{0, 0, 1, 50, fs.MinChunk, fs.MinChunk + 7, 5 * fs.MinChunk}[r.IntN(7)])
	}
	said := func(what string, n int64, err error) (string, int64, string) {
		switch {
		case err == nil:
			return what, n, ""
		case errors.Is(err, io.EOF):
			return what, n, "EOF"
		}
		return what, n, "error"
	}
	switch r.IntN(7) {
	case 0, 1:
		n, err := h.Write(noise(r.Uint64(), size()))
		return said("write", int64(n), err)
	case 2:
		n, err := h.WriteAt(noise(r.Uint64(), size()), off())
		return said("writeat", int64(n), err)
	case 3:
		b := make([]byte, size())
		n, err := h.Read(b)
		return said(fmt.Sprintf("read %x", b[:n]), int64(n), err)
	case 4:
		b := make([]byte, size())
		n, err := h.ReadAt(b, off())
		return said(fmt.Sprintf("readat %x", b[:n]), int64(n), err)
	case 5:
		n, err := h.Seek(off()-3, r.IntN(3))
		return said("seek", n, err)
	}
	return said("truncate", 0, h.Truncate(off()))
}

// TestModel does random things with this file system and the host's and compares everything that can be seen.
func TestModel(t *testing.T) {
	runs := 60
	if testing.Short() {
		runs = 10
	}
	for seed := range uint64(runs) {
		model(t, seed, 150)
	}
}

func FuzzModel(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(func(t *testing.T, seed uint64) { model(t, seed, 100) })
}

func model(t *testing.T, seed uint64, steps int) {
	t.Helper()
	w := newWorld(t)
	dir := t.TempDir()
	their, our := host(dir), ours(t, w.volume(fs.MinChunk))
	r := rand.New(rand.NewPCG(seed, 2))
	var done []string
	for i := range steps {
		o := randomOp(r)
		done = append(done, o.name)
		wantOut, wantErr := o.do(their)
		gotOut, gotErr := o.do(our)
		if gotOut != wantOut || fs.Errno(gotErr) != fs.Errno(wantErr) {
			t.Fatalf("seed %d, step %d, %s:\n%.300s, %v; the host:\n%.300s, %v\nafter %q", seed, i, o.name, gotOut, gotErr, wantOut, wantErr, done)
		}
		if i%25 == 24 {
			if got, want := dump(t, our.tree()), dump(t, their.tree()); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d:\n%.2000q\nthe host:\n%.2000q\nafter %q", seed, i, got, want, done)
			}
			w.gc()
		}
	}
	consistent(t, w)
}

// consistent checks that nothing hangs in the air: every inode has one entry, every entry an inode, and after a collection every blob a file.
func consistent(t *testing.T, w *world) {
	t.Helper()
	w.gc()
	again := w.gc()
	if again.Swept != 0 || again.Trees != 0 || again.Volumes != 0 {
		t.Errorf("a second collection found something: %+v", again)
	}
	if b, u := w.keys("blob/"), w.keys("use/"); b != u || b != again.Live {
		t.Errorf("%d blobs, %d uses, %d live", b, u, again.Live)
	}
	vols, err := w.st.Volumes(t.Context())
	must(t, err)
	inodes, entries := 0, 0
	for _, name := range vols {
		f, err := w.st.Open(t.Context(), name)
		must(t, err)
		must(t, f.Walk(t.Context(), "/", func(_ string, d iofs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			entries++
			_, err = d.Info()
			return err
		}))
	}
	kvs, _, err := w.kv.ListPrefix(t.Context(), prefix+"tree/")
	must(t, err)
	for _, kv := range kvs {
		if kv.Key[len(prefix+"tree/0123456789abcdef/")] == 'i' {
			inodes++
		}
	}
	if inodes != entries {
		t.Errorf("%d inodes, %d paths", inodes, entries)
	}
}
