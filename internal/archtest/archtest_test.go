package archtest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/internal/archtest"
)

const root = "../.."

func TestTheHouseIsInOrder(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []archtest.Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p archtest.Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 20 {
		t.Fatalf("go list found %d packages only", len(packages))
	}
	for _, breach := range archtest.Check(packages) {
		t.Error(breach)
	}
}

// The rules themselves must bite: each import here is one that nobody may make.
func TestBreachesAreSeen(t *testing.T) {
	pkg := func(path string, imports ...string) archtest.Package {
		for i, imp := range imports {
			if strings.HasPrefix(imp, "./") {
				imports[i] = archtest.Module + imp[1:]
			}
		}
		return archtest.Package{ImportPath: archtest.Module + "/" + path, Doc: "x", Imports: imports}
	}
	for _, tt := range []struct {
		name string
		pkg  archtest.Package
		want string // "" when all is well
	}{
		{"lower line", pkg("instance", "./network", "./internal/state", "os"), ""},
		{"inside a room", pkg("network", "./network/dhcp"), ""},
		{"higher line", pkg("network", "./instance"), "lower lines"},
		{"same line", pkg("storage", "./image"), "lower lines"},
		{"same line, leaf", pkg("internal/fsroot", "./internal/run"), "lower lines"},
		{"new room", pkg("toolbox"), "no place"},
		{"util", pkg("internal/util"), "no place"},
		{"driver of its own room", pkg("instance", "./instance/oci"), "only internal/daemon may"},
		{"driver of another room", pkg("instance", "./storage/btrfs"), "only internal/daemon may"},
		{"driver from rest", pkg("internal/rest", "./instance/oci"), "only internal/daemon may"},
		{"daemon composes", pkg("internal/daemon", "./instance/oci", "./storage/btrfs", "./kvstore/etcd", "./elastic", "./internal/rest"), ""},
		{"program run directly", pkg("storage/btrfs", "os/exec"), "one door"},
		{"etcd", pkg("internal/state", "go.etcd.io/etcd/client/v3"), "speaks to kvstore"},
		{"netlink", pkg("internal/rest", "github.com/vishvananda/netlink"), "changed in one room"},
		{"netlink in oci", pkg("instance/oci", "github.com/vishvananda/netlink"), ""},
		{"api", pkg("api", "go.yaml.in/yaml/v3"), "standard library"},
		{"api and the house", pkg("api", "./internal/errs"), "line 0"},
		{"client", pkg("client", "./internal/errs"), "it may import"},
		{"cli", pkg("internal/cli", "./instance"), "it may import"},
		{"shim", pkg("cmd/shoal-shim", "./internal/errs"), "it may import"},
		{"test tool", pkg("instance", "./internal/testring"), "for tests only"},
		{"testing", pkg("instance", "testing"), "stays out"},
		{"no comment", archtest.Package{ImportPath: archtest.Module + "/api"}, "no package comment"},
	} {
		got := archtest.Check([]archtest.Package{tt.pkg})
		if tt.want == "" && len(got) > 0 {
			t.Errorf("%s: %v", tt.name, got)
		}
		if tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, got, tt.want)
		}
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	for _, g := range archtest.OnlyFrom() {
		if g.Reason == "" || len(g.From) == 0 {
			t.Errorf("%s: %+v", g.Package, g)
		}
	}
	for _, d := range archtest.OnlyThese() {
		if d.Reason == "" {
			t.Errorf("%s has no reason", d.Package)
		}
	}
}

// eachFile parses every Go file of the module.
func eachFile(t *testing.T, do func(path string, set *token.FileSet, f *ast.File)) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		do(rel, set, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Nobody can read in one sitting what is longer, and state that starts before main cannot be given or tested.
func TestShape(t *testing.T) {
	eachFile(t, func(path string, set *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		if n := set.File(f.Pos()).LineCount(); n > archtest.MaxFileLines {
			t.Errorf("%s has %d lines, at most %d", path, n, archtest.MaxFileLines)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > archtest.MaxFuncLines {
				t.Errorf("%s: %s has %d lines, at most %d", path, fn.Name.Name, n, archtest.MaxFuncLines)
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: give what it sets up to New", path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if is(n, "context", "TODO") {
				t.Errorf("%s: context.TODO: whose context is it?", set.Position(n.Pos()))
			}
			return true
		})
	})
}

// A test that sleeps and then looks is slow on a fast machine and fails on a slow one. Sleeping inside a loop is polling, and
// under testing/synctest the clock is not real.
func TestTestsDoNotSleep(t *testing.T) {
	eachFile(t, func(path string, set *token.FileSet, f *ast.File) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, imp := range f.Imports {
			if imp.Path.Value == `"testing/synctest"` {
				return
			}
		}
		for _, pos := range bareSleeps(f) {
			t.Errorf("%s: a bare time.Sleep: poll with a deadline, or use testing/synctest", set.Position(pos))
		}
	})
}

func bareSleeps(f *ast.File) []token.Pos {
	var out []token.Pos
	var walk func(n ast.Node, looping bool)
	walk = func(root ast.Node, looping bool) {
		ast.Inspect(root, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ForStmt:
				if n != root {
					walk(n, true)
					return false
				}
			case *ast.RangeStmt:
				if n != root {
					walk(n, true)
					return false
				}
			}
			if !looping && is(n, "time", "Sleep") {
				out = append(out, n.Pos())
			}
			return true
		})
	}
	walk(f, false)
	return out
}

// is reports whether n calls pkg.name.
func is(n ast.Node, pkg, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

func TestBareSleepsAreSeen(t *testing.T) {
	src := `package x
import "time"
func a() { time.Sleep(1) }
func b() { for { time.Sleep(1); for range 3 { time.Sleep(2) } } }
func c() { for { }; time.Sleep(1) }`
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := bareSleeps(f); len(got) != 2 {
		t.Error(fmt.Sprint(got))
	}
}
