package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/testring"
)

// TestAbandoned starts a shim as a daemon does that is killed at once. The next daemon may already have looked for
// shim.pid in vain: nothing may come of this shim.
func TestAbandoned(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Binary("go"))
	bin, dir := filepath.Join(t.TempDir(), "shim"), t.TempDir()
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	// A runtime that leaves a mark.
	mark := filepath.Join(dir, "mark")
	runtime := filepath.Join(dir, "runtime.sh")
	if err := os.WriteFile(runtime, []byte("#!/bin/sh\ntouch "+mark+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := shimproto.WriteJSON(filepath.Join(dir, shimproto.ConfigFile), shimproto.Config{
		ID: "x", Runtime: runtime, Path: t.TempDir(), Console: filepath.Join(dir, "console.log"),
	}); err != nil {
		t.Fatal(err)
	}
	for _, alive := range []bool{true, false} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if !alive {
			_ = read.Close()
		}
		cmd := exec.Command(bin, dir)
		cmd.ExtraFiles = []*os.File{write}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if err := cmd.Run(); err == nil {
			t.Error("the shim of a runtime that fails succeeds")
		}
		_ = write.Close()
		_ = read.Close()
		if err := os.Remove(mark); (err == nil) != alive {
			t.Errorf("daemon alive: %v; has the runtime been called? %v", alive, err == nil)
		}
	}
}
