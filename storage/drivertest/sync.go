package drivertest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// syncFS makes the filesystem below path commit, after which quota groups are up to date.
func syncFS(t *testing.T, path string) {
	t.Helper()
	d, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
	}
}
