package rest_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world/fs"
)

// withFiles is a server with a shared file system in memory, and a client of it.
func withFiles(t *testing.T) (*world, *client.Client) {
	t.Helper()
	store, err := fs.New(fs.Deps{KV: backends.Client(t, backends.Mem(t)), Prefix: "/t/"})
	if err != nil {
		t.Fatal(err)
	}
	w := notReady(t)
	svc := w.services()
	svc.WorldFS = store
	w.srv.SetReady(svc)
	c, err := client.Connect(t.Context(), client.Options{Socket: filepath.Join(w.dir, "unix.socket")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return w, c
}

const worldFiles = "/1.0/world/fs/volumes/default/files?path="

func TestWorldFilesOverHTTP(t *testing.T) {
	_, c := withFiles(t)
	ctx := t.Context()
	content := make([]byte, 2<<20+5)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	for _, p := range []string{"/d", "/d/a b%2F?#é"} {
		if err := c.PostWorldFile(ctx, "default", p, api.WorldFilePost{Action: "mkdir", Mode: "1750"}); err != nil {
			t.Fatal(err)
		}
	}
	const p = "/d/a b%2F?#é/file"
	wrote, err := c.WriteWorldFile(ctx, "default", p, bytes.NewReader(content), client.WorldWrite{Mode: "0600", New: true})
	if err != nil {
		t.Fatal(err)
	}
	for rang, want := range map[string][]byte{"": content, "bytes=0-9": content[:10], "bytes=600000-": content[600000:], "bytes=-3": content[len(content)-3:]} {
		f, err := c.ReadWorldFile(ctx, "default", p, rang)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f.Content)
		_ = f.Content.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %d bytes, %v; want %d", rang, len(got), err, len(want))
		}
	}
	again, err := c.WriteWorldFile(ctx, "default", p, strings.NewReader("new"), client.WorldWrite{ETag: wrote.ETag})
	if err != nil || again.Mode != "0600" || again.Size != 3 {
		t.Errorf("write over: %+v, %v", again, err)
	}
	var ce *client.Error
	if _, err := c.WriteWorldFile(ctx, "default", p, strings.NewReader("x"), client.WorldWrite{ETag: wrote.ETag}); !errors.As(err, &ce) || ce.Status != http.StatusPreconditionFailed {
		t.Errorf("write over what has changed: %v", err)
	}
	tree, err := c.WorldTree(ctx, "default", "/d")
	if err != nil || len(tree) != 3 || tree[0].Mode != "1750" || tree[2].Path != p {
		t.Errorf("tree: %+v, %v", tree, err)
	}
	at, mode, size := time.Unix(1234567, 0).UTC(), "0444", int64(1)
	if err := c.PatchWorldFile(ctx, "default", p, api.WorldFilePatch{Mode: &mode, Size: &size, Modified: &at}); err != nil {
		t.Error(err)
	}
	if f, err := c.WorldFile(ctx, "default", p); err != nil || f.Mode != mode || f.Size != size || !f.Modified.Equal(at) {
		t.Errorf("after a change %+v, %v", f, err)
	}
	if err := c.DeleteWorldFile(ctx, "default", "/d", true); err != nil {
		t.Error(err)
	}
	g, err := c.CollectWorldFS(ctx)
	if u, e := c.WorldFS(ctx); err != nil || e != nil || g.Swept != 6 || u.Blobs != 0 || u.Volumes[0].Files != 0 {
		t.Errorf("collected %+v, %v; left %+v, %v", g, err, u, e)
	}
}

// TestWorldFileErrors: what is wrong is said with the right status, and nothing is made.
func TestWorldFileErrors(t *testing.T) {
	w, c := withFiles(t)
	w.want(w.do("GET", worldFiles+"/", nil), 404, `there is no volume "default": no such file or directory`)
	w.want(w.do("GET", "/1.0/world/fs/volumes", nil), 200, "")
	if _, err := c.WriteWorldFile(t.Context(), "default", "/x", strings.NewReader("x"), client.WorldWrite{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		body         any
		code         int
		text         string
	}{
		{"GET", worldFiles, nil, 400, "missing path"},
		{"GET", worldFiles + "/none", nil, 404, "no such file"},
		{"GET", worldFiles + "/none&stat=true", nil, 404, "no such file"},
		{"GET", "/1.0/world/fs/volumes/..%2Fx/files?path=/", nil, 400, "volume name"},
		{"PUT", worldFiles + "/y&mode=9", "x", 400, "Invalid mode"},
		{"PUT", worldFiles + "/none/y", "x", 404, "no such file"},
		{"PUT", "/1.0/world/fs/volumes/other/files?path=/y", "x", 404, `no volume "other"`},
		{"POST", worldFiles + "/x", api.WorldFilePost{Action: "mkdir"}, 409, "file exists"},
		{"POST", worldFiles + "/x", api.WorldFilePost{Action: "burn"}, 400, "allowed are mkdir"},
		{"POST", worldFiles + "/none", api.WorldFilePost{Action: "rename", Target: "/z"}, 404, "no such file"},
		{"PATCH", worldFiles + "/x", map[string]any{"uid": -7}, 400, "invalid argument"},
		{"PATCH", worldFiles + "/x", map[string]any{"size": 1 << 50}, 413, "too large"},
		{"DELETE", worldFiles + "/none", nil, 404, "no such file"},
		{"DELETE", worldFiles + "/", nil, 409, "busy"},
		{"POST", "/1.0/world/fs/volumes", api.WorldVolumesPost{Name: "UP"}, 400, "want at most 63"},
		{"POST", "/1.0/world/fs/volumes", api.WorldVolumesPost{Name: "up", Chunk: 1}, 400, "want 4096"},
		{"POST", "/1.0/world/fs/volumes", api.WorldVolumesPost{Name: "default"}, 409, "exists"},
		{"DELETE", "/1.0/world/fs/volumes/none", nil, 404, "no volume"},
		{"POST", "/1.0/world/fs/mounts", api.WorldMount{Volume: "default", Path: "/x"}, 501, "cannot mount"},
	} {
		a := w.do(tt.method, tt.path, tt.body)
		if a.code != tt.code || !strings.Contains(a.Error, tt.text) {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, a.code, a.Error, tt.code, tt.text)
		}
	}
	if f, err := c.ReadWorldFile(t.Context(), "default", "/", ""); err != nil || len(f.Dir) != 1 || f.Dir[0].Path != "/x" {
		t.Errorf("afterwards there is %+v, %v", f, err)
	}
}
