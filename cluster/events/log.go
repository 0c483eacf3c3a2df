package events

import (
	"context"
	"log/slog"

	"github.com/shoal-project/shoal/api"
)

// LogHandler returns a handler that writes to next and publishes what next lets through as logging events. Clients
// listen to all types while they wait for an operation, so listeners must not make the daemon more talkative.
func (h *Hub) LogHandler(next slog.Handler) slog.Handler { return &logHandler{hub: h, next: next} }

type logHandler struct {
	hub    *Hub
	next   slog.Handler
	prefix string // of groups, with a trailing dot
	attrs  []slog.Attr
}

func (l *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

func (l *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if l.hub.Wanted(api.EventTypeLogging) {
		fields := map[string]string{}
		for _, a := range l.attrs {
			flatten(fields, "", a)
		}
		r.Attrs(func(a slog.Attr) bool { flatten(fields, l.prefix, a); return true })
		l.hub.publish(api.EventTypeLogging, "", api.EventLogging{Message: r.Message, Level: levelName(r.Level), Context: fields})
	}
	return l.next.Handle(ctx, r)
}

func (l *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *l
	n.next = l.next.WithAttrs(attrs)
	n.attrs = append([]slog.Attr(nil), l.attrs...)
	for _, a := range attrs {
		a.Key = l.prefix + a.Key
		n.attrs = append(n.attrs, a)
	}
	return &n
}

func (l *logHandler) WithGroup(name string) slog.Handler {
	n := *l
	n.next = l.next.WithGroup(name)
	n.prefix = l.prefix + name + "."
	return &n
}

func flatten(into map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		into[prefix+a.Key] = v.String()
		return
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, g := range v.Group() {
		flatten(into, prefix, g)
	}
}

// levelName gives the words that clients filter by.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	}
	return "error"
}
