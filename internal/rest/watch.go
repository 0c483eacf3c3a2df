package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/watch"
)

// aliveEvery is how often a watch sends an empty line when nothing changes.
const aliveEvery = 30 * time.Second

// live answers with what read returns: once, or, with ?watch=true, at first and after each event of the watch, as api.WatchLine says. What
// reads the same as the line before is not sent again.
func (r *request) live(open func(context.Context) (*watch.Watch, error), read func(context.Context) (any, error)) response {
	watching, err := r.watching()
	if err != nil {
		return fail(err)
	}
	// A first read before the answer begins gives errors their status.
	v, err := read(r.Context())
	if err != nil {
		return fail(err)
	}
	if !watching {
		return reply(v)
	}
	ctx, cancel := context.WithCancel(r.Context())
	w, err := open(ctx)
	if err != nil {
		cancel()
		return fail(err)
	}
	return stream(func(rw http.ResponseWriter, _ *http.Request) {
		defer w.Close()
		defer cancel()
		out := newLines(rw)
		var last []byte
		err := each(ctx, w, out, func() error {
			v, err := read(ctx)
			if err != nil {
				return err
			}
			line, err := json.Marshal(v)
			if err != nil || bytes.Equal(line, last) {
				return err
			}
			last = line
			return out.send(v)
		})
		out.end(ctx, err)
	})
}

// watching reads ?watch=.
func (r *request) watching() (bool, error) {
	v := r.query.Get("watch")
	if v == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, errs.Invalid("Invalid watch %q: allowed are true and false", v)
	}
	return on, nil
}

// each calls do for each event until the watch ends, or do or the client fails.
func each(ctx context.Context, w *watch.Watch, out *lines, do func() error) error {
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case _, ok := <-w.C():
			if !ok {
				return w.Err()
			}
			if err := do(); err != nil {
				return err
			}
		case <-t.C:
			if err := out.alive(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lines writes one JSON object per line.
type lines struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	l := &lines{w, http.NewResponseController(w)}
	_ = l.rc.Flush() // a client that has gone is seen at the first line
	return l
}

// send writes a line; one that is not taken in time is an error: the client is gone.
func (l *lines) send(v any) error { return l.line(map[string]any{"metadata": v}) }

func (l *lines) alive() error { return l.write([]byte("\n")) }

// end writes why the lines end, unless the client or the daemon wanted it.
func (l *lines) end(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		_ = l.line(map[string]any{"metadata": nil, "error": err.Error(), "error_code": statusOf(err)})
	}
}

func (l *lines) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.write(append(b, '\n'))
}

func (l *lines) write(b []byte) error {
	if err := l.rc.SetWriteDeadline(time.Now().Add(slowAfter)); err != nil {
		return err
	}
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	return l.rc.Flush()
}
