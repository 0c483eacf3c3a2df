package client_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an HTTP server on a unix socket and returns a client for it.
func serve(t *testing.T, mux *http.ServeMux) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "unix.socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	c, err := client.Connect(t.Context(), client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); srv.Close() })
	return c
}

func syncReply(w http.ResponseWriter, v any) {
	meta, _ := json.Marshal(v)
	_ = json.NewEncoder(w).Encode(api.Response{Type: "sync", Status: "Success", StatusCode: 200, Metadata: meta})
}

func asyncReply(w http.ResponseWriter, op api.Operation) {
	meta, _ := json.Marshal(op)
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(api.Response{Type: "async", Status: "Operation created", StatusCode: 100, Operation: "/1.0/operations/" + op.ID, Metadata: meta})
}

func errorReply(w http.ResponseWriter, code int, msg string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.Response{Type: "error", ErrorCode: code, Error: msg})
}

func TestErrorsCarryTheirClass(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/instances/{name}", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("name") {
		case "none":
			errorReply(w, 404, "Instance not found")
		case "proxy":
			http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		}
	})
	c := serve(t, mux)
	_, _, err := c.Instance(t.Context(), "none")
	if !client.IsNotFound(err) || err.Error() != "Instance not found" {
		t.Errorf("got %v, want a not-found error with the server's text", err)
	}
	if _, _, err = c.Instance(t.Context(), "proxy"); client.StatusOf(err) != http.StatusBadGateway {
		t.Errorf("a reply that is not JSON gave %v, want status 502", err)
	}
}

func TestConnectSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.socket")
	_, err := client.Connect(t.Context(), client.Options{Socket: missing})
	var ce *client.ConnectError
	if !errors.As(err, &ce) || !strings.Contains(err.Error(), "Is shoald running?") || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing socket: %v", err)
	}
	dead := filepath.Join(dir, "dead.socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err = client.Connect(t.Context(), client.Options{Socket: dead}); err == nil || !strings.Contains(err.Error(), "nobody answers") {
		t.Errorf("dead socket: %v", err)
	}
}

func TestProjectAndNamesReachTheServerEscaped(t *testing.T) {
	var got string
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.RequestURI()
		syncReply(w, api.ImageAliasesEntry{})
	})
	c := serve(t, mux).WithProject("p1")
	if _, _, err := c.ImageAlias(t.Context(), "debian/12?x"); err != nil {
		t.Fatal(err)
	}
	if want := "/1.0/images/aliases/debian%2F12%3Fx?project=p1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An operation whose event stream breaks half-way is waited for by request.
func TestWaitOutlivesABrokenEventStream(t *testing.T) {
	running := api.Operation{ID: "op1", Status: "Running", StatusCode: api.Running}
	progress := running
	progress.Metadata = map[string]any{"download_progress": "50%"}
	failed := api.Operation{ID: "op1", Status: "Failure", StatusCode: api.Failure, Err: "no space"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/events", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		for _, op := range []api.Operation{{ID: "another", StatusCode: api.Success}, progress} {
			meta, _ := json.Marshal(op)
			data, _ := json.Marshal(api.Event{Type: api.EventTypeOperation, Metadata: meta})
			_ = ws.Write(r.Context(), websocket.MessageText, data)
		}
		_ = ws.CloseNow()
	})
	mux.HandleFunc("DELETE /1.0/instances/c1", func(w http.ResponseWriter, _ *http.Request) { asyncReply(w, running) })
	mux.HandleFunc("GET /1.0/operations/op1", func(w http.ResponseWriter, _ *http.Request) { syncReply(w, running) })
	mux.HandleFunc("GET /1.0/operations/op1/wait", func(w http.ResponseWriter, _ *http.Request) { syncReply(w, failed) })
	c := serve(t, mux)
	op, err := c.DeleteInstance(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	op.OnUpdate(func(o api.Operation) {
		p, _ := o.Metadata["download_progress"].(string)
		seen = append(seen, o.Status+p)
	})
	err = op.Wait(t.Context())
	var oe *client.OperationError
	if !errors.As(err, &oe) || err.Error() != "no space" || oe.Cancelled() {
		t.Errorf("got %v, want the operation's error", err)
	}
	if s := strings.Join(seen, " "); s != "Running Running50% Failure" {
		t.Errorf("updates: %s", s)
	}
}

// execServer speaks the server's side of exec: it echoes stdin to stdout until the end mark, writes "err" to stderr
// and ends with code 7.
func execServer(t *testing.T, mux *http.ServeMux) {
	done := make(chan string, 1)
	socks := make(chan [2]any, 4)
	op := api.Operation{ID: "ex", Status: "Running", StatusCode: api.Running, Metadata: map[string]any{"fds": map[string]string{"0": "s0", "1": "s1", "2": "s2", "control": "sc"}}}
	mux.HandleFunc("POST /1.0/instances/c1/exec", func(w http.ResponseWriter, _ *http.Request) { asyncReply(w, op) })
	mux.HandleFunc("GET /1.0/operations/ex/websocket", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		socks <- [2]any{r.URL.Query().Get("secret"), ws}
	})
	mux.HandleFunc("GET /1.0/operations/ex/wait", func(w http.ResponseWriter, _ *http.Request) {
		final := op
		final.Status, final.StatusCode, final.Metadata = "Success", api.Success, map[string]any{"return": 7, "control": <-done}
		syncReply(w, final)
	})
	go func() {
		by := map[string]*websocket.Conn{}
		for range 4 {
			select {
			case s := <-socks:
				by[s[0].(string)] = s[1].(*websocket.Conn)
			case <-t.Context().Done():
				return
			}
		}
		ctx := context.Background()
		_, ctl, _ := by["sc"].Read(ctx)
		for {
			kind, data, err := by["s0"].Read(ctx)
			if err != nil || kind == websocket.MessageText {
				break
			}
			_ = by["s1"].Write(ctx, websocket.MessageBinary, data)
		}
		_ = by["s2"].Write(ctx, websocket.MessageBinary, []byte("err"))
		for _, n := range []string{"s1", "s2"} {
			_ = by[n].Write(ctx, websocket.MessageText, nil)
		}
		done <- string(ctl)
		for _, ws := range by {
			_ = ws.CloseNow()
		}
	}()
}

