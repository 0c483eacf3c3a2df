package btrfs_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/storage/btrfs"
	"github.com/shoal-project/shoal/storage/driver"
	"github.com/shoal-project/shoal/storage/drivertest"
)

func needs(t *testing.T) {
	testring.Need(t, 2, testring.Root, testring.Filesystem("btrfs"), testring.Binary("mkfs.btrfs"))
}

func newDriver() *btrfs.Driver { return btrfs.New(run.Host{}, slog.New(slog.DiscardHandler)) }

// used looks for the image file, the mount and loop devices of the pool.
func used(s driver.Spec) string {
	for _, p := range []string{s.Path, s.Disk} {
		if _, err := os.Lstat(p); err == nil {
			return p
		}
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), s.Disk) {
			return f
		}
	}
	if src := s.Config["source"]; src != "" && src != s.Disk {
		if left, _ := os.ReadDir(src); len(left) > 0 {
			return left[0].Name()
		}
	}
	return ""
}

func TestLoopPool(t *testing.T) {
	needs(t)
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		return drivertest.Subject{Driver: newDriver(), Config: api.Config{"size": "256MiB"}, Used: used}
	})
}

// TestDirectoryPool puts pools into a directory of a filesystem that somebody else made.
func TestDirectoryPool(t *testing.T) {
	needs(t)
	base := t.TempDir()
	name, _ := api.ParsePoolName("outer")
	outer := driver.Spec{Name: name, Path: filepath.Join(base, "mnt"), Disk: filepath.Join(base, "disk.img"), Config: api.Config{"size": "512MiB"}}
	d := newDriver()
	if _, err := d.Create(t.Context(), outer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fsmount.Unmount(outer.Path); err != nil {
			t.Error(err)
		}
	})
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		src, err := os.MkdirTemp(outer.Path, "pool")
		if err != nil {
			t.Fatal(err)
		}
		return drivertest.Subject{Driver: newDriver(), Config: api.Config{"source": src}, Used: used}
	})
}

func spec(t *testing.T, config api.Config) driver.Spec {
	t.Helper()
	base := t.TempDir()
	name, _ := api.ParsePoolName("p")
	return driver.Spec{Name: name, Path: filepath.Join(base, "mnt"), Disk: filepath.Join(base, "p.img"), Config: config}
}

func created(t *testing.T, s driver.Spec) driver.Spec {
	t.Helper()
	d := newDriver()
	cfg, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	s.Config = cfg
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), s); err != nil {
			t.Error(err)
		}
		if left := used(s); left != "" {
			t.Errorf("left behind: %s", left)
		}
	})
	return s
}

func TestGrow(t *testing.T) {
	needs(t)
	s := created(t, spec(t, api.Config{"size": "128MiB"}))
	d := newDriver()
	p, err := d.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := d.Resize(t.Context(), s, 100<<20); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("shrink: %v", err)
	}
	if err := d.Resize(t.Context(), s, 1<<60); !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("an exabyte: %v", err)
	}
	for range 2 { // in use, and again as after a crash
		if err := d.Resize(t.Context(), s, 256<<20); err != nil {
			t.Fatal(err)
		}
	}
	r, err := p.Resources(t.Context())
	if err != nil || r.Space.Total != 256<<20 {
		t.Errorf("after growing: %+v, %v", r, err)
	}
}

func volume(t *testing.T, name string) driver.Volume {
	t.Helper()
	n, err := api.ParseInstanceName(name)
	if err != nil {
		t.Fatal(err)
	}
	return driver.InstanceVolume(api.DefaultProject, n)
}

