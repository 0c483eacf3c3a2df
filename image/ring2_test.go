package image_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
)

func need(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("mkfs.erofs"), testring.Binary("mksquashfs"), testring.Binary("unsquashfs"),
		testring.Filesystem("erofs"), testring.Filesystem("squashfs"))
}

// special is a tree with what a root file system has that plain files have not.
func special(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(tree, "dev"), 0o755))
	must(os.Chmod(tree, 0o755))
	must(os.WriteFile(filepath.Join(tree, "su"), bytes.Repeat([]byte("x"), 100000), 0o755))
	must(os.Chown(filepath.Join(tree, "su"), 0, 42))
	must(os.Chmod(filepath.Join(tree, "su"), 0o4755|os.ModeSetuid))
	must(os.Link(filepath.Join(tree, "su"), filepath.Join(tree, "su2")))
	must(unix.Mknod(filepath.Join(tree, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.Symlink("/etc/shadow", filepath.Join(tree, "link")))
	// CAP_NET_RAW, as ping has it: struct vfs_cap_data of version 2.
	must(unix.Setxattr(filepath.Join(tree, "su2"), "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	return tree
}

func squash(t *testing.T, tree string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "root.squashfs")
	cmd := run.Command{Name: "mksquashfs", Args: append([]string{tree, out, "-quiet", "-no-progress"}, args...)}
	if _, err := (run.Host{}).Run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mounts returns the mounts below dir.
func mounts(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir) {
			out = append(out, line)
		}
	}
	return out
}

func TestForms(t *testing.T) {
	need(t)
	body := squash(t, special(t), "-comp", "zstd")
	for form, fstype := range map[image.Form]string{"": "erofs", image.Erofs: "erofs", image.Squashfs: "squashfs", image.Directory: ""} {
		t.Run("form "+string(form), func(t *testing.T) {
			w := start(t, t.TempDir(), state.NewMemory(), form)
			if form == "" && w.Info().Form != image.Erofs {
				t.Errorf("the probe says %+v where erofs works", w.Info())
			}
			img, err := w.split(t, archive(t, metaFiles...), body, image.ImportRequest{})
			if err != nil {
				t.Fatal(err)
			}
			fp, _ := api.ParseFingerprint(img.Fingerprint)
			path, err := w.Mount(t.Context(), fp)
			if err != nil {
				t.Fatal(err)
			}
			checkSpecial(t, path)
			list := mounts(t, w.dir)
			if (fstype == "" && len(list) != 0) || (fstype != "" && (len(list) != 1 || !strings.Contains(list[0], " - "+fstype+" "))) {
				t.Errorf("mounts %v, want one of %q", list, fstype)
			}
			if fstype != "" && (!strings.Contains(list[0], " ro,nodev") || strings.Contains(list[0], "nosuid")) {
				t.Errorf("mount options: %s", list[0])
			}
			w.Close()
			w = start(t, w.dir, w.db, form) // a restart finds the mount
			again, err := w.Mount(t.Context(), fp)
			if err != nil || again != path || len(mounts(t, w.dir)) != len(list) {
				t.Errorf("mounted again at %s (%v), mounts %v", again, err, mounts(t, w.dir))
			}
			if err := w.Delete(t.Context(), project, img.Fingerprint); err != nil {
				t.Fatal(err)
			}
			if left := append(w.left(t), mounts(t, w.dir)...); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func checkSpecial(t *testing.T, path string) {
	t.Helper()
	var su, su2, null, root unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"su": &su, "su2": &su2, "dev/null": &null, ".": &root} {
		if err := unix.Lstat(filepath.Join(path, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if su.Mode != unix.S_IFREG|0o4755 || su.Gid != 42 || su.Ino != su2.Ino || su.Size != 100000 {
		t.Errorf("setuid file: %+v, its other name has inode %d", su, su2.Ino)
	}
	if null.Mode&unix.S_IFMT != unix.S_IFCHR || null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: %+v", null)
	}
	if root.Mode&0o7777 != 0o755 {
		t.Errorf("root directory has mode %o", root.Mode)
	}
	if n, err := unix.Getxattr(filepath.Join(path, "su"), "security.capability", make([]byte, 64)); err != nil || n != 20 {
		t.Errorf("file capability: %d bytes, %v", n, err)
	}
	if to, err := os.Readlink(filepath.Join(path, "link")); to != "/etc/shadow" {
		t.Errorf("link %q, %v", to, err)
	}
}

// TestTruncatedSquashfs cuts a real squashfs at many places; the superblock alone does not show most of them.
func TestTruncatedSquashfs(t *testing.T) {
	need(t)
	w := start(t, t.TempDir(), state.NewMemory(), "")
	tree, noise := special(t), make([]byte, 300000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	if err := os.WriteFile(filepath.Join(tree, "noise"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	body := squash(t, tree, "-nopad")
	meta := archive(t, metaFiles...)
	for at := 0; at < len(body); at += len(body)/20 + 1 {
		if _, err := w.split(t, meta, body[:at], image.ImportRequest{}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("cut at %d of %d: %v", at, len(body), err)
		}
	}
	damaged := bytes.Clone(body) // the lengths are right, the tables are not
	for i := len(damaged) / 2; i < len(damaged); i++ {
		damaged[i] ^= 0x5a
	}
	if _, err := w.split(t, meta, damaged, image.ImportRequest{}); !errs.Is(err, errs.InvalidInput) && !errs.Is(err, errs.TooLargeClass) {
		t.Errorf("damaged: %v", err)
	}
	if left := w.left(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnifiedXZ(t *testing.T) {
	need(t)
	testring.Need(t, 2, testring.Binary("xz"))
	var packed bytes.Buffer
	_, err := run.Host{}.Run(t.Context(), run.Command{Name: "xz", Args: []string{"--stdout"}, Stdin: bytes.NewReader(archive(t, unifiedFiles()...)), Stdout: &packed})
	if err != nil {
		t.Fatal(err)
	}
	body := packed.Bytes()
	w := start(t, t.TempDir(), state.NewMemory(), "")
	for at := 0; at < len(body); at += 50 {
		if _, err := w.Import(t.Context(), bytes.NewReader(body[:at]), nil, "", image.ImportRequest{Project: project}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("cut at %d of %d: %v", at, len(body), err)
		}
	}
	img, err := w.Import(t.Context(), bytes.NewReader(body), nil, "", image.ImportRequest{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	if img.Fingerprint != sum(body) {
		t.Errorf("fingerprint %s", img.Fingerprint)
	}
	if left := w.left(t); len(left) != 1 {
		t.Errorf("in the store: %v", left)
	}
}

// TestDiskFull imports into a filesystem that is too small: for the upload, and for what it unpacks to.
func TestDiskFull(t *testing.T) {
	need(t)
	testring.Need(t, 2, testring.Binary("mkfs.ext4"))
	base := t.TempDir()
	disk, dir := filepath.Join(base, "disk.img"), filepath.Join(base, "mnt")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := (run.Host{}).Run(t.Context(), run.Command{Name: "mkfs.ext4", Args: []string{"-q", "-m", "0"}, Operands: []string{disk}}); err != nil {
		t.Fatal(err)
	}
	loop, err := fsmount.AttachLoop(disk, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err = fsmount.Mount("ext4", []fsmount.Option{{Key: "source", Value: loop.Path}}, 0, dir)
	loop.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fsmount.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	tree := special(t)
	if err := os.WriteFile(filepath.Join(tree, "zeros"), make([]byte, 200<<20), 0o600); err != nil { // a bomb: it packs to nothing
		t.Fatal(err)
	}
	bomb := squash(t, tree)
	meta := archive(t, metaFiles...)
	w := start(t, dir, state.NewMemory(), "")
	noise := make([]byte, 80<<20)
	for i := range noise {
		noise[i] = byte(i*i>>7 ^ i)
	}
	tarBomb := archive(t, append([]file{{name: "zeros", body: string(make([]byte, 80<<20))}}, rootFiles...)...)
	var packed bytes.Buffer
	_, err = run.Host{}.Run(t.Context(), run.Command{Name: "xz", Args: []string{"--stdout", "-0"}, Stdin: bytes.NewReader(tarBomb), Stdout: &packed})
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string][]byte{"upload": noise, "squashfs bomb": bomb, "tar bomb": packed.Bytes()} {
		if _, err := w.split(t, meta, root, image.ImportRequest{}); !errs.Is(err, errs.NoSpaceClass) {
			t.Errorf("%s: %v (class %v), want no space", name, err, errs.ClassOf(err))
		}
	}
	w.Close()
	w = start(t, dir, w.db, "")
	// Space came back and it works again.
	img, err := w.split(t, meta, squash(t, special(t)), image.ImportRequest{})
	if err != nil {
		t.Fatalf("after the bombs: %v", err)
	}
	if err := w.Delete(t.Context(), project, img.Fingerprint); err != nil {
		t.Fatal(err)
	}
	if left := w.left(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
