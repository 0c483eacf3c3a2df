package rest

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	pingEvery = 10 * time.Second
	// closeWait is how long a closed socket may take to say goodbye; its operation does not wait for that.
	closeWait = 5 * time.Second
	maxText   = 64 << 10
)

// socket makes a websocket the op.Socket of an operation. Frames of the peer are read by a goroutine of its own
// (pings are answered there), which waits until Read has taken what came before: nothing is kept in memory.
type socket struct {
	conn    *websocket.Conn
	control bool // text frames are messages, not the end mark
	ctx     context.Context
	cancel  context.CancelFunc

	pr    *io.PipeReader
	pw    *io.PipeWriter
	texts chan []byte

	closing sync.Once
	closed  chan struct{}
}

// upgrade answers r with a websocket.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// newSocket takes over conn; it lives until Close or until the daemon cuts its streams.
func (s *Server) newSocket(conn *websocket.Conn, control bool) *socket {
	k := &socket{conn: conn, control: control, texts: make(chan []byte), closed: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(s.streams)
	k.pr, k.pw = io.Pipe()
	conn.SetReadLimit(-1) // binary messages are streamed, text is limited below
	go k.pump()
	go keepAlive(k.ctx, conn)
	return k
}

// pump moves what the peer sends to Read and ReadText until it ends.
func (k *socket) pump() {
	defer close(k.texts)
	for {
		kind, r, err := k.conn.Reader(k.ctx)
		if err != nil {
			_ = k.pw.Close() // the peer has gone: io.EOF
			return
		}
		if kind == websocket.MessageBinary {
			if _, err := io.Copy(k.pw, r); err != nil {
				_ = k.pw.Close()
				return
			}
			continue
		}
		text, err := io.ReadAll(io.LimitReader(r, maxText+1))
		switch {
		case err != nil || len(text) > maxText:
			_ = k.pw.Close()
			_ = k.conn.Close(websocket.StatusMessageTooBig, "control message too large")
			return
		case !k.control || len(text) == 0:
			_ = k.pw.Close() // the end mark; more frames may follow, their data goes nowhere
			if k.control {
				return
			}
		default:
			select {
			case k.texts <- text:
			case <-k.closed:
				return
			case <-k.ctx.Done():
				return
			}
		}
	}
}

func (k *socket) Read(p []byte) (int, error) { return k.pr.Read(p) }

func (k *socket) Write(p []byte) (int, error) {
	if err := k.conn.Write(k.ctx, websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadText returns the next text frame, io.EOF when the peer has gone.
func (k *socket) ReadText(ctx context.Context) ([]byte, error) {
	select {
	case t, ok := <-k.texts:
		if !ok {
			return nil, io.EOF
		}
		return t, nil
	case <-k.closed:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends Read and ReadText at once, sends the end mark and returns; the closing handshake goes on in the background
// for closeWait at most.
func (k *socket) Close() error {
	k.closing.Do(func() {
		close(k.closed)
		_ = k.pw.Close()
		go func() {
			ctx, cancel := context.WithTimeout(k.ctx, closeWait)
			defer cancel()
			if k.conn.Write(ctx, websocket.MessageText, nil) == nil {
				_ = k.conn.Close(websocket.StatusNormalClosure, "")
			}
			_ = k.conn.CloseNow()
			k.cancel()
		}()
	})
	return nil
}

// keepAlive pings until ctx ends. A pong may be late when the peer sends more than is read, so only a failed
// write counts, and that closes the connection.
func keepAlive(ctx context.Context, conn *websocket.Conn) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			pctx, cancel := context.WithTimeout(ctx, pingEvery)
			_ = conn.Ping(pctx)
			cancel()
		}
	}
}
