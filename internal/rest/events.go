package rest

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/events"
	"github.com/shoal-project/shoal/identity/access"
)

// slowAfter is how long a listener may take to accept one frame.
const slowAfter = 10 * time.Second

func (s *Server) eventsGet(r *request) response {
	f := events.Filter{Project: r.project, AllProjects: r.allProjects}
	if r.who.Kind == access.Restricted {
		f.Sees, f.Hidden = r.who.Sees, []string{api.EventTypeLogging}
	}
	if t := r.query.Get("type"); t != "" {
		f.Types = strings.Split(t, ",")
	}
	sub, err := s.d.Events.Subscribe(f)
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, hr *http.Request) {
		defer sub.Close()
		conn, err := s.upgrade(w, hr)
		if err != nil {
			return // the library has answered
		}
		s.feed(conn, sub)
	})
}

// feed writes events until the listener goes, is dropped, or the daemon stops.
func (s *Server) feed(conn *websocket.Conn, sub *events.Subscription) {
	defer func() { _ = conn.CloseNow() }()
	ctx := conn.CloseRead(s.streams)
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case frame, ok := <-sub.C():
			if !ok {
				_ = conn.Close(websocket.StatusPolicyViolation, "too slow or stopping")
				return
			}
			wctx, cancel := context.WithTimeout(ctx, slowAfter)
			err := conn.Write(wctx, websocket.MessageText, frame)
			cancel()
			if err != nil {
				return
			}
		case <-ping.C:
			pctx, cancel := context.WithTimeout(ctx, slowAfter)
			err := conn.Ping(pctx)
			cancel()
			if err != nil {
				return // half-open: the peer does not answer any more
			}
		}
	}
}
