package ssh

import (
	"io"
	"net"
	"sync"
)

// conn is what was dialled through a tunnel. An ssh channel cannot be relied on to end a read when it is closed, for that the server has to
// answer, and has no deadlines; so a pipe stands between it and the caller, which does and has.
type conn struct {
	net.Conn // our end of the pipe
	far      net.Conn
}

// through returns a connection over far, with two goroutines in wg that end when either side is closed, or at the latest with the ssh
// connection under far.
func through(far net.Conn, wg *sync.WaitGroup) net.Conn {
	near, inner := net.Pipe()
	wg.Go(func() {
		_, _ = io.Copy(inner, far)
		_ = inner.Close()
	})
	wg.Go(func() {
		_, _ = io.Copy(far, inner)
		_ = far.Close()
	})
	return &conn{near, far}
}

func (c *conn) LocalAddr() net.Addr  { return c.far.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.far.RemoteAddr() }
