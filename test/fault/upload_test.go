package fault_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/harness"
)

// entry is one of an archive.
type entry struct {
	name, link, body string
	kind             byte // zero: a file
}

const metadata = "architecture: x86_64\ncreation_date: 1760000000\n"

// archive packs entries; what is not a file gets its kind, and the names go in as they are.
func archive(entries ...entry) []byte {
	var buf bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed) // a level that there is
	tw := tar.NewWriter(gz)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: 0o755, Size: int64(len(e.body)), Format: tar.FormatPAX}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		_ = tw.WriteHeader(h) // some are more than tar allows: the archive then ends there
		_, _ = tw.Write([]byte(e.body))
	}
	_ = tw.Close()
	_ = gz.Close()
	return buf.Bytes()
}

// image is a whole one with further entries.
func image(more ...entry) []byte {
	return archive(append([]entry{{name: "metadata.yaml", body: metadata}, {name: "rootfs/", kind: tar.TypeDir}, {name: "rootfs/etc/", kind: tar.TypeDir}}, more...)...)
}

func (w *world) send(body any, header ...string) (api.Operation, error) {
	return w.Run("POST", "/1.0/images", body, append([]string{"Content-Type", "application/octet-stream"}, header...)...)
}

// images are the fingerprints of all images.
func (w *world) images() (list []string) {
	w.t.Helper()
	w.Get(w.t, "/1.0/images", &list)
	return list
}

// TestBadImages uploads archives that are no images, and such that would like to be written elsewhere.
func TestBadImages(t *testing.T) {
	w := boot(t)
	canary := filepath.Join(w.Dir, "canary")
	w.must(os.Mkdir(canary, 0o700))
	w.must(os.WriteFile(filepath.Join(canary, "file"), []byte("alive"), 0o600))
	out := strings.Repeat("../", 20) + canary[1:]
	before := w.images()
	cases := map[string]struct {
		body   []byte
		header []string
		says   string
	}{
		"nothing":                {body: nil},
		"text":                   {body: []byte("hello world\n")},
		"half a gzip header":     {body: []byte{0x1f, 0x8b}},
		"no metadata":            {body: archive(entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata.yaml"},
		"no root":                {body: archive(entry{name: "metadata.yaml", body: metadata}), says: "rootfs"},
		"metadata is a link":     {body: archive(entry{name: "metadata.yaml", kind: tar.TypeSymlink, link: "/etc/passwd"}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata.yaml"},
		"metadata is a hardlink": {body: archive(entry{name: "metadata.yaml", kind: tar.TypeLink, link: "/etc/passwd"}, entry{name: "rootfs/", kind: tar.TypeDir})},
		"metadata is a FIFO":     {body: archive(entry{name: "metadata.yaml", kind: tar.TypeFifo}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata.yaml"},
		"metadata is a list":     {body: archive(entry{name: "metadata.yaml", body: "[1,2]"}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata"},
		"metadata is a bomb":     {body: archive(entry{name: "metadata.yaml", body: bomb()}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata"},
		"metadata of 64 MiB":     {body: archive(entry{name: "metadata.yaml", body: strings.Repeat("# x\n", 16<<20)}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "metadata"},
		"no architecture":        {body: archive(entry{name: "metadata.yaml", body: "creation_date: 1\n"}, entry{name: "rootfs/", kind: tar.TypeDir}), says: "architecture"},
		"wrong fingerprint":      {body: image(), header: []string{"X-LXD-fingerprint", strings.Repeat("0", 64)}, says: "fingerprint"},
		"fingerprint of dots":    {body: image(), header: []string{"X-LXD-fingerprint", "../../x"}, says: "ingerprint"},
		"up and out":             {body: image(entry{name: "rootfs/" + out + "/file", body: "dead"})},
		"up and out at the top":  {body: image(entry{name: out + "/file", body: "dead"})},
		"absolute":               {body: image(entry{name: canary + "/file", body: "dead"})},
		"through a link":         {body: image(entry{name: "rootfs/x", kind: tar.TypeSymlink, link: canary}, entry{name: "rootfs/x/file", body: "dead"})},
		"through a link twice":   {body: image(entry{name: "rootfs/x", kind: tar.TypeSymlink, link: "/"}, entry{name: "rootfs/x" + canary + "/file", body: "dead"})},
		"hardlink out":           {body: image(entry{name: "rootfs/x", kind: tar.TypeLink, link: canary + "/file"}, entry{name: "rootfs/x", body: "dead"})},
		"root becomes a link":    {body: image(entry{name: "rootfs", kind: tar.TypeSymlink, link: canary}, entry{name: "rootfs/file", body: "dead"})},
		"templates are a link":   {body: image(entry{name: "templates", kind: tar.TypeSymlink, link: canary}, entry{name: "templates/file", body: "dead"})},
		"a long name":            {body: image(entry{name: "rootfs/" + strings.Repeat("x", 5000), body: "dead"})},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := w.send(c.body, c.header...)
			if b, rerr := os.ReadFile(filepath.Join(canary, "file")); string(b) != "alive" {
				t.Fatalf("written outside: %q %v", b, rerr)
			}
			if list, _ := os.ReadDir(canary); len(list) != 1 {
				t.Fatalf("the canary's directory has %v", list)
			}
			if !harness.Refused(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
	if after := w.images(); len(after) != len(before) {
		t.Errorf("images before %v and after %v", before, after)
	}
	w.Check(t)
}

// bomb is a document of a few hundred bytes that is gigabytes long once its references are followed.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i+1, i+1, i, i, i, i, i, i, i, i, i)
	}
	return b.String() + metadata
}

// TestTruncatedUploads cuts the connection of an upload at many places, and gives lengths that are wrong.
func TestTruncatedUploads(t *testing.T) {
	w := boot(t)
	body, err := os.ReadFile(filepath.Join(w.Bin, "tiny.tar.gz"))
	w.must(err)
	before := w.images()
	fds := w.fds()
	for i := range 12 {
		conn, err := net.Dial("unix", w.Socket())
		w.must(err)
		_, err = fmt.Fprintf(conn, "POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", len(body))
		w.must(err)
		_, _ = conn.Write(body[:len(body)*i/12])
		w.must(conn.Close())
	}
	for i := range 12 { // a shorter file that claims nothing
		if _, err := w.send(body[:len(body)*i/12]); !harness.Refused(err) {
			t.Errorf("%d/12 of an image: %v", i, err)
		}
	}
	// Forms without an end.
	form := "--b\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"m\"\r\n\r\n"
	for name, b := range map[string]string{
		"no part": "", "no boundary": "hello", "no end": form + "xyz", "wrong order": strings.Replace(form, "metadata", "rootfs", 1) + "x\r\n--b--\r\n",
		"unknown part": strings.Replace(form, "metadata", "../../x", 1) + "x\r\n--b--\r\n", "one part": form + "x\r\n--b--\r\n",
	} {
		if _, err := w.Run("POST", "/1.0/images", b, "Content-Type", "multipart/form-data; boundary=b"); !harness.Refused(err) {
			t.Errorf("form with %s: %v", name, err)
		}
	}
	harness.Eventually(t, "files of uploads are closed", func() bool { return w.fds() <= fds+3 })
	if after := w.images(); len(after) != len(before) {
		t.Errorf("images before %v and after %v", before, after)
	}
	w.Check(t)
	w.must(w.upload())
	w.Check(t)
}
