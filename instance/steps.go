package instance

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// steps notes when the parts of an operation were done, for the debug log: the question "what took so long" is asked again and
// again. Safe for concurrent use.
type steps struct {
	began time.Time
	mu    sync.Mutex
	attrs []slog.Attr
}

func newSteps() *steps { return &steps{began: time.Now()} }

// done notes that a part, begun with the operation or after the part noted before, is over.
func (t *steps) done(part string) {
	at := time.Since(t.began).Round(10 * time.Microsecond)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attrs = append(t.attrs, slog.Duration(part, at))
}

// log writes all parts, each with the time from the beginning to its end.
func (t *steps) log(l *slog.Logger, msg string, r ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.LogAttrs(context.Background(), slog.LevelDebug, msg, append([]slog.Attr{slog.String("instance", r.String())}, t.attrs...)...)
}
