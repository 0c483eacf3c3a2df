package image_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/internal/state"
)

// BenchmarkImport imports the split image named by SHOAL_BENCH_SQUASHFS beside its peer in the same run: unpacking the
// same file with unsquashfs, which is the least that any daemon that unpacks images does. It prints the ratio.
func BenchmarkImport(b *testing.B) {
	file := os.Getenv("SHOAL_BENCH_SQUASHFS")
	if file == "" {
		b.Skip("SHOAL_BENCH_SQUASHFS names no file")
	}
	root, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	meta := archive(b, metaFiles...)
	w := start(b, b.TempDir(), state.NewMemory(), "")
	var ours, peer, mount time.Duration
	for i := 0; b.Loop(); i++ {
		t0 := time.Now()
		img, err := w.Import(b.Context(), bytes.NewReader(meta), bytes.NewReader(root), image.Rootfs, image.ImportRequest{Project: project})
		if err != nil {
			b.Fatal(err)
		}
		ours += time.Since(t0)
		fp, _ := api.ParseFingerprint(img.Fingerprint)
		t0 = time.Now()
		if _, err := w.Mount(b.Context(), fp); err != nil {
			b.Fatal(err)
		}
		mount += time.Since(t0)
		if err := w.Delete(b.Context(), project, img.Fingerprint); err != nil {
			b.Fatal(err)
		}
		out := filepath.Join(b.TempDir(), fmt.Sprint("out", i))
		t0 = time.Now()
		if err := exec.Command("unsquashfs", "-q", "-n", "-d", out, file).Run(); err != nil {
			b.Fatal(err)
		}
		peer += time.Since(t0)
		if err := os.RemoveAll(out); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(b.N)
	b.ReportMetric(ours.Seconds()*1000/n, "import-ms")
	b.ReportMetric(peer.Seconds()*1000/n, "unsquashfs-ms")
	b.ReportMetric(float64(ours)/float64(peer), "ratio")
	b.ReportMetric(mount.Seconds()*1000/n, "mount-ms")
}