// TestLimitsHoldAfterDeletes opens the pool while the kernel is still clearing away what was deleted: taking away the
// quota group of a deleted subvolume too early would end all limits of the filesystem.
func TestLimitsHoldAfterDeletes(t *testing.T) {
	needs(t)
	s := created(t, spec(t, api.Config{"size": "512MiB"}))
	d := newDriver()
	for i := range 20 {
		p, err := d.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		v := volume(t, fmt.Sprintf("c%d", i))
		if _, err := p.CreateVolume(t.Context(), v, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Path(v), "upper", "f"), make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.DeleteVolume(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		p.Close()
		p, err = d.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	p, err := d.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	v := volume(t, "last")
	if _, err := p.CreateVolume(t.Context(), v, 16<<20); err != nil {
		t.Fatal(err)
	}
	err = os.WriteFile(filepath.Join(p.Path(v), "upper", "f"), make([]byte, 64<<20), 0o600)
	if !errs.Is(driver.NoSpace(err), errs.NoSpaceClass) {
		t.Errorf("writing 64 MiB into 16: %v", err)
	}
}

// TestDevicePool gives a pool a block device: blank, in use, and with somebody's filesystem.
func TestDevicePool(t *testing.T) {
	needs(t)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 256<<20); err != nil {
		t.Fatal(err)
	}
	loop, err := fsmount.AttachLoop(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	d := newDriver()
	s := spec(t, api.Config{"source": loop.Path})
	cfg, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	s.Config = cfg
	second := spec(t, api.Config{"source": loop.Path})
	if _, err := d.Create(t.Context(), second); err == nil {
		t.Error("a device in use was taken")
	}
	p, err := d.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	for range 2 {
		if err := d.Destroy(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	// The device is blank again and can be taken.
	cfg, err = d.Create(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	second.Config = cfg
	if err := fsmount.Unmount(second.Path); err != nil {
		t.Fatal(err)
	}
	third := spec(t, api.Config{"source": loop.Path})
	if _, err := d.Create(t.Context(), third); err == nil {
		t.Error("a device with a filesystem was taken")
	}
	if p, err := d.Open(t.Context(), second); err != nil {
		t.Errorf("the filesystem on the device was harmed: %v", err)
	} else {
		p.Close()
	}
	if err := d.Destroy(t.Context(), second); err != nil {
		t.Fatal(err)
	}
}

func TestCreateIsRefused(t *testing.T) {
	needs(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config api.Config
		class  errs.Class
	}{
		"larger than the disk":   {api.Config{"size": "1EiB"}, errs.NoSpaceClass},
		"too small":              {api.Config{"size": "1MiB"}, errs.NoSpaceClass},
		"not on btrfs":           {api.Config{"source": t.TempDir()}, errs.InvalidInput},
		"a file":                 {api.Config{"source": file}, errs.InvalidInput},
		"a character device":     {api.Config{"source": "/dev/null"}, errs.InvalidInput},
		"nothing":                {api.Config{"source": "/dev/nonexistent"}, errs.NotFoundClass},
		"hostile mount options":  {api.Config{"size": "128MiB", "btrfs.mount_options": "device=/dev/vda"}, errs.InvalidInput},
		"subvol in the options":  {api.Config{"size": "128MiB", "btrfs.mount_options": "noatime,subvol=/"}, errs.InvalidInput},
		"mount option that lies": {api.Config{"size": "128MiB", "btrfs.mount_options": "compress=rot13"}, errs.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := newDriver(), spec(t, c.config)
			if _, err := d.Create(t.Context(), s); err == nil || !errs.Is(err, c.class) {
				t.Errorf("got %v (class %v), want class %v", err, errs.ClassOf(err), c.class)
			}
			if err := d.Destroy(t.Context(), s); err != nil && !errs.Is(err, errs.InvalidInput) {
				t.Errorf("undo: %v", err)
			}
			s.Config = api.Config{}
			if left := used(s); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// TestNestedSubvolumes deletes a volume in which subvolumes were made, one inside another, as a guest with a btrfs
// volume can.
func TestNestedSubvolumes(t *testing.T) {
	needs(t)
	testring.Need(t, 2, testring.Binary("btrfs"))
	s := created(t, spec(t, api.Config{"size": "256MiB"}))
	p, err := newDriver().Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	name, _ := api.ParseInstanceName("c1")
	v := driver.InstanceVolume(api.DefaultProject, name)
	if _, err := p.CreateVolume(t.Context(), v, 0); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(p.Path(v), "upper")
	for range 20 {
		at = filepath.Join(at, "sub")
		if _, err := (run.Host{}).Run(t.Context(), run.Command{Name: "btrfs", Args: []string{"subvolume", "create", at}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.DeleteVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := run.Host{}.Run(t.Context(), run.Command{Name: "btrfs", Args: []string{"subvolume", "list", s.Path}})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Stdout) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("subvolumes left:\n%s", res.Stdout)
		}
	}
}
