package template_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/template"
)

// tree makes files from lines: "dir/", "file=content", "link->target", "name!" (a whiteout, needs root).
func tree(t *testing.T, dir string, entries ...string) string {
	t.Helper()
	for _, e := range append([]string{"./"}, entries...) {
		var err error
		if path, ok := strings.CutSuffix(e, "/"); ok {
			err = os.MkdirAll(filepath.Join(dir, path), 0o755)
		} else if path, target, ok := strings.Cut(e, "->"); ok {
			err = os.Symlink(target, filepath.Join(dir, path))
		} else if path, content, ok := strings.Cut(e, "="); ok {
			err = os.WriteFile(filepath.Join(dir, path), []byte(content), 0o640)
		} else if path, ok := strings.CutSuffix(e, "!"); ok {
			if os.Geteuid() != 0 {
				t.Skip("whiteouts need root")
			}
			err = unix.Mknod(filepath.Join(dir, path), unix.S_IFCHR, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWriteFile(t *testing.T) {
	for _, tt := range []struct {
		name         string
		upper, lower []string
		path         string
		createOnly   bool
		where        string // in upper; empty: nothing may be written
		mode         fs.FileMode
	}{
		{name: "into an empty upper", lower: []string{"etc/"}, path: "/etc/hostname", where: "etc/hostname", mode: 0o644},
		{name: "without a leading slash", lower: []string{"etc/"}, path: "etc/hostname", where: "etc/hostname", mode: 0o644},
		{name: "keeps the mode of the lower file", lower: []string{"etc/", "etc/hostname=old"}, path: "/etc/hostname", where: "etc/hostname", mode: 0o640},
		{name: "missing directories", path: "/a/b/c", where: "a/b/c", mode: 0o644},
		{name: "create only, new", lower: []string{"etc/"}, path: "/etc/x", createOnly: true, where: "etc/x", mode: 0o644},
		{name: "create only, in lower", lower: []string{"etc/", "etc/x=old"}, path: "/etc/x", createOnly: true},
		{name: "absolute link of the lower", lower: []string{"usr/", "usr/etc/", "etc->/usr/etc"}, path: "/etc/x", where: "usr/etc/x", mode: 0o644},
		{name: "relative link of the upper", upper: []string{"real/", "etc->real"}, lower: []string{"etc/"}, path: "/etc/x", where: "real/x", mode: 0o644},
		{name: "link out of the root stays inside", upper: []string{"etc->../../../../tmp"}, path: "/etc/x", where: "tmp/x", mode: 0o644},
		{name: "dot dot stays inside", path: "/../../etc/x", where: "etc/x", mode: 0o644},
		{name: "last link is replaced", upper: []string{"etc/", "etc/hostname->/proc/sys/kernel/core_pattern"}, path: "/etc/hostname", where: "etc/hostname", mode: 0o644},
		{name: "whiteout of the file", upper: []string{"etc/", "etc/x!"}, lower: []string{"etc/", "etc/x=old"}, path: "/etc/x", where: "etc/x", mode: 0o644},
		{name: "whiteout of the directory", upper: []string{"etc!"}, lower: []string{"etc/", "etc/x=old"}, path: "/etc/x", createOnly: true, where: "etc/x", mode: 0o644},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l := template.Layers{Upper: tree(t, filepath.Join(dir, "upper"), tt.upper...), Lower: []string{tree(t, filepath.Join(dir, "lower"), tt.lower...)}}
			before := list(t, filepath.Join(dir, "lower"))
			if err := template.WriteFile(l, tt.path, []byte("new"), tt.createOnly); err != nil {
				t.Fatal(err)
			}
			if got := list(t, filepath.Join(dir, "lower")); got != before {
				t.Fatalf("lower layer changed: %s", got)
			}
			if got := list(t, dir); strings.Contains(got, ".shoal-") {
				t.Fatalf("temporary file left: %s", got)
			}
			if tt.where == "" {
				if got := list(t, l.Upper); strings.Contains(got, "=new") {
					t.Fatalf("written: %s", got)
				}
				return
			}
			st, err := os.Lstat(filepath.Join(l.Upper, tt.where))
			if err != nil || st.Mode() != tt.mode {
				t.Fatalf("%v %v, want mode %v", st, err, tt.mode)
			}
			if b, _ := os.ReadFile(filepath.Join(l.Upper, tt.where)); string(b) != "new" {
				t.Fatalf("content %q", b)
			}
		})
	}
}

func TestWriteFileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		upper []string
		path  string
	}{
		{"directory in the way", []string{"etc/", "etc/x/"}, "/etc/x"},
		{"file in the path", []string{"etc=x"}, "/etc/x"},
		{"link loop", []string{"a->b", "b->a"}, "/a/x"},
		{"root", nil, "/"},
		{"dot dot", nil, "/etc/.."},
		{"NUL", nil, "/etc/a\x00b"},
		{"too deep", nil, strings.Repeat("/d", 200)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree(t, filepath.Join(dir, "upper"), tt.upper...)
			before := list(t, dir)
			err := template.WriteFile(template.Layers{Upper: filepath.Join(dir, "upper")}, tt.path, []byte("new"), false)
			if err == nil {
				t.Fatal("accepted")
			}
			if after := list(t, dir); after != before {
				t.Fatalf("left something behind: %s", after)
			}
		})
	}
}

// list prints a tree: names, kinds and contents.
func list(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		b.WriteString(rel + " " + d.Type().String())
		if d.Type().IsRegular() {
			c, _ := os.ReadFile(path)
			b.WriteString("=" + string(c))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
