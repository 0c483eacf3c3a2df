package fault_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/test/harness"
)

// small puts a small filesystem where the daemon keeps something; call it before the daemon starts. Like all mounts
// of the world it goes with it.
func (w *world) small(dir, size string) {
	w.t.Helper()
	at := filepath.Join(w.State, dir)
	w.must(os.MkdirAll(at, 0o700))
	img := filepath.Join(w.Dir, filepath.Base(dir)+".fs")
	script := `set -e; truncate -s "$2" "$1"; mkfs.ext4 -q -m 0 -O ^has_journal "$1"; mount -o loop "$1" "$3"`
	if out, err := w.Inside("sh", "-c", script, "sh", img, size, at).CombinedOutput(); err != nil {
		w.t.Fatalf("small filesystem: %v %s", err, out)
	}
	w.Mounts = append(w.Mounts, at)
}

// fill takes all that is free below a directory of the daemon, but for a few bytes, and returns how to give it back.
func (w *world) fill(dir string) (free func()) {
	w.t.Helper()
	at := filepath.Join(w.State, dir, "lost+found", "filler") // where no record looks
	_ = w.Inside("dd", "if=/dev/zero", "of="+at, "bs=64k").Run()
	_ = w.Inside("dd", "if=/dev/zero", "of="+at+"2", "bs=512").Run()
	return func() { w.t.Helper(); w.must(w.Inside("rm", "-f", at, at+"2").Run()) }
}

func wantNoSpace(t *testing.T, what string, err error) {
	t.Helper()
	// 507 of the request, or 400 of an operation, which has no finer code; the words are the same.
	if !harness.Refused(err) || !strings.Contains(strings.ToLower(err.Error()), "space") {
		t.Errorf("%s on a full disk: %v", what, err)
	}
}

// TestImageDiskFull fills the disk of the images, with an image and before one.
func TestImageDiskFull(t *testing.T) {
	harness.Needs(t, testring.Binary("mkfs.ext4"))
	w := empty(t)
	w.small("images", "24M")
	w.must(w.Start())
	w.setUp()
	noise := make([]byte, 30<<20)
	_, _ = rand.Read(noise)
	_, err := w.send(image(entry{name: "rootfs/noise", body: string(noise)}))
	wantNoSpace(t, "an image that is larger than the disk", err)
	w.Check(t)

	w.launch("c1", nil)
	free := w.fill("images")
	wantNoSpace(t, "an image", w.upload())
	w.launch("c2", nil)
	w.must(w.Kill())
	w.must(w.Start())
	if len(w.images()) != 1 {
		t.Errorf("images %v", w.images())
	}
	w.Check(t)
	free()
	w.must(w.upload())
	w.Check(t)
}

// TestPoolFull lets a guest fill its pool: the guest gets an error, others too, and all goes on once it has cleared up.
func TestPoolFull(t *testing.T) {
	harness.Needs(t, testring.Binary("mkfs.btrfs"), testring.Filesystem("btrfs"))
	w := boot(t)
	w.run("POST", "/1.0/storage-pools", object{"name": "small", "driver": "btrfs", "config": object{"size": "256MiB"}})
	root := object{"root": object{"type": "disk", "path": "/", "pool": "small"}}
	body := instance("greedy", nil)
	body["devices"] = root
	w.run("POST", "/1.0/instances", body)
	w.power("greedy", "start", false)
	out, _ := w.exec("greedy", "sh", "-c", "dd if=/dev/zero of=/root/big bs=1M; dd if=/dev/zero of=/root/big2 bs=4k")
	if !strings.Contains(out, "No space") {
		t.Errorf("the guest fills its pool: %s", out)
	}
	body = instance("late", nil)
	body["devices"] = root
	if _, err := w.Run("POST", "/1.0/instances", body); err != nil {
		wantNoSpace(t, "an instance", err)
	} else {
		w.remove("late")
	}
	w.launch("elsewhere", nil)
	w.must(w.Kill())
	w.must(w.Start())
	if s := w.status("greedy"); s != "Running" {
		t.Errorf("greedy is %s", s)
	}
	w.Check(t)
	if out, err := w.exec("greedy", "rm", "/root/big", "/root/big2"); err != nil {
		t.Errorf("the guest clears up: %v %s", err, out)
	}
	w.power("greedy", "stop", true)
	w.power("greedy", "start", false)
	w.remove("greedy")
	w.remove("elsewhere")
	w.run("DELETE", "/1.0/storage-pools/small", nil)
	w.Check(t)
}

// TestDatabaseDiskFull fills the disk of the database: what runs goes on, all can be read, changes are refused with the
// reason, and are taken again once there is space. A daemon that starts meanwhile does the same.
func TestDatabaseDiskFull(t *testing.T) {
	harness.Needs(t, testring.Binary("mkfs.ext4"))
	w := empty(t)
	w.small("database", "96M")
	w.must(w.Start())
	w.setUp()
	keep := w.watch("keep")
	free := w.fill("database")
	for _, restart := range []bool{false, true} {
		if restart {
			w.must(w.Kill())
			w.must(w.Start())
		}
		big := strings.Repeat("x", 512<<10)
		for range 40 { // more than what may be allocated already
			_, err := w.Run("PATCH", "/1.0/profiles/default", object{"description": big})
			if err != nil {
				wantNoSpace(t, "a profile", err)
				break
			}
		}
		_, err := w.Run("POST", "/1.0/instances", instance("c1", nil))
		wantNoSpace(t, "an instance", err)
		keep.untouched()
	}
	w.Check(t)
	free()
	harness.Eventually(t, "changes are taken again", func() bool {
		_, err := w.Run("PATCH", "/1.0/profiles/default", object{"description": "free"})
		return err == nil
	})
	w.launch("c1", nil)
	w.Check(t)
	keep.gapless()
}
