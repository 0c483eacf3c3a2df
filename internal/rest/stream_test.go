package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/internal/op"
)

func (w *world) dial(path string) *websocket.Conn {
	w.t.Helper()
	c, _, err := websocket.Dial(w.t.Context(), "ws://unix.socket"+path, &websocket.DialOptions{HTTPClient: w.client})
	if err != nil {
		w.t.Fatal(err)
	}
	c.SetReadLimit(-1)
	w.t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// next reads a frame; the test's own deadline bounds it.
func next(t *testing.T, c *websocket.Conn) (websocket.MessageType, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	kind, b, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return kind, b
}

func TestAListenerHearsTheFinalEventOfItsOperation(t *testing.T) {
	w := start(t)
	c := w.dial("/1.0/events?type=operation,lifecycle")
	w.want(w.do("POST", "/1.0/projects", `{"name":"foo"}`), 201, "")
	o, err := w.ops.Start(t.Context(), op.Spec{Description: "Testing", Run: func(context.Context, op.Handle) error { return errors.New("no luck") }})
	if err != nil {
		t.Fatal(err)
	}
	for {
		kind, b := next(t, c)
		var e api.Event
		if err := json.Unmarshal(b, &e); err != nil || kind != websocket.MessageText {
			t.Fatalf("frame %s: %v", b, err)
		}
		if e.Location != "none" || e.Project == "" {
			t.Errorf("frame %s", b)
		}
		if e.Type != "operation" {
			t.Errorf("the project's event went to listeners of another project: %s", b)
			continue
		}
		var seen api.Operation
		if err := json.Unmarshal(e.Metadata, &seen); err != nil {
			t.Fatal(err)
		}
		if seen.ID == o.ID && seen.StatusCode.IsFinal() {
			if seen.Err != "no luck" || seen.Description != "Testing" {
				t.Errorf("got %+v", seen)
			}
			return
		}
	}
}

func TestLifecycleEventsNameTheCallerOfTheSocket(t *testing.T) {
	w := start(t)
	c := w.dial("/1.0/events?type=lifecycle&all-projects=true")
	w.want(w.do("POST", "/1.0/projects", `{"name":"foo"}`), 201, "")
	_, b := next(t, c)
	var e api.Event
	var l api.EventLifecycle
	if json.Unmarshal(b, &e) != nil || json.Unmarshal(e.Metadata, &l) != nil {
		t.Fatalf("frame %s", b)
	}
	if l.Action != "project-created" || l.Source != "/1.0/projects/foo" || l.Requestor == nil ||
		l.Requestor.Protocol != "unix" || l.Requestor.Address != "@" || l.Requestor.Username == "" {
		t.Errorf("frame %s", b)
	}
}

func TestAListenerThatNeverReadsHoldsNobodyUp(t *testing.T) {
	w := start(t)
	w.dial("/1.0/events") // and never reads
	good := w.dial("/1.0/events")
	heard := make(chan int, 1)
	const many = events.QueueLen * 3
	go func() {
		n := 0
		for n < many {
			if _, _, err := good.Read(t.Context()); err != nil {
				break
			}
			n++
		}
		heard <- n
	}()
	big := map[string]any{"x": string(bytes.Repeat([]byte("x"), 4096))}
	for i := range many {
		w.hub.Lifecycle(t.Context(), api.DefaultProject, "test", fmt.Sprint(i), big)
		if i%100 == 0 { // the good listener must have a chance: the queue is bounded for it too
			time.Sleep(5 * time.Millisecond)
		}
	}
	if n := <-heard; n != many {
		t.Errorf("the good listener heard %d of %d", n, many)
	}
}

// echo is an operation whose socket 0 gives back what it gets until the end mark, and whose control frames it counts.
func (w *world) echo(control chan<- string) (id string, fds map[string]any) {
	w.t.Helper()
	o, err := w.ops.Start(w.t.Context(), op.Spec{Class: op.Websocket, Sockets: []string{"0", "control"},
		Run: func(ctx context.Context, o op.Handle) error {
			c, err := o.Socket(ctx, "control")
			if err != nil {
				return err
			}
			s, err := o.Socket(ctx, "0")
			if err != nil {
				return err
			}
			read := make(chan struct{})
			go func() {
				defer close(read)
				for {
					text, err := c.ReadText(ctx)
					if err != nil {
						return
					}
					control <- string(text)
				}
			}()
			_, err = io.Copy(s, s)
			err = errors.Join(err, s.Close(), c.Close())
			<-read
			close(control)
			return err
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	return o.ID, o.Metadata["fds"].(map[string]any)
}

func TestWebsocketsCarryDataBothWaysUntilTheEndMark(t *testing.T) {
	w := start(t)
	control := make(chan string, 10)
	id, fds := w.echo(control)
	url := func(fd string) string { return "/1.0/operations/" + id + "/websocket?secret=" + fds[fd].(string) }
	w.want(w.do("GET", "/1.0/operations/"+id+"/websocket?secret=wrong", nil), 403, "not authorized")
	cc, c := w.dial(url("control")), w.dial(url("0"))
	w.want(w.do("GET", url("0"), nil), 403, "not authorized")

	if err := cc.Write(t.Context(), websocket.MessageText, []byte(`{"command":"window-resize"}`)); err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() {
		for i := 0; i < len(sent); i += 40_000 {
			if c.Write(t.Context(), websocket.MessageBinary, sent[i:min(i+40_000, len(sent))]) != nil {
				return
			}
		}
		_ = c.Write(t.Context(), websocket.MessageText, nil)
	}()
	var got []byte
	for {
		kind, b := next(t, c)
		if kind == websocket.MessageText {
			if len(b) != 0 {
				t.Errorf("end mark %q", b)
			}
			break
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes of %d", len(got), len(sent))
	}
	if text := <-control; text != `{"command":"window-resize"}` {
		t.Errorf("control frame %q", text)
	}
	it, err := w.ops.Wait(t.Context(), id, -1)
	if err != nil || it.Operation.StatusCode != api.Success {
		t.Errorf("got %+v, %v", it.Operation, err)
	}
}

func TestAClientThatVanishesEndsItsSocket(t *testing.T) {
	w := start(t)
	id, fds := w.echo(make(chan string, 1))
	cc := w.dial("/1.0/operations/" + id + "/websocket?secret=" + fds["control"].(string))
	c := w.dial("/1.0/operations/" + id + "/websocket?secret=" + fds["0"].(string))
	_ = cc.CloseNow()
	_ = c.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := w.ops.Wait(ctx, id, -1); err != nil {
		t.Error(err)
	}
}

func TestAFloodOfControlFramesIsTakenAtTheReadersPace(t *testing.T) {
	w := start(t)
	control := make(chan string) // nobody reads until later
	id, fds := w.echo(control)
	cc := w.dial("/1.0/operations/" + id + "/websocket?secret=" + fds["control"].(string))
	c := w.dial("/1.0/operations/" + id + "/websocket?secret=" + fds["0"].(string))
	const frames = 20_000
	go func() {
		for range frames {
			if cc.Write(t.Context(), websocket.MessageText, []byte(`{"command":"window-resize","args":{"width":"80","height":"24"}}`)) != nil {
				return
			}
		}
	}()
	for range frames {
		<-control
	}
	big := bytes.Repeat([]byte("x"), 1<<20)
	_ = cc.Write(t.Context(), websocket.MessageText, big) // the server may hang up before it has all
	_ = c.Write(t.Context(), websocket.MessageText, nil)
	if _, open := <-control; open {
		t.Error("a control frame of 1 MiB was passed on")
	}
	if _, err := w.ops.Wait(t.Context(), id, -1); err != nil {
		t.Error(err)
	}
}

func TestHeadersMustArriveInTime(t *testing.T) {
	w := start(t)
	if got := w.srv.HTTPServer().ReadHeaderTimeout; got <= 0 || got > 10*time.Second {
		t.Errorf("a client may take %v to send its header", got)
	}
	c, err := net.Dial("unix", filepath.Join(w.dir, "unix.socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	head := "GET /1.0 HTTP/1.1\r\nHost: x\r\nX: " + string(bytes.Repeat([]byte("y"), 1<<20)) + "\r\n\r\n"
	go func() { _, _ = io.WriteString(c, head) }()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err == nil && !bytes.Contains(buf[:n], []byte("431")) {
		t.Errorf("a header of 1 MiB was answered with %q", buf[:n])
	}
}
