package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shoal-project/shoal/internal/testring"
)

var programs struct {
	once sync.Once
	dir  string
	err  error
}

// Needs skips the test where a world cannot be made.
func Needs(t testing.TB, more ...testring.Requirement) {
	t.Helper()
	reqs := []testring.Requirement{testring.Root, testring.Filesystem("overlay")}
	for _, b := range []string{"lxc", "runc", "busybox", "mksquashfs", "nsenter", "unshare", "ip"} {
		reqs = append(reqs, testring.Binary(b))
	}
	testring.Need(t, 2, append(reqs, more...)...)
}

// Build compiles our programs and makes the small image once, and returns the directory of both: beside the programs there
// are tiny.meta.tar.gz, tiny.squashfs and, all in one, tiny.tar.gz.
func Build(t testing.TB) string {
	t.Helper()
	programs.once.Do(func() {
		sweepGroups()
		if programs.dir, programs.err = os.MkdirTemp("/var/tmp", "shoal-test-bin-"); programs.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", programs.dir+"/", "github.com/shoal-project/shoal/cmd/...")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("%w\n%s", err, out)
			return
		}
		MakeImage(t, filepath.Join(programs.dir, "tiny"))
	})
	Must(t, programs.err)
	return programs.dir
}

// Main is the TestMain of packages that use Build: it removes what was built.
func Main(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}
