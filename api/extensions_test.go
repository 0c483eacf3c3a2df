package api_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
)

func TestEveryExtensionHasItsProof(t *testing.T) {
	names := map[string]bool{}
	for _, n := range api.Extensions() {
		if names[n] {
			t.Errorf("%s is listed twice", n)
		}
		names[n] = true
	}
	for ext, proof := range api.ExtensionProofs() {
		dir, fn, _ := strings.Cut(proof, " ")
		files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(b), "func "+fn+"(t *testing.T)")
		}
		if !found {
			t.Errorf("%s: there is no test %s in %s", ext, fn, dir)
		}
	}
}
