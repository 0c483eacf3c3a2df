package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// probe tries in dir, which is empty, what a container's root needs, and prints the outcome as JSON: feature → "true" or what the
// kernel said. It runs in a mount namespace of its own like every shim.
func probe(dir string) {
	out := map[string]string{}
	out["idmapped_overlay"] = verdict(probeOverlay(dir))
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err == nil {
		_ = unix.Close(fs)
	}
	out["erofs"] = verdict(err)
	_ = json.NewEncoder(os.Stdout).Encode(out)
}

func verdict(err error) string {
	if err != nil {
		return err.Error()
	}
	return "true"
}

func probeOverlay(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	for _, d := range []string{"lower", "data/upper", "data/work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	const base = 1000000
	cfg := &shimproto.Config{
		Base: base, Size: 65536, Lower: []string{filepath.Join(dir, "lower")}, Data: filepath.Join(dir, "data"),
	}
	if err := mountAll(cfg); err != nil {
		return err
	}
	err := asOwner(base, func() error { return os.WriteFile(filepath.Join(shimproto.RootPath, "probe"), nil, 0o644) })
	if err != nil {
		return fmt.Errorf("write through the id map: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("data/upper/probe", &st); err != nil {
		return err
	}
	if st.Uid != 0 {
		return fmt.Errorf("a file of the guest's root has uid %d on disk, not 0", st.Uid)
	}
	return nil
}
