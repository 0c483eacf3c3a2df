package fault_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/harness"
)

// usage is what a daemon holds. Goroutines are not seen from outside, but their stacks are in its memory.
type usage struct {
	fds int
	rss int64
}

func (w *world) usage() usage { return usage{w.fds(), w.rss()} }

// flat waits until no more files are open than before, but a few.
func (w *world) flat(before usage) {
	w.t.Helper()
	harness.Eventually(w.t, "open files are as before", func() bool { return w.fds() <= before.fds+5 })
	if now := w.usage(); now.rss > before.rss+96<<20 {
		w.t.Errorf("the daemon's memory grew from %d to %d MiB", before.rss>>20, now.rss>>20)
	}
}

// TestDroppedSessions opens commands and consoles as clients do, and hangs up at each stage.
func TestDroppedSessions(t *testing.T) {
	w := boot(t)
	w.launch("c1", nil)
	w.exec("c1", "true")
	before, shims := w.usage(), len(w.Guests())
	sessions := 1000
	if testing.Short() {
		sessions = 100
	}
	work := make(chan int)
	var wg sync.WaitGroup
	for range runtime.NumCPU() * 2 {
		wg.Go(func() {
			for i := range work {
				w.drop(t, i)
			}
		})
	}
	for i := range sessions {
		work <- i
	}
	close(work)
	wg.Wait()
	// Who never comes to its sockets is waited for, but not for ever.
	asked := time.Now()
	harness.Eventually(t, "their operations have ended", func() bool {
		var ops map[string][]string
		w.Get(t, "/1.0/operations", &ops)
		return len(ops["running"]) == 0
	})
	t.Logf("the last operation ended after %s", time.Since(asked).Round(time.Second))
	harness.Eventually(t, "commands have ended", func() bool { return len(w.Guests()) <= shims })
	w.flat(before)
	if _, err := w.exec("c1", "true"); err != nil {
		t.Error(err)
	}
	w.Check(t)
}

// drop begins a command and leaves it at stage i.
func (w *world) drop(t *testing.T, i int) {
	body := object{"command": []string{"cat"}, "wait-for-websocket": true, "interactive": i%2 == 0, "environment": object{}}
	r, err := w.Do("POST", "/1.0/instances/c1/exec", body)
	if err != nil || r.Code != http.StatusAccepted {
		t.Errorf("exec %d: %d %s %v", i, r.Code, r.Error, err)
		return
	}
	fds, _ := decode[api.Operation](t, r.Metadata).Metadata["fds"].(map[string]any)
	order := []string{"control", "0", "1", "2"}
	if i%2 == 0 {
		order = []string{"control", "0"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	for _, name := range order[:i%(len(order)+1)] {
		c, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://shoal%s/websocket?secret=%v", r.Operation, fds[name]), &websocket.DialOptions{HTTPClient: w.HTTP()})
		if err != nil {
			t.Errorf("exec %d: socket %s: %v", i, name, err)
			return
		}
		defer func() { _ = c.CloseNow() }()
	}
}

// TestSlowListeners has clients that ask for events and never read them: others get theirs, and the daemon does not keep what
// nobody takes.
func TestSlowListeners(t *testing.T) {
	w := boot(t)
	before := w.usage()
	for range 50 {
		conn, err := net.Dial("unix", w.Socket())
		w.must(err)
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, "GET /1.0/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		w.must(err)
		line, err := bufio.NewReaderSize(conn, 16).ReadString('\n') // they listen from here on, and read no more
		w.must(err)
		if !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			t.Fatalf("no websocket: %q", line)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://shoal/1.0/events?type=lifecycle", &websocket.DialOptions{HTTPClient: w.HTTP()})
	w.must(err)
	defer func() { _ = c.CloseNow() }()
	got := make(chan int, 1)
	const changes = 300
	go func() {
		n := 0
		for n < changes {
			_, b, err := c.Read(ctx)
			if err != nil {
				break
			}
			if strings.Contains(string(b), "profile-updated") {
				n++
			}
		}
		got <- n
	}()
	big := strings.Repeat("x", 4096)
	for i := range changes {
		w.run("PATCH", "/1.0/profiles/default", object{"description": fmt.Sprint(i, big)})
	}
	select {
	case n := <-got:
		if n != changes {
			t.Errorf("the client that reads got %d of %d events", n, changes)
		}
	case <-time.After(3 * harness.Patience):
		t.Error("the client that reads waits for events that never come")
	}
	if now := w.usage(); now.rss > before.rss+128<<20 {
		t.Errorf("memory grew from %d to %d MiB", before.rss>>20, now.rss>>20)
	}
	w.Check(t)
}

// TestSlowRequests opens connections and sends hardly anything; the daemon goes on and can be stopped.
func TestSlowRequests(t *testing.T) {
	w := boot(t)
	for i := range 200 {
		conn, err := net.Dial("unix", w.Socket())
		w.must(err)
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "POST /1.0/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"[:i%67])
	}
	w.launch("c1", nil)
	w.Check(t)
	w.must(w.Stop())
	w.must(w.Start())
	if s := w.status("c1"); s != "Running" {
		t.Errorf("c1 is %s", s)
	}
	// Waiting for what never comes.
	before := w.usage()
	var wg sync.WaitGroup
	r, err := w.Do("POST", "/1.0/instances/c1/exec", object{"command": []string{"cat"}, "wait-for-websocket": true, "environment": object{}})
	w.must(err)
	for range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://shoal"+r.Operation+"/wait", nil)
			if resp, err := w.HTTP().Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	_, _ = w.Do("DELETE", r.Operation, nil)
	w.flat(before)
	w.Check(t)
}
