package nodekey_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/identity/nodekey"
	"github.com/shoal-project/shoal/internal/errs"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	first, err := nodekey.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := nodekey.Load(dir)
	if err != nil || !again.Equal(first) {
		t.Errorf("another key: %v", err)
	}
	path := filepath.Join(dir, "node.key")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nodekey.Load(dir); !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), path) {
		t.Errorf("rubbish: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "rubbish" {
		t.Error("the file was replaced")
	}
	if _, err := nodekey.Load(filepath.Join(dir, "none")); err == nil {
		t.Error("no directory")
	}
}
