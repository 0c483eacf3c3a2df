package aferofs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/world/fs"
	"github.com/shoal-project/shoal/world/fs/aferofs"
)

func volume(t *testing.T) *fs.FS {
	t.Helper()
	kv := kvstore.New(mem.New(), kvstore.Config{})
	t.Cleanup(func() { _ = kv.Close() })
	st, err := fs.New(fs.Deps{KV: kv, Prefix: "/t/"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := st.Create(t.Context(), "v", fs.VolumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestHelpers uses the file system through afero's helpers, as programs do.
func TestHelpers(t *testing.T) {
	a := aferofs.New(t.Context(), volume(t))
	if err := afero.WriteReader(a, "/a/b/c.txt", strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	if err := a.SymlinkIfPossible("b/c.txt", "/a/link"); err != nil {
		t.Fatal(err)
	}
	if err := a.SymlinkIfPossible("x", "/a/link"); !os.IsExist(err) {
		t.Errorf("link over a link: %v", err)
	}
	if ok, err := afero.FileContainsBytes(a, "/a/link", []byte("ell")); err != nil || !ok {
		t.Errorf("the link's content: %v, %v", ok, err)
	}
	found, err := afero.Glob(a, "/a/*/*.txt")
	if err != nil || len(found) != 1 || found[0] != "/a/b/c.txt" {
		t.Errorf("glob: %q, %v", found, err)
	}
	over := afero.NewCopyOnWriteFs(afero.NewReadOnlyFs(a), afero.NewMemMapFs())
	if err := afero.WriteFile(over, "/a/b/c.txt", []byte("layer"), 0o600); err != nil {
		t.Error(err)
	}
	if b, err := afero.ReadFile(a, "/a/b/c.txt"); err != nil || string(b) != "hello" {
		t.Errorf("below the layer: %q, %v", b, err)
	}
}

// enter has afero's tests, which are inside its package, test a volume too.
const enter = `package afero

import (
	"context"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/world/fs"
)

func init() {
	st, err := fs.New(fs.Deps{KV: kvstore.New(mem.New(), kvstore.Config{}), Prefix: "/t/"})
	if err != nil {
		panic(err)
	}
	f, err := st.Create(context.Background(), "v", fs.VolumeOptions{})
	if err != nil {
		panic(err)
	}
	if err := f.Mkdir(context.Background(), "/tmp", 0o777); err != nil {
		panic(err)
	}
	Fss = append(Fss, New(context.Background(), f))
}
`

// TestAfero runs afero's own tests with a volume in their list of file systems. They can be run in afero's package only, which our
// adapter imports: so a copy of the package is made that has the adapter inside.
func TestAfero(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a copy of afero")
	}
	goCmd := func(dir string, args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("SKIP: needs the go command, as a build of shoal does")
	}
	top, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	src, dir := strings.TrimSpace(goCmd(".", "list", "-m", "-f", "{{.Dir}}", "github.com/spf13/afero")), t.TempDir()
	edit := func(to, s string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(s, `"github.com/spf13/afero`, `"copy.test/afero`)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(p string) string {
		t.Helper()
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, part := range []string{"*.go", "mem/*.go", "internal/*/*.go"} {
		found, err := filepath.Glob(filepath.Join(src, part))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", part, found, err)
		}
		for _, p := range found {
			edit(filepath.Join(dir, strings.TrimPrefix(p, src)), read(p))
		}
	}
	for _, name := range []string{"aferofs.go", "file.go"} {
		// Inside the package its names need no prefix, and Fs is its own.
		s := strings.NewReplacer("package aferofs\n", "package afero\n", "\t\"github.com/spf13/afero\"\n", "", "afero.", "@").Replace(read(name))
		s = regexp.MustCompile(`(^|[^@])\bFs\b`).ReplaceAllString(s, "${1}shoalFs")
		edit(filepath.Join(dir, "adapter_"+name), strings.ReplaceAll(s, "@", ""))
	}
	edit(filepath.Join(dir, "adapter_test.go"), enter)
	mod := strings.Replace(read(filepath.Join(top, "go.mod")), "module github.com/shoal-project/shoal", "module copy.test/afero", 1)
	edit(filepath.Join(dir, "go.mod"), mod+"\nrequire github.com/shoal-project/shoal v0.0.0\n\nreplace github.com/shoal-project/shoal => "+top+"\n")
	edit(filepath.Join(dir, "go.sum"), read(filepath.Join(top, "go.sum")))
	out := goCmd(dir, "test", "-vet=off", "-v", ".")
	if !strings.Contains(out, "--- PASS: TestRename ") || strings.Contains(out, "FAIL") {
		t.Errorf("afero's tests did not run:\n%s", out)
	}
	t.Logf("%d of afero's tests passed", strings.Count(out, "--- PASS: "))
}
