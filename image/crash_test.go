package image_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/internal/state"
)

// crashDir tells the copy of the test that is to be killed where to import.
const crashDir = "SHOAL_TEST_CRASH_DIR"

// TestImportForever is the victim of TestKilled.
func TestImportForever(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only as a child of TestKilled")
	}
	body, err := os.ReadFile(filepath.Join(dir, "root.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	meta := archive(t, metaFiles...)
	w := start(t, dir, state.NewMemory(), "")
	os.Stdout.WriteString("READY\n")
	for {
		img, err := w.split(t, meta, body, image.ImportRequest{})
		if err == nil {
			err = w.Delete(t.Context(), project, img.Fingerprint)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilled kills a process with SIGKILL while it imports and deletes, at any moment, and looks at what the next one
// finds: never half an image, nothing left after the sweep, and the same import works.
func TestKilled(t *testing.T) {
	need(t)
	dir := t.TempDir()
	tree, noise := special(t), make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	if err := os.WriteFile(filepath.Join(tree, "noise"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	body := squash(t, tree)
	if err := os.WriteFile(filepath.Join(dir, "root.squashfs"), body, 0o600); err != nil {
		t.Fatal(err)
	}
	meta := archive(t, metaFiles...)
	seen := map[string]bool{}
	for range 12 {
		for _, name := range killOne(t, dir) {
			switch {
			case strings.HasPrefix(name, ".shoal-tmp-"):
				seen["staging"] = true
			case len(name) == 64:
				seen["content"] = true
			}
		}
		w := start(t, dir, state.NewMemory(), "") // the record died with the process: all content is garbage
		if err := w.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := append(w.left(t), mounts(t, dir)...); len(left) != 0 {
			t.Fatalf("left after the sweep: %v", left)
		}
	}
	if !seen["staging"] {
		t.Error("no kill hit an import; the test proves nothing")
	}
	w := start(t, dir, state.NewMemory(), "")
	img, err := w.split(t, meta, body, image.ImportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), project, img.Fingerprint); err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// killOne runs the victim, kills it and returns what is in the image directory.
func killOne(t *testing.T, dir string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestImportForever$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil || string(line) != "READY\n" {
		t.Fatalf("the victim says %q, %v: %s", line, err, errOut.String())
	}
	timer := time.NewTimer(time.Duration(rand.IntN(400)) * time.Millisecond) // any moment, no deadline
	<-timer.C
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	entries, err := os.ReadDir(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
