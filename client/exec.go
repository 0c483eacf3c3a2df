package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
)

// ExecStreams connect a command in an instance with the caller.
type ExecStreams struct {
	Stdin  io.Reader // nil is an empty input. A Read that blocks is left behind when the command ends.
	Stdout io.Writer // of a terminal session everything comes here
	Stderr io.Writer
	// Control, where set, is called in a goroutine of its own once the session stands, with a context that ends with
	// it and a function that sends window sizes and signals.
	Control func(ctx context.Context, send func(api.InstanceExecControl) error)
}

// Exec runs a command in an instance, connects s with it and returns the command's exit code after all its output
// has been written. When ctx ends, the command is killed.
func (c *Client) Exec(ctx context.Context, instance string, req api.InstanceExecPost, s ExecStreams) (int, error) {
	req.WaitForWS = true
	op, err := c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", instance, "exec"), Body: req})
	if err != nil {
		return -1, err
	}
	names := []string{"control", "0"}
	if !req.Interactive {
		names = append(names, "1", "2")
	}
	socks, err := c.sockets(ctx, op, names)
	if err != nil {
		return -1, operationErrorOr(ctx, op, err)
	}
	defer socks.close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Control != nil {
		go s.Control(ctx, func(m api.InstanceExecControl) error { return sendControl(ctx, socks["control"], m) })
	}
	go discard(ctx, socks["control"])
	var out sync.WaitGroup
	if req.Interactive {
		out.Go(func() { _ = copyOut(ctx, s.Stdout, socks["0"]) })
	} else {
		go discard(ctx, socks["0"])
		out.Go(func() { _ = copyOut(ctx, s.Stdout, socks["1"]) })
		out.Go(func() { _ = copyOut(ctx, s.Stderr, socks["2"]) })
	}
	go copyIn(ctx, socks["0"], s.Stdin)
	err = op.Wait(ctx)
	code, ok := exitCode(op.Last())
	if err == nil || ok {
		waitFor(&out, flushTime)
	}
	if !ok && err == nil {
		err = errors.New("the server did not say how the command ended")
	}
	if !ok {
		return -1, err
	}
	return code, err
}

// flushTime bounds how long output may take after the command has ended. A process that the command left behind
// may hold its streams open for ever.
const flushTime = 5 * time.Second

func waitFor(wg *sync.WaitGroup, atMost time.Duration) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(atMost):
	}
}

// exitCode reads the result of a finished command.
func exitCode(op api.Operation) (int, bool) {
	v, ok := op.Metadata["return"].(float64)
	return int(v), ok
}

// ConsoleOptions describe a console session.
type ConsoleOptions struct {
	Width, Height int
	Stdin         io.Reader // its end detaches
	Stdout        io.Writer
	Control       func(ctx context.Context, send func(api.InstanceExecControl) error)
}

// Console connects the caller with the console of a running instance until Stdin ends, the instance stops or
// ctx ends.
func (c *Client) Console(ctx context.Context, instance string, o ConsoleOptions) error {
	req := api.InstanceConsolePost{Width: o.Width, Height: o.Height, Type: "console"}
	op, err := c.start(ctx, Request{Method: http.MethodPost, Path: pathTo("instances", instance, "console"), Body: req})
	if err != nil {
		return err
	}
	socks, err := c.sockets(ctx, op, []string{"control", "0"})
	if err != nil {
		return operationErrorOr(ctx, op, err)
	}
	defer socks.close()
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.Control != nil {
		go o.Control(sctx, func(m api.InstanceExecControl) error { return sendControl(sctx, socks["control"], m) })
	}
	go discard(sctx, socks["control"])
	detached := make(chan struct{})
	ended := make(chan struct{})
	go func() { defer close(detached); copyIn(sctx, socks["0"], o.Stdin) }()
	go func() { defer close(ended); _ = copyOut(sctx, o.Stdout, socks["0"]) }()
	select {
	case <-ended:
	case <-detached:
	case <-ctx.Done():
	}
	socks.close()
	return op.Wait(ctx)
}

type socketSet map[string]*websocket.Conn

func (s socketSet) close() {
	for _, ws := range s {
		_ = ws.CloseNow()
	}
}

// sockets connects the named websockets of an operation.
func (c *Client) sockets(ctx context.Context, op *Operation, names []string) (socketSet, error) {
	fds, _ := op.Last().Metadata["fds"].(map[string]any)
	socks := socketSet{}
	for _, n := range names {
		secret, ok := fds[n].(string)
		if !ok {
			socks.close()
			return nil, fmt.Errorf("the server offers no stream %q for this session", n)
		}
		ws, err := c.websocket(ctx, pathTo("operations", op.ID(), "websocket"), url.Values{"secret": {secret}})
		if err != nil {
			socks.close()
			return nil, fmt.Errorf("connect stream %q: %w", n, err)
		}
		socks[n] = ws
	}
	return socks, nil
}

// operationErrorOr prefers what the operation itself failed with: a socket that cannot be connected is often only
// its consequence.
func operationErrorOr(ctx context.Context, op *Operation, err error) error {
	cur, _, gerr := op.c.Operation(ctx, op.ID())
	if gerr == nil && cur.StatusCode.IsFinal() && cur.Err != "" {
		return &OperationError{Op: cur, Message: cur.Err}
	}
	return err
}

func sendControl(ctx context.Context, ws *websocket.Conn, m api.InstanceExecControl) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageText, data)
}

// copyOut writes binary frames to w until the empty text frame that ends a stream, or the socket's end.
// When w fails it keeps reading, so that the command does not block.
func copyOut(ctx context.Context, w io.Writer, ws *websocket.Conn) error {
	var werr error
	for {
		kind, data, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageText {
			return werr
		}
		if w != nil && werr == nil {
			_, werr = w.Write(data)
		}
	}
}

// discard reads a socket on which nothing is expected but pings, which are answered while somebody reads, and an end
// mark. (The library's CloseRead takes the mark for a violation.)
func discard(ctx context.Context, ws *websocket.Conn) { _ = copyOut(ctx, nil, ws) }

// copyIn sends r's bytes as binary frames and its end as an empty text frame.
func copyIn(ctx context.Context, ws *websocket.Conn, r io.Reader) {
	if r != nil {
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 && ws.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
				return
			}
			if err != nil {
				break
			}
		}
	}
	_ = ws.Write(ctx, websocket.MessageText, nil)
}
