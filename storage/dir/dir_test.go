package dir_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/storage/dir"
	"github.com/shoal-project/shoal/storage/driver"
	"github.com/shoal-project/shoal/storage/drivertest"
)

func used(s driver.Spec) string {
	if _, err := os.Lstat(s.Path); err == nil {
		return s.Path
	}
	if src := s.Config["source"]; src != "" && src != s.Path {
		if left, _ := os.ReadDir(src); len(left) > 0 {
			return left[0].Name()
		}
	}
	return ""
}

func TestDriver(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{Driver: dir.New(slog.New(slog.DiscardHandler)), Config: api.Config{}, Used: used}
	})
}

func TestDriverWithSource(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{Driver: dir.New(slog.New(slog.DiscardHandler)), Config: api.Config{"source": t.TempDir()}, Used: used}
	})
}

func TestSourceIsRefused(t *testing.T) {
	full, file := t.TempDir(), filepath.Join(t.TempDir(), "f")
	for _, f := range []string{filepath.Join(full, "precious"), file} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	name, _ := api.ParsePoolName("p")
	for what, c := range map[string]struct {
		source string
		class  errs.Class
	}{
		"not empty": {full, errs.InvalidInput}, "a file": {file, errs.InvalidInput}, "a link": {link, errs.InvalidInput},
		"not there": {"/nonexistent/dir", errs.NotFoundClass},
	} {
		s := driver.Spec{Name: name, Path: filepath.Join(t.TempDir(), "p"), Config: api.Config{"source": c.source}}
		d := dir.New(slog.New(slog.DiscardHandler))
		if _, err := d.Create(t.Context(), s); !errs.Is(err, c.class) {
			t.Errorf("%s: %v, want class %v", what, err, c.class)
		}
		if err := d.Destroy(t.Context(), s); err != nil {
			t.Errorf("%s: undo: %v", what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "precious")); err != nil {
		t.Error(err)
	}
}
