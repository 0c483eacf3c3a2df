package rest

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// sftpGet turns the connection into a raw SFTP stream.
func sftpGet(r *request) response {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "sftp") {
		return fail(errs.Invalid("Missing or invalid upgrade header: \"Upgrade: sftp\" is needed"))
	}
	guest, err := r.svc.Instances.SFTP(r.Context(), r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = guest.Close()
			fail(err).write(w, hr)
			return
		}
		_ = conn.SetDeadline(time.Time{})
		const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n"
		if _, err := io.WriteString(conn, head); err != nil {
			_ = conn.Close()
			_ = guest.Close()
			return
		}
		r.srv.splice(conn, buf.Reader, guest)
	})
}

// splice copies both ways until one side ends or the daemon cuts its streams; then both are closed.
func (s *Server) splice(conn net.Conn, from *bufio.Reader, guest io.ReadWriteCloser) {
	ended := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(guest, from); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(conn, guest); ended <- struct{}{} }()
	left := 2
	select {
	case <-ended:
		left--
	case <-s.streams.Done():
	}
	_ = conn.Close()
	_ = guest.Close()
	for ; left > 0; left-- {
		<-ended
	}
}