func TestExecConnectsStreamsAndReturnsTheCode(t *testing.T) {
	mux := http.NewServeMux()
	execServer(t, mux)
	c := serve(t, mux)
	var out, errOut strings.Builder
	in := strings.Repeat("0123456789", 20000)
	code, err := c.Exec(t.Context(), "c1", api.InstanceExecPost{Command: []string{"cat"}}, client.ExecStreams{
		Stdin: strings.NewReader(in), Stdout: &out, Stderr: &errOut,
		Control: func(_ context.Context, send func(api.InstanceExecControl) error) {
			if err := send(api.InstanceExecControl{Command: "signal", Signal: 2}); err != nil {
				t.Error(err)
			}
		},
	})
	if err != nil || code != 7 {
		t.Fatalf("code %d, %v; want 7", code, err)
	}
	if out.String() != in || errOut.String() != "err" {
		t.Errorf("stdout has %d bytes of %d, stderr %q", out.Len(), len(in), errOut.String())
	}
}

func TestUploadSendsBothPartsAndTheirFingerprint(t *testing.T) {
	dir := t.TempDir()
	meta, root := filepath.Join(dir, "meta.tar.xz"), filepath.Join(dir, "rootfs.squashfs")
	for name, text := range map[string]string{meta: "metadata", root: strings.Repeat("root", 50000)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got, names, props, sum string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /1.0/images", func(w http.ResponseWriter, r *http.Request) {
		mr, err := r.MultipartReader()
		if err != nil {
			errorReply(w, 400, err.Error())
			return
		}
		h := sha256.New()
		for {
			p, err := mr.NextPart()
			if err != nil {
				break
			}
			names += p.FormName() + ":" + p.FileName() + " "
			_, _ = io.Copy(h, p)
		}
		sum, got, props = hex.EncodeToString(h.Sum(nil)), r.Header.Get("X-LXD-fingerprint"), r.Header.Get("X-LXD-properties")
		asyncReply(w, api.Operation{ID: "up", StatusCode: api.Success})
	})
	c := serve(t, mux)
	var sent, total int64
	op, fp, err := c.UploadImage(t.Context(), client.ImageUpload{Metadata: meta, RootFS: root, Properties: map[string]string{"os": "a b"},
		Progress: func(s, n int64) { sent, total = s, n }})
	if err != nil {
		t.Fatal(err)
	}
	if err := op.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got != sum || fp != sum {
		t.Errorf("fingerprint header %q, returned %q, content %q", got, fp, sum)
	}
	if names != "metadata:meta.tar.xz rootfs:rootfs.squashfs " || props != "os=a+b" {
		t.Errorf("parts %q, properties %q", names, props)
	}
	if sent != total || total != 200008 {
		t.Errorf("progress %d of %d", sent, total)
	}
}

func TestUploadThatIsRefusedEndsWithTheServersError(t *testing.T) {
	big := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(big, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /1.0/images", func(w http.ResponseWriter, _ *http.Request) { errorReply(w, 507, "pool is full") })
	c := serve(t, mux)
	if _, _, err := c.UploadImage(t.Context(), client.ImageUpload{Metadata: big}); client.StatusOf(err) != 507 {
		t.Errorf("got %v, want the server's error of status 507", err)
	}
}

func TestExportedNamesStayInTheDirectory(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0/images/{fp}/export", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="../../etc/passwd"`)
		_, _ = io.WriteString(w, "data")
	})
	c := serve(t, mux)
	err := c.ExportImage(t.Context(), "abc", func(p client.ImagePart) error {
		b, err := io.ReadAll(p.Content)
		if p.Filename != "passwd" || string(b) != "data" || err != nil {
			t.Errorf("got %q %q %v", p.Filename, b, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesKeepOwnerAndMode(t *testing.T) {
	mux := http.NewServeMux()
	var write http.Header
	mux.HandleFunc("/1.0/instances/c1/files", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			write = r.Header
			syncReply(w, nil)
			return
		}
		w.Header().Set("X-Incus-type", "directory")
		w.Header().Set("X-Incus-mode", "1777")
		w.Header().Set("X-Incus-uid", "1000")
		syncReply(w, []string{"a", "b"})
	})
	c := serve(t, mux)
	f, err := c.File(t.Context(), "c1", "/tmp")
	if err != nil || f.Mode != 0o1777 || f.UID != 1000 || strings.Join(f.Entries, ",") != "a,b" {
		t.Errorf("got %+v, %v", f, err)
	}
	err = c.WriteFile(t.Context(), "c1", "/etc/x", client.FileWrite{UID: 5, GID: -1, Mode: 0o640, Content: strings.NewReader("x")})
	if err != nil || write.Get("X-Lxd-Uid") != "5" || write.Get("X-Lxd-Gid") != "" || write.Get("X-Lxd-Mode") != "0640" || write.Get("X-Lxd-Type") != "file" {
		t.Errorf("sent %v, %v", write, err)
	}
}
