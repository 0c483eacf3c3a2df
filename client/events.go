package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
)

// maxFrame bounds one websocket frame.
const maxFrame = 16 << 20

// EventsOptions say which events are wanted.
type EventsOptions struct {
	Types       []string // operation, lifecycle, logging; empty means all
	AllProjects bool
}

// EventStream is an open stream of events; it has to be closed. One goroutine at a time may read it.
type EventStream struct{ ws *websocket.Conn }

// Events opens the server's stream of events.
func (c *Client) Events(ctx context.Context, o EventsOptions) (*EventStream, error) {
	q := url.Values{}
	if len(o.Types) > 0 {
		q.Set("type", strings.Join(o.Types, ","))
	}
	if o.AllProjects {
		q.Set("all-projects", "true")
	}
	ws, err := c.websocket(ctx, "/1.0/events", q)
	if err != nil {
		return nil, fmt.Errorf("open the event stream: %w", err)
	}
	return &EventStream{ws: ws}, nil
}

// Next returns the next event. It ends with an error when the stream does or when ctx ends, after which the
// stream can only be closed.
func (s *EventStream) Next(ctx context.Context) (api.Event, error) {
	for {
		kind, data, err := s.ws.Read(ctx)
		if err != nil {
			return api.Event{}, err
		}
		if kind != websocket.MessageText || len(data) == 0 {
			continue
		}
		var e api.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return e, fmt.Errorf("event: %w", err)
		}
		return e, nil
	}
}

// Close closes the stream.
func (s *EventStream) Close() { _ = s.ws.CloseNow() }

// websocket opens a websocket on an API path.
func (c *Client) websocket(ctx context.Context, path string, q url.Values) (*websocket.Conn, error) {
	if c.opts.Project != "" && c.opts.Project != "default" && !q.Has("all-projects") {
		q.Set("project", c.opts.Project)
	}
	c.opts.Trace("websocket %s", path)
	u := c.base + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	ws, resp, err := websocket.Dial(ctx, u, &websocket.DialOptions{
		HTTPClient:      c.http,
		HTTPHeader:      http.Header{"User-Agent": {c.opts.UserAgent}},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if resp != nil && resp.StatusCode >= 400 && resp.Body != nil {
			resp.Request = &http.Request{URL: &url.URL{Path: path}}
			if _, e := c.envelope(resp); StatusOf(e) != 0 {
				return nil, e
			}
		}
		var ce *ConnectError
		if errors.As(err, &ce) {
			return nil, ce
		}
		return nil, fmt.Errorf("websocket %s: %w", path, err)
	}
	ws.SetReadLimit(maxFrame)
	return ws, nil
}
