package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/state"
)

var _ instance.ImageStore = (*image.Service)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var project = api.DefaultProject

type world struct {
	*image.Service
	dir string
	db  *state.DB
}

func start(t testing.TB, dir string, db *state.DB, form image.Form) *world {
	t.Helper()
	s, err := image.New(t.Context(), image.Deps{
		Dir: dir, State: db, Runner: run.Host{}, Clock: clock.Real{}, Logger: slog.New(slog.DiscardHandler), Form: form,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &world{s, dir, db}
}

// plain starts a service that unpacks to directories: it needs neither root nor programs.
func plain(t testing.TB) *world { return start(t, t.TempDir(), state.NewMemory(), image.Directory) }

// left returns what is in the image directory.
func (w *world) left(t testing.TB) []string {
	t.Helper()
	if err := w.Close(); err != nil { // ends removals
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

type file struct {
	name string
	body string
	kind byte // 0: file or, with a trailing slash, directory
	link string
	mode int64
}

const goodMeta = "architecture: x86_64\ncreation_date: 1795252491\nproperties: {os: Debian, release: bookworm}\n" +
	"templates: {/etc/hostname: {when: [create], template: hostname.tpl}}\n"

var metaFiles = []file{{name: "metadata.yaml", body: goodMeta}, {name: "templates/"}, {name: "templates/hostname.tpl", body: "{{ container.name }}"}}

var rootFiles = []file{{name: "./"}, {name: "./etc/"}, {name: "./etc/os-release", body: "ID=debian\n"}, {name: "./bin", kind: tar.TypeSymlink, link: "usr/bin"}}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.body)), Typeflag: f.kind, Linkname: f.link, Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}
		switch {
		case f.kind != 0:
			h.Size = 0
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		default:
			h.Typeflag = tar.TypeReg
		}
		if f.mode != 0 {
			h.Mode = f.mode
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, f.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unifiedFiles() []file {
	files := append([]file{}, metaFiles...)
	for _, f := range rootFiles {
		f.name = "rootfs/" + strings.TrimPrefix(f.name, "./")
		files = append(files, f)
	}
	return files
}

func sum(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (w *world) split(t testing.TB, meta, root []byte, req image.ImportRequest) (*api.Image, error) {
	t.Helper()
	req.Project = project
	return w.Import(t.Context(), bytes.NewReader(meta), bytes.NewReader(root), image.Rootfs, req)
}

func TestSplitTar(t *testing.T) {
	w := plain(t)
	meta, root := archive(t, metaFiles...), archive(t, rootFiles...)
	img, err := w.split(t, meta, root, image.ImportRequest{Filename: "../../rootfs.tar", Public: true, Aliases: []api.ImageAlias{{Name: "deb/12"}}})
	if err != nil {
		t.Fatal(err)
	}
	if img.Fingerprint != sum(meta, root) || img.Size != int64(len(meta)+len(root)) || img.Filename != "rootfs.tar" || !img.Public ||
		img.Type != "container" || img.Architecture != "x86_64" || img.Properties["os"] != "Debian" || img.CreatedAt.Unix() != 1795252491 ||
		img.ExpiresAt.Unix() != 0 || len(img.Aliases) != 1 || img.Aliases[0].Name != "deb/12" || len(img.Profiles) != 1 {
		t.Errorf("image %+v", img)
	}
	fp, _ := api.ParseFingerprint(img.Fingerprint)
	path, err := w.Mount(t.Context(), fp)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(path, "etc/os-release")); string(b) != "ID=debian\n" {
		t.Errorf("root file system: %q, %v", b, err)
	}
	m, err := w.Metadata(t.Context(), fp)
	if err != nil || m.Templates["/etc/hostname"].Template != "hostname.tpl" {
		t.Errorf("metadata %+v, %v", m, err)
	}
	if b, err := w.Template(t.Context(), fp, "hostname.tpl"); string(b) != "{{ container.name }}" {
		t.Errorf("template %q, %v", b, err)
	}
	for _, bad := range []string{"../metadata.yaml", "/etc/passwd", "", ".", "nothing"} {
		if _, err := w.Template(t.Context(), fp, bad); err == nil {
			t.Errorf("template %q was read", bad)
		}
	}
	files, err := w.Export(t.Context(), project, img.Fingerprint[:12])
	if err != nil || len(files) != 2 {
		t.Fatalf("export %v, %v", files, err)
	}
	for i, want := range [][]byte{meta, root} {
		got, err := io.ReadAll(files[i])
		files[i].Close()
		if !bytes.Equal(got, want) {
			t.Errorf("export part %d: %d bytes, %v; want %d", i, len(got), err, len(want))
		}
	}
	if files[0].Filename != "meta-"+img.Fingerprint+".tar" || files[1].Part != image.Rootfs {
		t.Errorf("export names %+v", files)
	}
}

func TestUnified(t *testing.T) {
	for name, pack := range map[string]func(b []byte) []byte{
		"plain": func(b []byte) []byte { return b },
		"gzip": func(b []byte) []byte {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			z.Write(b)
			z.Close()
			return out.Bytes()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := plain(t)
			body := pack(archive(t, unifiedFiles()...))
			img, err := w.Import(t.Context(), bytes.NewReader(body), nil, "", image.ImportRequest{Project: project, Properties: map[string]string{"own": "yes", "release": "mine"}})
			if err != nil {
				t.Fatal(err)
			}
			if img.Fingerprint != sum(body) || img.Properties["own"] != "yes" || img.Properties["release"] != "mine" || img.Properties["os"] != "Debian" {
				t.Errorf("image %+v", img)
			}
			fp, _ := api.ParseFingerprint(img.Fingerprint)
			path, err := w.Mount(t.Context(), fp)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(path, "etc/os-release")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestImportIsRefused(t *testing.T) {
	meta, root := archive(t, metaFiles...), archive(t, rootFiles...)
	for name, c := range map[string]struct {
		meta, root []byte
		req        image.ImportRequest
		class      errs.Class
		says       string
	}{
		"other fingerprint":      {meta, root, image.ImportRequest{Fingerprint: strings.Repeat("a", 64)}, errs.InvalidInput, "fingerprints don't match, got " + sum(meta, root)},
		"hostile fingerprint":    {meta, root, image.ImportRequest{Fingerprint: "../../x"}, errs.InvalidInput, "fingerprints don't match"},
		"bad alias":              {meta, root, image.ImportRequest{Aliases: []api.ImageAlias{{Name: "../x"}}}, errs.InvalidInput, "alias"},
		"bad property":           {meta, root, image.ImportRequest{Properties: map[string]string{"a\nb": "c"}}, errs.InvalidInput, "control"},
		"empty metadata":         {nil, root, image.ImportRequest{}, errs.InvalidInput, "not a tar archive"},
		"empty rootfs":           {meta, nil, image.ImportRequest{}, errs.InvalidInput, "neither squashfs"},
		"wrong magic":            {meta, bytes.Repeat([]byte("x"), 4096), image.ImportRequest{}, errs.InvalidInput, "neither squashfs"},
		"squashfs of four bytes": {meta, []byte("hsqs"), image.ImportRequest{}, errs.InvalidInput, "truncated"},
		"squashfs of zeros":      {meta, append([]byte("hsqs"), make([]byte, 8192)...), image.ImportRequest{}, errs.InvalidInput, "squashfs"},
		"no metadata.yaml":       {archive(t, metaFiles[1:]...), root, image.ImportRequest{}, errs.InvalidInput, "no metadata.yaml"},
		"metadata.yaml is a link": {archive(t, file{name: "metadata.yaml", kind: tar.TypeSymlink, link: "/etc/passwd"}), root,
			image.ImportRequest{}, errs.InvalidInput, "not a regular file"},
		"metadata.yaml links to templates": {archive(t, file{name: "templates/"}, file{name: "templates/m", body: goodMeta}, file{name: "metadata.yaml", kind: tar.TypeSymlink, link: "templates/m"}), root,
			image.ImportRequest{}, errs.InvalidInput, "not a regular file"},
		"metadata.yaml is a directory": {archive(t, file{name: "metadata.yaml/"}), root, image.ImportRequest{}, errs.InvalidInput, "not a regular file"},
		"huge metadata.yaml": {archive(t, file{name: "metadata.yaml", body: goodMeta + strings.Repeat("#", 2<<20)}), root,
			image.ImportRequest{}, errs.TooLargeClass, "metadata.yaml"},
		"template is a link": {archive(t, metaFiles[0], metaFiles[1], file{name: "templates/hostname.tpl", kind: tar.TypeSymlink, link: "/etc/shadow"}), root,
			image.ImportRequest{}, errs.InvalidInput, "hostname.tpl"},
		"template is missing":   {archive(t, metaFiles[0]), root, image.ImportRequest{}, errs.InvalidInput, "hostname.tpl"},
		"rootfs climbs":         {meta, archive(t, file{name: "../evil", body: "x"}), image.ImportRequest{}, errs.InvalidInput, "evil"},
		"rootfs.img is no disk": {meta, root, image.ImportRequest{Filename: "part:rootfs.img"}, errs.InvalidInput, "qcow2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := plain(t)
			part := image.Rootfs
			if c.req.Filename == "part:rootfs.img" {
				part = image.RootfsImage
			}
			c.req.Project = project
			_, err := w.Import(t.Context(), bytes.NewReader(c.meta), bytes.NewReader(c.root), part, c.req)
			if err == nil || !errs.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (class %v), want class %v and %q", err, errs.ClassOf(err), c.class, c.says)
			}
			if n := len(w.List(project)); n != 0 {
				t.Errorf("%d images after a refusal", n)
			}
			if left := w.left(t); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestTruncated cuts both forms at every few bytes: none may become an image, none may leave anything.
func TestTruncated(t *testing.T) {
	w := plain(t)
	meta, root, whole := archive(t, metaFiles...), archive(t, rootFiles...), archive(t, unifiedFiles()...)
	step := 97
	for at := 0; at < len(whole)-1024; at += step {
		if _, err := w.Import(t.Context(), bytes.NewReader(whole[:at]), nil, "", image.ImportRequest{Project: project}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("unified archive cut at %d: %v", at, err)
		}
	}
	for at := 0; at < len(meta)-1024; at += step {
		if _, err := w.split(t, meta[:at], root, image.ImportRequest{}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("metadata cut at %d: %v", at, err)
		}
	}
	for at := 0; at < len(root)-1024; at += step {
		if _, err := w.split(t, meta, root[:at], image.ImportRequest{}); !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("rootfs cut at %d: %v", at, err)
		}
	}
	if left := w.left(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// broken is a client that goes away.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestClientGoesAway(t *testing.T) {
	w := plain(t)
	meta, root := archive(t, metaFiles...), archive(t, rootFiles...)
	_, err := w.Import(t.Context(), bytes.NewReader(meta), broken{bytes.NewReader(root)}, image.Rootfs, image.ImportRequest{Project: project})
	if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Import(ctx, bytes.NewReader(meta), bytes.NewReader(root), image.Rootfs, image.ImportRequest{Project: project}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left := w.left(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestHoldersKeepContent(t *testing.T) {
	w := plain(t)
	img, err := w.split(t, archive(t, metaFiles...), archive(t, rootFiles...), image.ImportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	fp, _ := api.ParseFingerprint(img.Fingerprint)
	for range 2 {
		if err := w.Hold(t.Context(), fp, "instance/default/c1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Hold(t.Context(), fp, "instance/default/c2"); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), project, img.Fingerprint[:8]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(project, img.Fingerprint); !errs.IsNotFound(err) || err.Error() != "Image not found" {
		t.Errorf("deleted image: %v", err)
	}
	w.Close()
	w = start(t, w.dir, w.db, image.Directory) // a restart in between
	if err := w.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Release(t.Context(), fp, "instance/default/c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Mount(t.Context(), fp); err != nil {
		t.Errorf("mount of a deleted image that is held: %v", err)
	}
	for range 2 {
		if err := w.Release(t.Context(), fp, "instance/default/c2"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Mount(t.Context(), fp); !errs.IsNotFound(err) {
		t.Errorf("mount of content that is gone: %v", err)
	}
	if err := w.Hold(t.Context(), fp, "instance/default/c3"); !errs.IsNotFound(err) {
		t.Errorf("hold of content that is gone: %v", err)
	}
	if left := w.left(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSameImageAgain(t *testing.T) {
	w := plain(t)
	meta, root := archive(t, metaFiles...), archive(t, rootFiles...)
	img, err := w.split(t, meta, root, image.ImportRequest{Aliases: []api.ImageAlias{{Name: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.split(t, meta, root, image.ImportRequest{})
	if !errs.IsExists(err) || err.Error() != "Image with same fingerprint already exists" {
		t.Errorf("same project: %v", err)
	}
	blue, _ := api.ParseProjectName("blue")
	if _, err := w.Import(t.Context(), bytes.NewReader(meta), bytes.NewReader(root), image.Rootfs, image.ImportRequest{Project: blue}); err != nil {
		t.Fatalf("other project: %v", err)
	}
	if err := w.Delete(t.Context(), project, img.Fingerprint); err != nil {
		t.Fatal(err)
	}
	fp, _ := api.ParseFingerprint(img.Fingerprint)
	if _, err := w.Mount(t.Context(), fp); err != nil {
		t.Errorf("the other project lost its image: %v", err)
	}
	if got := w.ListAliases(project); len(got) != 0 {
		t.Errorf("aliases of a deleted image: %v", got)
	}
	other := archive(t, append([]file{{name: "x", body: "1"}}, rootFiles...)...)
	if _, err := w.split(t, meta, root, image.ImportRequest{Aliases: []api.ImageAlias{{Name: "a"}}}); err != nil {
		t.Fatal(err)
	}
	_, err = w.split(t, meta, other, image.ImportRequest{Aliases: []api.ImageAlias{{Name: "a"}}})
	if !errs.IsExists(err) || err.Error() != "Alias already exists: a" {
		t.Errorf("taken alias: %v", err)
	}
	if left := w.left(t); len(left) != 1 {
		t.Errorf("in the store: %v", left)
	}
}

func TestConcurrentImports(t *testing.T) {
	w := plain(t)
	meta, root := archive(t, metaFiles...), archive(t, rootFiles...)
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			_, err := w.Import(t.Context(), bytes.NewReader(meta), bytes.NewReader(root), image.Rootfs, image.ImportRequest{Project: project})
			results <- err
		}()
	}
	won := 0
	for range cap(results) {
		err := <-results
		if err == nil {
			won++
		} else if !errs.IsExists(err) {
			t.Errorf("loser: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 imports of one image succeeded", won)
	}
	if left := w.left(t); len(left) != 1 {
		t.Errorf("in the store: %v", left)
	}
}

func TestResolveAndAliases(t *testing.T) {
	w := plain(t)
	meta := archive(t, metaFiles...)
	var fps []string
	for _, body := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17"} {
		img, err := w.split(t, meta, archive(t, append([]file{{name: "f", body: body}}, rootFiles...)...), image.ImportRequest{})
		if err != nil {
			t.Fatal(err)
		}
		fps = append(fps, img.Fingerprint)
	}
	byFirst := map[byte][]string{}
	for _, fp := range fps {
		byFirst[fp[0]] = append(byFirst[fp[0]], fp)
	}
	for c, same := range byFirst { // 17 images, 16 digits: at least one is ambiguous
		if _, err := w.Get(project, string(c)); (err == nil) != (len(same) == 1) {
			t.Errorf("prefix %c of %d images: %v", c, len(same), err)
		}
	}
	name, _ := api.ParseAliasName("debian/12")
	if err := w.CreateAlias(t.Context(), project, alias("debian/12", fps[0])); err != nil {
		t.Fatal(err)
	}
	if err := w.CreateAlias(t.Context(), project, alias("debian/12", fps[1])); !errs.IsExists(err) || err.Error() != `Alias "debian/12" already exists` {
		t.Errorf("taken alias: %v", err)
	}
	if err := w.CreateAlias(t.Context(), project, alias("x", strings.Repeat("0", 64))); err == nil || err.Error() != "Image not found" {
		t.Errorf("alias of nothing: %v", err)
	}
	if err := w.UpdateAlias(t.Context(), project, name, api.ImageAliasesEntryPut{Target: fps[2], Description: "d"}); err != nil {
		t.Fatal(err)
	}
	if err := w.RenameAlias(t.Context(), project, name, "new"); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"new": fps[2], fps[3]: fps[3], fps[4][:20]: fps[4]} {
		img, err := w.Resolve(t.Context(), project, ref)
		if err != nil || img.Fingerprint != want {
			t.Errorf("resolve %q: %v, %v", ref, img, err)
		}
	}
	blue, _ := api.ParseProjectName("blue")
	for ref, says := range map[string]string{"debian/12": "Image alias not found", strings.Repeat("0", 64): "Image not found", "%": "Image alias not found", "../x": "Image alias not found"} {
		if _, err := w.Resolve(t.Context(), project, ref); !errs.IsNotFound(err) || err.Error() != says {
			t.Errorf("resolve %q: %v, want %q", ref, err, says)
		}
	}
	if _, err := w.Resolve(t.Context(), blue, "new"); !errs.IsNotFound(err) {
		t.Errorf("alias of another project: %v", err)
	}
	put := api.ImagePut{Public: true, Properties: map[string]string{"a": "b"}}
	if err := w.Update(t.Context(), project, fps[2], put); err != nil {
		t.Fatal(err)
	}
	if img, _ := w.Get(project, fps[2]); !img.Public || img.Properties["a"] != "b" || img.Aliases[0].Description != "d" || len(img.Profiles) != 1 {
		t.Errorf("updated image %+v", img)
	}
	newName, _ := api.ParseAliasName("new")
	if err := w.DeleteAlias(t.Context(), project, newName); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteAlias(t.Context(), project, newName); err == nil || err.Error() != "Image alias not found" {
		t.Errorf("deleted alias: %v", err)
	}
}

func alias(name, target string) api.ImageAliasesPost {
	a := api.ImageAliasesPost{Name: name}
	a.Target = target
	return a
}

// TestSweep starts on what crashes leave: staging, content without a marker, content without a record.
func TestSweep(t *testing.T) {
	w := plain(t)
	img, err := w.split(t, archive(t, metaFiles...), archive(t, rootFiles...), image.ImportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(w.dir, "images")
	half, lost := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, d := range []string{".shoal-tmp-ABC/rootfs/etc", half + "/rootfs", lost} {
		if err := os.MkdirAll(filepath.Join(images, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(images, lost, "image.json"), []byte(`{"version":1,"type":"container","form":"directory"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w = start(t, w.dir, w.db, image.Directory)
	fp, _ := api.ParseFingerprint(half)
	if _, err := w.Mount(t.Context(), fp); !errs.IsNotFound(err) {
		t.Errorf("half an image was mounted: %v", err)
	}
	if err := w.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := w.left(t); len(left) != 1 || left[0] != img.Fingerprint {
		t.Errorf("in the store: %v", left)
	}
}

func TestVirtualMachineImage(t *testing.T) {
	w := plain(t)
	meta, disk := archive(t, metaFiles...), make([]byte, 4096)
	copy(disk, "QFI\xfb\x00\x00\x00\x03")
	disk[23], disk[28] = 16, 1 // clusters of 64 KiB, 16 MiB in all
	img, err := w.Import(t.Context(), bytes.NewReader(meta), bytes.NewReader(disk), image.RootfsImage, image.ImportRequest{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	fp, _ := api.ParseFingerprint(img.Fingerprint)
	if _, err := w.Mount(t.Context(), fp); img.Type != "virtual-machine" || !errs.Is(err, errs.InvalidInput) {
		t.Errorf("type %s, mount: %v", img.Type, err)
	}
	files, err := w.Export(t.Context(), project, img.Fingerprint)
	if err != nil || len(files) != 2 || files[1].Part != image.RootfsImage || !strings.HasSuffix(files[1].Filename, ".qcow2") {
		t.Errorf("export %+v, %v", files, err)
	}
	for _, f := range files {
		f.Close()
	}
	disk[15] = 200 // a backing file
	if _, err := w.Import(t.Context(), bytes.NewReader(meta), bytes.NewReader(disk), image.RootfsImage, image.ImportRequest{Project: project}); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("disk with a backing file: %v", err)
	}
}
